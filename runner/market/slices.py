"""Rows of one data type cut into slices and sorted into bars, so that sums do not depend on how the rows were read.

A slice is 65,536 consecutive rows of a file, counted from its row 0. Sums are taken within a slice and added up slice
after slice, whatever batches and row groups the rows come in, and whether rows of other days come or are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from runner.market.bars import BASE_US, BUCKETS, Flags, Floats, Ints

SLICE_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Run:
    """The rows of one slice that lie on the day: bar after bar, in arrival order within each.

    `bars` are the base bars that have any, `starts` where the rows of each begin, `order` the rows' numbers in arrival
    order over all files, `columns` their values.
    """

    bars: Ints
    starts: Ints
    order: Ints
    columns: tuple[np.ndarray, ...]


class Slices:
    """Cuts rows into slices and hands `fold` what of each lies on the day that starts at `start_us`.

    The first column is the exchange time, UTC µs; `kinds` are the types of all. Rows of other days are only counted.

    >>> runs = []
    >>> slices = Slices(0, (np.int64, np.float64), runs.append)
    >>> slices.add((np.array([20_000_000, 1, -1]), np.array([3.0, 4.0, 5.0])))
    >>> slices.flush()
    >>> runs[0].bars.tolist(), runs[0].columns[1].tolist(), slices.rows_before, slices.rows_in
    ([0, 1], [4.0, 3.0], 1, 2)
    """

    def __init__(self, start_us: int, kinds: Sequence[type[np.generic]], fold: Callable[[Run], None]) -> None:
        self.rows_before = 0
        self.rows_in = 0
        self.rows_after = 0
        self._start_us = start_us
        self._fold = fold
        self._room = tuple(np.empty(SLICE_ROWS, kind) for kind in kinds)
        self._filled = 0
        self._left = SLICE_ROWS
        self._rows = 0

    def add(self, columns: Sequence[Ints | Floats | Flags]) -> None:
        """Take the next rows of the file."""
        at, rows = 0, len(columns[0])
        while at < rows:
            step = min(self._left, rows - at)
            for room, values in zip(self._room, columns, strict=True):
                room[self._filled : self._filled + step] = values[at : at + step]
            at += step
            self._filled += step
            self.skip(step)

    def skip(self, rows: int) -> None:
        """Pass over the next rows of the file, none of which lies on the day."""
        if rows < self._left:
            self._left -= rows
            return
        self.flush()
        self._left = SLICE_ROWS - (rows - self._left) % SLICE_ROWS

    def next_file(self) -> None:
        """End the file: the rows that follow are of the next one."""
        self.flush()
        self._left = SLICE_ROWS

    def flush(self) -> None:
        """Hand over what there is of the slice. After the last row of a file only."""
        columns = [room[: self._filled] for room in self._room]
        order = np.arange(self._rows, self._rows + self._filled)
        self._rows, self._filled = self._rows + self._filled, 0
        bucket = (columns[0] - self._start_us) // BASE_US
        inside = (bucket >= 0) & (bucket < BUCKETS)
        if not inside.all():
            self.rows_before += int((bucket < 0).sum())
            self.rows_after += int((bucket >= BUCKETS).sum())
            columns, order, bucket = [values[inside] for values in columns], order[inside], bucket[inside]
        if not len(bucket):
            return
        self.rows_in += len(bucket)
        if (bucket[1:] < bucket[:-1]).any():
            by_bar = bucket.argsort(kind="stable")
            columns, order, bucket = [values[by_bar] for values in columns], order[by_bar], bucket[by_bar]
        starts = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1]))
        self._fold(Run(bucket[starts], starts, order, tuple(columns)))


class Sliced:
    """What every accumulator of slices tells of its rows, and is told of the files they come in."""

    _slices: Slices

    @property
    def rows_before(self) -> int:
        """Return how many rows lie before the day; like its neighbours, complete after `next_file`."""
        return self._slices.rows_before

    @property
    def rows_in(self) -> int:
        """Return how many rows lie on the day."""
        return self._slices.rows_in

    @property
    def rows_after(self) -> int:
        """Return how many rows lie after the day."""
        return self._slices.rows_after

    def skip(self, rows: int) -> None:
        """Pass over the next rows of the file, none of which lies on the day."""
        self._slices.skip(rows)

    def next_file(self) -> None:
        """End the file: the rows that follow are of the next one."""
        self._slices.next_file()
