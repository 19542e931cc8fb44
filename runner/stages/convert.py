"""One tick file on its way through: gzip chunks → Arrow batches → ticks.parquet, its digest, and candles, in one pass.

Memory is constant in the size of the file. Nothing here knows the store: the result is a local file and small tables.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from runner import layout
from runner.ledger import canonical, sha256
from runner.market.book import BookCandles
from runner.market.candles import Bars, TradeCandles
from runner.market.groups import UNPARSED
from runner.market.names import OPTIONS_CHAIN, is_group
from runner.market.options import OptionFeatures
from runner.market.schema import CANDLES as CANDLES_SCHEMA
from runner.market.schema import (
    DATA_TYPES,
    OPTION_FEATURES,
    SCHEMA_VERSION,
    TICK_ROW_GROUP,
    TIMEFRAMES,
    DataType,
    Digest,
    book_candles_schema,
    book_depth,
    writer_options,
)
from runner.stages.oddities import Oddities
from runner.tardis import csv
from runner.task import Outcome, Source, Task

_MEDIAN_BATCH_ROWS = TICK_ROW_GROUP


@dataclass(slots=True)
class Span:
    """Rows seen so far and the span of their exchange timestamps, µs."""

    rows: int = 0
    min_ts: int | None = None
    max_ts: int | None = None

    def add(self, table: pa.Table) -> None:
        """Take in a table with at least one row."""
        span = pc.min_max(table["timestamp"].cast(pa.int64()))
        low, high = span["min"].as_py(), span["max"].as_py()
        self.rows += table.num_rows
        self.min_ts = low if self.min_ts is None else min(self.min_ts, low)
        self.max_ts = high if self.max_ts is None else max(self.max_ts, high)


@dataclass(frozen=True, slots=True)
class Ticks:
    """A tick file ready to commit: its path and span, the facts that go with the object, derived tables by key.

    `oddities` counts what is strange in the source's file.
    """

    subject: Subject
    path: Path
    span: Span
    metadata: Mapping[str, str]
    candles: Mapping[str, pa.Table] = field(default_factory=dict)
    oddities: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """The (task, data type) at hand, and where its instrument is at the source. `part` is the underlying, if split."""

    task: Task
    data_type: str
    source: Source
    part: str = ""

    @property
    def origin(self) -> str:
        """Return the name of the file at the source: the one input of these ticks."""
        return f"tardis:{self.source.exchange}/{self.data_type}/{self.task.day}/{self.source.symbol}"

    @property
    def venue(self) -> str:
        """Return the venue of the instrument key."""
        return self.task.key.split(":", 1)[0]

    @property
    def key(self) -> str:
        """Return the instrument key, or what stands for it in the names of a part."""
        return layout.part_key(self.task.key, self.part) if self.part else self.task.key

    @property
    def columns(self) -> DataType:
        """Return what the ticks consist of; those of a group tell the symbol of each row."""
        data_type = DATA_TYPES[self.data_type]
        return data_type.grouped if is_group(self.task.key) else data_type

    @property
    def ticks_key(self) -> str:
        """Return the key of the ticks object."""
        return layout.ticks(self.task.day, self.data_type, self.key)

    @property
    def derived(self) -> Mapping[str, str]:
        """Return the keys of the objects derived from these ticks, by timeframe; none where none come of them."""
        if self.part == UNPARSED:
            return {}
        parts = (self.part,) if self.part else ()
        keys = layout.outputs(self.task.day, self.data_type, self.task.key, parts)[:-1]
        return dict(zip(TIMEFRAMES, keys, strict=True)) if keys else {}

    @property
    def bars(self) -> Bars:
        """Return what candles must know of the instrument."""
        s = self.source
        return Bars(
            day=self.task.day,
            venue=self.venue,
            key=(self.part or s.symbol) if self.data_type == OPTIONS_CHAIN else self.task.key,
            inverse=s.inverse,
            amount_unit=s.amount_unit,
            contract_size=s.contract_size,
            listed_from=s.listed_from,
            listed_to=s.listed_to,
        )


class TickFile:
    """The ticks of one subject on their way to a file, with their digest and what is derived from them."""

    def __init__(self, subject: Subject, path: Path) -> None:
        self._subject, self._path = subject, path
        schema = subject.columns.ticks
        self._writer = pq.ParquetWriter(path, schema, **writer_options(schema))
        self._digest, self._span, self._sums = Digest(schema), Span(), _accumulator(subject)

    def write(self, rows: pa.Table) -> None:
        """Append rows, at least one, as a row group."""
        self._writer.write_table(rows, row_group_size=TICK_ROW_GROUP)
        self._digest.update(rows)
        self._span.add(rows)
        if self._sums is not None:
            for batch in rows.to_batches():
                self._sums.add(batch)

    def close(self) -> None:
        """Close the file as it is; it is of no more use."""
        self._writer.close()

    def finish(self, source_md5: str, source_bytes: int) -> Ticks:
        """Close the file with its facts in the footer; return it with what is derived from it."""
        outcome = Outcome.DONE if self._span.rows else Outcome.EMPTY
        metadata = _metadata(self._subject, outcome, self._digest.hexdigest(), self._span, source_md5)
        metadata["source_bytes"] = str(source_bytes)
        self._writer.add_key_value_metadata(_footer(self._subject, metadata, [self._subject.origin]))
        self._writer.close()
        if (rows := pq.read_metadata(self._path).num_rows) != self._span.rows:
            raise OSError(f"{self._path} holds {rows} rows of the {self._span.rows} written to it")
        tables = _tables(self._sums, self._path)
        if self._sums is not None and (counted := _counted(self._sums)) != self._span.rows:
            raise ValueError(f"{self._subject.ticks_key}: its bars saw {counted} rows of {self._span.rows}")
        derived = {key: tables[timeframe] for timeframe, key in self._subject.derived.items()}
        return Ticks(self._subject, self._path, self._span, metadata, derived)


class Conversion:
    """The conversion of one file, which may begin anew with each attempt to fetch it.

    Use as a context: `fetch(file, conversion.consume)`, then `finish` with the MD5 of what was fetched.
    """

    def __init__(self, subject: Subject, path: Path) -> None:
        self._subject, self._path = subject, path
        self._file: TickFile | None = None
        self._oddities = Oddities(subject.task.day)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def consume(self, chunks: Iterator[bytes]) -> None:
        """Write the ticks of a gzip CSV, forgetting what an earlier attempt wrote. Exhausts `chunks`.

        Raises IntegrityError when the content is not the whole file, OSError when the disk fails.
        """
        self.__exit__()
        self._oddities = Oddities(self._subject.task.day)
        self._file = TickFile(self._subject, self._path)
        for group in row_groups(chunks, self._subject):
            self._oddities.add(group)
            self._file.write(group)
        self._oddities.check()

    def finish(self, source_md5: str, source_bytes: int) -> Ticks:
        """Close the file with its facts in the footer; return it with its candles."""
        if self._file is None:
            raise ValueError("nothing was consumed")
        ticks = self._file.finish(source_md5, source_bytes)
        return replace(ticks, oddities=self._oddities.facts())


def nothing(subject: Subject, path: Path, outcome: Outcome, proof: Mapping[str, object]) -> Ticks:
    """Write a zero-row file that says why there are no ticks, with the source's answer as proof."""
    schema = subject.columns.ticks
    metadata = _metadata(subject, outcome, Digest(schema).hexdigest(), Span(), "")
    metadata["proof"] = json.dumps(proof, sort_keys=True, default=str)[:1024]
    with pq.ParquetWriter(path, schema, **writer_options(schema)) as writer:
        writer.add_key_value_metadata(_footer(subject, metadata, [subject.origin]))
    empty = {key: _derived_schema(subject).empty_table() for key in subject.derived.values()}
    return Ticks(subject, path, Span(), metadata, empty)


def candle_object(ticks: Ticks, *, key: str) -> tuple[bytes, dict[str, str]]:
    """Return the Parquet bytes and the metadata of the unsealed candles under `key`, made from these ticks alone."""
    table, subject = ticks.candles[key], ticks.subject
    digest = Digest(table.schema)
    digest.update(table)
    inputs = [{"data_type": subject.data_type, "day": str(subject.task.day), "digest": ticks.metadata["digest"]}]
    metadata = {
        **_metadata(
            subject,
            Outcome(ticks.metadata["outcome"]),
            digest.hexdigest(),
            Span(rows=table.num_rows),
            ticks.metadata["source_md5"],
        ),
        "inputs": sha256(canonical(inputs)),
        # Option features go by the clock that day files are cut by: no other file has anything to add.
        "sealed": "true" if subject.data_type == OPTIONS_CHAIN else "false",
    }
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, **writer_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata({**_footer(subject, metadata, inputs), "object": key})
    return sink.getvalue(), metadata


def row_groups(chunks: Iterator[bytes], subject: Subject) -> Iterator[pa.Table]:
    """Yield the rows of a gzip CSV in tables of exactly TICK_ROW_GROUP rows, the last one shorter."""
    held: list[pa.RecordBatch] = []
    rows = 0
    source, data_type = subject.source, DATA_TYPES[subject.data_type]
    for batch in csv.read(chunks, data_type, exchange=source.exchange, symbol=source.symbol, day=subject.task.day):
        rest = batch
        while rows + rest.num_rows >= TICK_ROW_GROUP:
            cut = TICK_ROW_GROUP - rows
            yield pa.Table.from_batches([*held, rest.slice(0, cut)])
            held, rows, rest = [], 0, rest.slice(cut)
        if rest.num_rows:
            held.append(rest)
            rows += rest.num_rows
    if held:
        yield pa.Table.from_batches(held)


_Sums = TradeCandles | BookCandles | OptionFeatures


def _accumulator(subject: Subject) -> _Sums | None:
    if not subject.derived:
        return None
    depth = book_depth(subject.data_type)
    if depth is not None:
        return BookCandles(subject.bars, depth)
    return OptionFeatures(subject.bars) if subject.data_type == OPTIONS_CHAIN else TradeCandles(subject.bars)


def _tables(sums: _Sums | None, path: Path) -> dict[str, pa.Table]:
    if isinstance(sums, TradeCandles):
        return sums.finish(lambda: _times(path))
    return sums.finish() if sums is not None else {}


def _counted(sums: _Sums) -> int:
    return sums.rows_before + sums.rows_in + sums.rows_after


def _times(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    columns = ["timestamp", "local_timestamp"]
    # Reading ahead would hold both columns of all row groups.
    with pq.ParquetFile(path, pre_buffer=False) as parquet:
        for batch in parquet.iter_batches(_MEDIAN_BATCH_ROWS, columns=columns, use_threads=False):
            exchange, local = (batch.column(name).cast(pa.int64()).to_numpy() for name in columns)
            yield exchange, local


def _derived_schema(subject: Subject) -> pa.Schema:
    depth = book_depth(subject.data_type)
    if depth is not None:
        return book_candles_schema(depth)
    return OPTION_FEATURES if subject.data_type == OPTIONS_CHAIN else CANDLES_SCHEMA


def _metadata(subject: Subject, outcome: Outcome, digest: str, span: Span, source_md5: str) -> dict[str, str]:
    return {
        "outcome": str(outcome),
        "rows": str(span.rows),
        "min_ts": "" if span.min_ts is None else str(span.min_ts),
        "max_ts": "" if span.max_ts is None else str(span.max_ts),
        "source_md5": source_md5,
        "inputs": sha256(canonical([subject.origin])),
        "digest": digest,
        "schema": str(SCHEMA_VERSION),
    }


def _footer(subject: Subject, metadata: Mapping[str, str], inputs: object) -> dict[str, str]:
    """Return the file's own key-value metadata: the object's facts, what the file is of, and the inputs in full.

    `object` is the key of the ticks, so that a file in another's place is found.
    """
    own = {
        "day": str(subject.task.day),
        "data_type": subject.data_type,
        "venue": subject.venue,
        "key": subject.key,
        "object": subject.ticks_key,
    }
    return {**metadata, **own, "inputs": canonical(inputs).decode()}
