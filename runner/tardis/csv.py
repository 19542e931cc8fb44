"""Gzipped CSV of Tardis to Arrow, in blocks: memory does not depend on the file, and nothing doubtful gets through.

Strict on purpose, because a cut or damaged file can look whole to a lenient reader: every gzip member must end with
its checksum, every line with a newline, every row must have the header's columns and belong to what was asked for.
Damage is what the source does not write, so that somebody else must have: CR LF line ends, a byte order mark, NUL
bytes, NaN and infinity, times that are not in microseconds, rows that arrived more than a day off the file's own. What
real files do have passes as it stands: arrival times that go back, ids that repeat, exchange times of other days, old
ones too, crossed books. A shorter file that is whole in itself cannot be told from the real one here: only `x-md5` can.
Blocks of plain rows are read by compiled code (plain.py), which agrees with Arrow to the bit; Arrow judges all others.
Source of the format: https://docs.tardis.dev/downloadable-csv-files
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from runner.errors import IntegrityError
from runner.market.names import GROUPS
from runner.market.schema import TIME, Column, DataType
from runner.tardis import plain
from runner.tardis.gunzip import inflated

# What is unpacked, read and still hot in the processor's second cache.
BLOCK_BYTES = 1024 * 1024
_LINE_BYTES = 64 * 1024
_SHOWN_BYTES = 60
_CAUSE_CHARS = 120

# 2010 to 2100: times in seconds, ms or ns fall outside
_EARLIEST_US = 1_262_304_000_000_000
_LATEST_US = 4_102_444_800_000_000
_DAY_US = 86_400_000_000

_TAKER_SIDES = frozenset({"buy", "sell", "unknown"})
_SIDES: Mapping[str, frozenset[str]] = {"incremental_book_L2": frozenset({"bid", "ask"})}
_HEX = (b",0x", b",0X")
_WORDS: Mapping[str, frozenset[str]] = {"type": frozenset({"put", "call"})}
_REPEATED = frozenset({"side", "symbol", "type", "underlying_index"})
_NEVER_EMPTY = frozenset({"timestamp", "local_timestamp", "is_snapshot", "symbol"})
_NEVER_EMPTY_IN: Mapping[str, frozenset[str]] = {
    "trades": frozenset({"price", "amount"}),
    "options_chain": frozenset({"strike_price", "expiration"}),
}


def read(  # noqa: PLR0913 what a file must be of, by name
    chunks: Iterator[bytes],
    data_type: DataType,
    *,
    exchange: str,
    symbol: str,
    day: date | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a gzipped day file in file order, in the schema `data_type.ticks`.

    An empty gzip stream and a header without rows yield nothing. Empty numbers are null. The rows must be of `exchange`
    and `symbol`, as it is or in capitals. It may be that of a group: then of any symbol, in the schema
    `data_type.grouped.ticks`. They must have arrived on `day` (UTC; None: any), the day before or the day after.
    Raises IntegrityError, with the line where there is one, for anything but a sound file.
    """
    rows: _Rows | None = None
    line = 1
    for block in _blocks(inflated(chunks, block_bytes), block_bytes):
        body = block
        if line == 1:
            header, _, body = block.partition(b"\n")
            _check_header(header, data_type)
            line = 2
        if body:
            rows = rows or _rows(body, data_type, f"{exchange.lower()},", symbol, day)
            batch = _parsed(rows, body, line)
            line += batch.num_rows
            yield batch


def _rows(body: bytes, data_type: DataType, exchange: str, symbol: str, day: date | None) -> _Rows:
    """Return the reader of rows like the first of `body`: symbols in capitals, or as the venue writes them (0d5)."""
    if symbol in GROUPS:
        return _Rows(data_type.grouped, exchange.encode(), day)
    as_written = f"{exchange}{symbol},".encode()
    prefix = as_written if body.startswith(as_written) else f"{exchange}{symbol.upper()},".encode()
    return _Rows(data_type, prefix, day)


def _blocks(pieces: Iterator[bytes], block_bytes: int) -> Iterator[bytes]:
    """Yield blocks of about `block_bytes` that end with a line."""
    pending = [b""]
    size = 0
    for piece in pieces:
        pending.append(piece)
        size += len(piece)
        if size < block_bytes:
            continue
        block, rest = _cut(pending)
        if block:
            yield block
        elif size > _LINE_BYTES:
            raise IntegrityError(f"a line of more than {_LINE_BYTES} bytes: {_shown(rest)}")
        pending, size = [rest], len(rest)
    block, rest = _cut(pending)
    if block:
        yield block
    if rest:
        raise IntegrityError(f"the last line is not ended: {_shown(rest)}")


def _cut(pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Return the whole lines of pieces as one, and what follows them."""
    last = pieces[-1]
    if cut := last.rfind(b"\n") + 1:
        return b"".join((*pieces[:-1], memoryview(last)[:cut])), last[cut:]
    data = b"".join(pieces)
    cut = data.rfind(b"\n") + 1
    return data[:cut], data[cut:]


def _check_header(header: bytes, data_type: DataType) -> None:
    expected = ",".join(data_type.csv_columns).encode()
    if header != expected:
        raise IntegrityError(f"line 1: the header is not that of {data_type.name}: {_shown(header)}")


def _parsed(rows: _Rows, block: bytes, line: int) -> pa.RecordBatch:
    try:
        return rows.parse(block)
    except _BadRowError:
        pass
    # the parsers judge a block as a whole: search for the shortest beginning that is bad
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
    good, bad = 0, len(ends)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            rows.parse(block[: ends[middle - 1]])
            good = middle
        except _BadRowError:
            bad = middle
    culprit = block[ends[bad - 2] if bad > 1 else 0 : ends[bad - 1]]
    try:
        rows.parse(culprit)
    except _BadRowError as e:
        raise IntegrityError(f"line {line + bad - 1}: {e}: {_shown(culprit)}") from e
    raise IntegrityError(f"line {line + bad - 1}: cannot be read after the lines before it: {_shown(culprit)}")


def _shown(line: bytes) -> str:
    return repr(line[:_SHOWN_BYTES].decode("utf-8", "replace"))


class _BadRowError(Exception):
    """Some row of a block is not sound."""


@dataclass(frozen=True)
class _Rows:
    """The reader of one file's blocks. Every row begins with `prefix`: exchange and, but in a group's file, symbol."""

    data_type: DataType
    prefix: bytes
    day: date | None = None

    @cached_property
    def _options(self) -> tuple[arrow_csv.ParseOptions, arrow_csv.ConvertOptions]:
        parse = arrow_csv.ParseOptions(quote_char=False, double_quote=False, ignore_empty_lines=False)
        convert = arrow_csv.ConvertOptions(
            include_columns=[column.csv for column in self.data_type.columns],
            column_types={column.csv: _read_as(column.name, column.type) for column in self.data_type.columns},
            null_values=[""],
            strings_can_be_null=False,
            true_values=["true"],
            false_values=["false"],
        )
        return parse, convert

    @property
    def _foreign(self) -> str:
        return f"not a row of {self.prefix.decode().rstrip(',')}"

    @cached_property
    def fast(self) -> plain.Plain | None:
        """Return the fast reader of these rows; None where it is not compiled or would have to leave a column out."""
        stored = {column.csv: column for column in self.data_type.columns}
        held = self.data_type.csv_columns[self.prefix.count(b",") :]
        if not plain.available() or stored.keys() != set(held):
            return None
        return plain.Plain(self.prefix, [self._field(stored[name]) for name in held], self.data_type.ticks)

    def _field(self, column: Column) -> plain.Field:
        name, low, high = column.name, _EARLIEST_US, _LATEST_US
        if name == "local_timestamp" and self.day:
            around = _around_us(self.day)
            low, high = max(low, around[0]), min(high, around[1])
        return plain.Field(name, column.type, not self._never_empty(name), tuple(sorted(self._words(name))), low, high)

    def parse(self, block: bytes) -> pa.RecordBatch:
        """Return the rows of a block of whole lines; _BadRowError when any is not sound."""
        batch = self.fast.read(block) if self.fast else None
        return self.judged(block) if batch is None else batch

    def judged(self, block: bytes) -> pa.RecordBatch:
        """Do the same by Arrow alone, which takes what is not plain and tells what is wrong."""
        self._check_bytes(block)
        # here, because a block of empty lines would cost Arrow a hundred times its size
        if block.count(b"\n" + self.prefix) + block.startswith(self.prefix) != block.count(b"\n"):
            raise _BadRowError(self._foreign)
        parse, convert = self._options
        read = arrow_csv.ReadOptions(
            use_threads=False, block_size=len(block) + 1, column_names=list(self.data_type.csv_columns)
        )
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(block), read_options=read, parse_options=parse, convert_options=convert
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError) as e:
            raise _BadRowError(" ".join(str(e).replace("Row #1: ", "").split())[:_CAUSE_CHARS]) from e
        columns = [self._checked(c.name, c.type, table.column(c.csv)) for c in self.data_type.columns]
        return pa.RecordBatch.from_arrays(columns, schema=self.data_type.ticks)

    def _check_bytes(self, block: bytes) -> None:
        if not block.startswith(self.prefix):
            raise _BadRowError(self._foreign)
        for byte, name in ((b"\r", "a carriage return"), (b"\0", "a NUL byte")):
            if byte in block:
                raise _BadRowError(name)
        # Arrow trims blanks around numbers
        for blank in (b" ", b"\t"):
            if blank in block and any(pair in block for pair in (b"," + blank, blank + b",", blank + b"\n")):
                raise _BadRowError("blanks around a value")
        # Arrow takes hexadecimal for a whole number; in an id it is none of our business. One letter is found faster.
        if any(begin[-1:] in block and begin in block for begin in _HEX) and self._has_hex_time(block):
            raise _BadRowError("a time in hexadecimal")

    def _has_hex_time(self, block: bytes) -> bool:
        times = [self.data_type.csv_columns.index(c.csv) for c in self.data_type.columns if c.type == TIME]
        rows = (line.split(b",") for line in block.split(b"\n"))
        return any(field[:2] in (b"0x", b"0X") for row in rows for at in times for field in row[at : at + 1])

    def _checked(self, name: str, kind: pa.DataType, column: pa.ChunkedArray) -> pa.Array:
        values = column.combine_chunks()
        if values.null_count and self._never_empty(name):
            raise _BadRowError(f"{name} is empty")
        if pa.types.is_dictionary(values.type):
            self._check_words(name, values.dictionary.to_pylist())
            return values.cast(kind)
        if kind == TIME:
            _check_times(name, values, self.day if name == "local_timestamp" else None)
            return values.cast(kind)
        if pa.types.is_floating(kind) and pc.all(pc.is_finite(values)).as_py() is False:
            raise _BadRowError(f"{name} is not a finite number")
        return values

    def _never_empty(self, name: str) -> bool:
        return name in _NEVER_EMPTY or name in _NEVER_EMPTY_IN.get(self.data_type.name, ())

    def _words(self, name: str) -> frozenset[str]:
        """Return the only words that a column may hold; none where it may hold others."""
        return _SIDES.get(self.data_type.name, _TAKER_SIDES) if name == "side" else _WORDS.get(name, frozenset())

    def _check_words(self, name: str, words: list[str]) -> None:
        if (allowed := self._words(name)) and not allowed.issuperset(words):
            raise _BadRowError(f"{name} is none of {', '.join(sorted(allowed))}")
        if name == "symbol" and "" in words:
            raise _BadRowError("symbol is empty")


def _check_times(name: str, values: pa.Array, day: date | None) -> None:
    ends = pc.min_max(values)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if low is None:
        return
    if low < _EARLIEST_US or high >= _LATEST_US:
        raise _BadRowError(f"{name} is no time in microseconds between 2010 and 2100")
    if day is None:
        return
    earliest, latest = _around_us(day)
    if low < earliest or high >= latest:
        raise _BadRowError(f"{name} is more than a day off {day}")


def _around_us(day: date) -> tuple[int, int]:
    """Return the time from the day before to the end of the day after."""
    start_us = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
    return start_us - _DAY_US, start_us + 2 * _DAY_US


def _read_as(name: str, kind: pa.DataType) -> pa.DataType:
    if kind == TIME:
        return pa.int64()
    return pa.dictionary(pa.int32(), pa.string()) if name in _REPEATED else kind
