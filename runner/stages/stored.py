"""Stored ticks read over ranged gets: only row groups that touch a day, only the columns that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import IntegrityError
from runner.market.bars import DAY_US, Floats, Ints
from runner.store import ObjectInfo, Store, open_object

_BATCH_ROWS = 65_536
_TIME = "timestamp"
_EARLIEST_US, _LATEST_US = np.iinfo(np.int64).min, np.iinfo(np.int64).max


class Sums(Protocol):
    """What takes ticks, file after file in the order of their days."""

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next rows."""

    def skip(self, rows: int) -> None:
        """Pass over the next rows."""

    def next_file(self) -> None:
        """End the file."""


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: its number, rows, and the span [low, high] of their exchange times in µs."""

    number: int
    rows: int
    low_us: int
    high_us: int


class StoredTicks:
    """One tick file of the store, read for the day that starts at `start_us`. Use as a context.

    Raises IntegrityError when it is no Parquet file of these columns, PreconditionError or NotFoundError once the
    object is another one.
    """

    def __init__(self, store: Store, info: ObjectInfo, start_us: int) -> None:
        self._info, self._start_us = info, start_us
        self._also: set[int] = set()
        self._file = open_object(store, info)
        try:
            self._parquet = pq.ParquetFile(self._file, pre_buffer=False)
        except (pa.ArrowException, OSError) as e:
            self._file.close()
            raise self._damaged(e) from e
        self.groups = tuple(self._groups())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End reading."""
        self._parquet.close()
        self._file.close()

    def wants(self, group: Group) -> bool:
        """Tell whether any row may lie on the day, or the row group was asked for besides."""
        return group.number in self._also or (self.starts_before_end(group) and group.high_us >= self._start_us)

    def starts_before_end(self, group: Group) -> bool:
        """Tell whether any row may lie before the end of the day."""
        return group.low_us < self._start_us + DAY_US

    def ask_for_last(self, column: str, resolution_us: int) -> None:
        """Want the row groups too that tell the last value of a column before the day.

        Looked for from the file's end. Rows come nearly in time order: of values in one step of `resolution_us` the
        last to arrive is told.
        """
        newest_us = _EARLIEST_US
        for group in reversed(self.groups):
            if group.low_us >= self._start_us or group.high_us < newest_us:
                continue
            for batch in self.read(group, (_TIME, column)):
                at: Ints = batch.column(_TIME).view(pa.int64()).to_numpy()
                values: Floats = batch.column(column).to_numpy(zero_copy_only=False)
                known = at[(at < self._start_us) & ~np.isnan(values)]
                if len(known):
                    self._also.add(group.number)
                    newest_us = max(newest_us, int(known.max()) // resolution_us * resolution_us)

    def read(self, group: Group, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a row group, in their order."""
        try:
            yield from self._parquet.iter_batches(_BATCH_ROWS, [group.number], columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as e:
            raise self._damaged(e) from e

    def _groups(self) -> Iterator[Group]:
        found = self._parquet.metadata
        names = self._parquet.schema_arrow.names
        if _TIME not in names:
            raise self._damaged(ValueError("it has no column timestamp"))
        column = names.index(_TIME)
        for number in range(found.num_row_groups):
            group = found.row_group(number)
            statistics = group.column(column).statistics
            if statistics is None or not statistics.has_min_max:
                yield Group(number, group.num_rows, _EARLIEST_US, _LATEST_US)
            else:
                yield Group(number, group.num_rows, statistics.min_raw, statistics.max_raw)

    def _damaged(self, error: Exception) -> IntegrityError:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        return IntegrityError(
            f"{self._info.key} cannot be read: {why}; replace it: runner submit download --select all for that day"
        )


@dataclass(slots=True)
class Passed:
    """Rows of all files, and those of row groups that were passed over because they lie before or after the day."""

    before: int = 0
    after: int = 0
    total: int = 0


def feed(sums: Sums, files: Iterable[StoredTicks], columns: Sequence[str]) -> Passed:
    """Give `sums` the ticks of these files, without the row groups that do not touch the day."""
    passed = Passed()
    for file in files:
        for group in file.groups:
            passed.total += group.rows
            if file.wants(group):
                for batch in file.read(group, columns):
                    sums.add(batch)
                continue
            sums.skip(group.rows)
            if file.starts_before_end(group):
                passed.before += group.rows
            else:
                passed.after += group.rows
        sums.next_file()
    return passed


def times(files: Sequence[StoredTicks]) -> Iterator[tuple[Ints, Ints]]:
    """Yield (timestamp, local_timestamp) of all row groups that touch the day, file after file."""
    columns = (_TIME, "local_timestamp")
    for file in files:
        for group in filter(file.wants, file.groups):
            for batch in file.read(group, columns):
                exchange, local = (batch.column(name).view(pa.int64()).to_numpy() for name in columns)
                yield exchange, local
