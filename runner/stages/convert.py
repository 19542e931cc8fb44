"""One tick file on its way through: gzip chunks → Arrow batches → ticks.parquet, its digest, and candles, in one pass.

Memory is constant in the size of the file. Nothing here knows the store: the result is a local file and small tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runner.market.book import BookCandles
from runner.market.candles import TradeCandles
from runner.market.names import OPTIONS_CHAIN
from runner.market.options import OptionFeatures
from runner.market.schema import CANDLES as CANDLES_SCHEMA
from runner.market.schema import (
    DATA_TYPES,
    OPTION_FEATURES,
    TICK_ROW_GROUP,
    Digest,
    book_candles_schema,
    book_depth,
    writer_options,
)
from runner.stages.oddities import Oddities
from runner.stages.subject import Span, Subject, facts_of, footer_of
from runner.tardis import csv
from runner.task import Outcome

_MEDIAN_BATCH_ROWS = TICK_ROW_GROUP


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
        inputs = [self._subject.origin]
        own = {"outcome": str(outcome), "source_md5": source_md5, "source_bytes": str(source_bytes)}
        metadata = facts_of(self._digest, self._span, inputs, own)
        self._writer.add_key_value_metadata(footer_of(self._subject, metadata, inputs))
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
    inputs = [subject.origin]
    own = {"outcome": str(outcome), "proof": json.dumps(proof, sort_keys=True, default=str)[:1024]}
    metadata = facts_of(Digest(schema), Span(), inputs, own)
    with pq.ParquetWriter(path, schema, **writer_options(schema)) as writer:
        writer.add_key_value_metadata(footer_of(subject, metadata, inputs))
    empty = {key: _derived_schema(subject).empty_table() for key in subject.derived.values()}
    return Ticks(subject, path, Span(), metadata, empty)


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
