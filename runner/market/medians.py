"""Exact medians of delays for every bar of a day, in memory that does not grow with the rows.

The number of rows, the least and the greatest delay of each base bar are known from the first pass over the ticks.
A bar of at most `CHUNK_ROWS` rows is gathered whole, as soon as all its rows have come by: rows are nearly in time
order, so few bars are open at once; if they are not, some bars wait for a further pass. A larger bar is solved by
selection: count delays in 16,384 classes, keep the class that holds the middle, count again within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from runner.market.bars import BASE_US, BUCKETS, Floats, Ints
from runner.market.names import TIMEFRAMES

Times = Callable[[], Iterator[tuple[Ints, Ints]]]
"""Reads (timestamp, local_timestamp) in UTC µs again, in file order, from the start at every call."""

CHUNK_ROWS = 1_000_000
_STEP_ROWS = 65_536
_CLASS_BITS = 14
_SELECTIONS_AT_ONCE = 64
_KEY_BITS = 62

_NAMES = tuple(TIMEFRAMES)
_SIZES = tuple(seconds * 1_000_000 // BASE_US for seconds in TIMEFRAMES.values())


@dataclass(frozen=True, slots=True)
class Delays:
    """What the first pass learnt, per base bar of the day that starts at `start_us`: rows, least, greatest delay in µs.

    Least and greatest mean nothing where there are no rows.
    """

    start_us: int
    rows: Ints
    least: Ints
    greatest: Ints


def medians(delays: Delays, times: Times, *, chunk_rows: int = CHUNK_ROWS) -> dict[str, Floats]:
    """Return the median delay in µs of every bar at every timeframe, NaN where a bar has no rows.

    With an even number of rows: the mean of the two in the middle. Rows of other days are passed over.
    Raises ValueError when `times` does not bring the rows that were counted.

    >>> rows = np.zeros(BUCKETS, np.int64)
    >>> rows[0] = 2
    >>> ones = np.ones(BUCKETS, np.int64)
    >>> found = medians(Delays(0, rows, ones, 4 * ones), lambda: iter([(np.array([0, 5]), np.array([1, 9]))]))
    >>> float(found["15s"][0]), float(found["24h"][0]), bool(np.isnan(found["1h"][1]))
    (2.5, 2.5, True)
    """
    solver = _Solver(delays, chunk_rows)
    while solver.pending:
        seen = np.zeros(BUCKETS, np.int64)
        for bucket, delay in _steps(delays.start_us, times):
            seen += np.bincount(bucket, minlength=BUCKETS)
            solver.feed(bucket, delay)
        if (seen != delays.rows).any():
            raise ValueError(f"medians: other rows were read back ({seen.sum()}) than were added ({delays.rows.sum()})")
        solver.end_pass()
    return dict(zip(_NAMES, solver.found, strict=True))


def _steps(start_us: int, times: Times) -> Iterator[tuple[Ints, Ints]]:
    for timestamp, local in times():
        for at in range(0, len(timestamp), _STEP_ROWS):
            exchange = timestamp[at : at + _STEP_ROWS]
            bucket = (exchange - start_us) // BASE_US
            delay = local[at : at + _STEP_ROWS] - exchange
            inside = (bucket >= 0) & (bucket < BUCKETS)
            if not inside.all():
                bucket, delay = bucket[inside], delay[inside]
            if len(bucket):
                yield bucket, delay


@dataclass(slots=True)
class _Chunk:
    """A bar, [first, last) in base bars, gathered whole; it solves the finer bars within it as well."""

    level: int
    first: int
    last: int
    rows: int
    got: int = 0
    buckets: list[Ints] = field(default_factory=list)
    delays: list[Ints] = field(default_factory=list)

    def drop(self) -> None:
        self.got = 0
        self.buckets, self.delays = [], []


@dataclass(slots=True)
class _Selection:
    """A search for the rows of these ranks among a bar's delays in [low, low + 2**(_CLASS_BITS + shift))."""

    level: int
    first: int
    last: int
    ranks: tuple[int, ...]
    low: int
    shift: int
    counts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def feed(self, bucket: Ints, delay: Ints) -> None:
        if not len(self.counts):  # not before its turn: many may be waiting
            self.counts = np.zeros(1 << _CLASS_BITS, np.int64)
        above = delay - self.low
        mine = (bucket >= self.first) & (bucket < self.last) & (above >= 0)
        classes = above[mine] >> self.shift
        classes = classes[classes < len(self.counts)]
        self.counts += np.bincount(classes, minlength=len(self.counts))

    def narrow(self) -> list[_Selection]:
        """Return the searches that follow, none when each class is a single value."""
        ends = self.counts.cumsum()
        ranks: dict[int, list[int]] = {}
        for rank in self.ranks:
            at = int(np.searchsorted(ends, rank, side="right"))
            ranks.setdefault(at, []).append(rank - int(ends[at] - self.counts[at]))
        shift = max(0, self.shift - _CLASS_BITS)
        return [
            _Selection(self.level, self.first, self.last, tuple(inner), self.low + (at << self.shift), shift)
            for at, inner in ranks.items()
        ]


class _Solver:
    """Bars still to solve, and the medians found so far, per level (position in `TIMEFRAMES`)."""

    def __init__(self, delays: Delays, chunk_rows: int) -> None:
        self.found = [np.full(BUCKETS // size, np.nan) for size in _SIZES]
        self._rows = delays.rows
        self._ends = np.concatenate([[0], delays.rows.cumsum()])
        self._room = 2 * chunk_rows
        self._chunks: dict[int, _Chunk] = {}
        self._selections: list[_Selection] = []
        self._put_off: set[int] = set()
        for bar in range(len(self.found[-1])):
            self._plan(delays, len(_SIZES) - 1, bar, chunk_rows)
        self._chunk_of = np.full(BUCKETS, -1, np.int64)
        for name, chunk in self._chunks.items():
            self._chunk_of[chunk.first : chunk.last] = name

    @property
    def pending(self) -> bool:
        return bool(self._chunks or self._selections)

    def _plan(self, delays: Delays, level: int, bar: int, chunk_rows: int) -> None:
        first, last = bar * _SIZES[level], (bar + 1) * _SIZES[level]
        rows = int(self._ends[last] - self._ends[first])
        if 0 < rows <= chunk_rows:
            self._chunks[first] = _Chunk(level, first, last, rows)
        elif rows:
            within = slice(first, last)
            low = int(delays.least[within][self._rows[within] > 0].min())
            high = int(delays.greatest[within][self._rows[within] > 0].max())
            shift = max(0, (high - low).bit_length() - _CLASS_BITS)
            middle = ((rows - 1) // 2, rows // 2)
            self._selections.append(_Selection(level, first, last, middle, low, shift))
            self.found[level][bar] = 0.0  # the two middle values are added to it as they are found
            if level:
                finer = _SIZES[level - 1]
                for child in range(first // finer, last // finer):
                    self._plan(delays, level - 1, child, chunk_rows)

    def feed(self, bucket: Ints, delay: Ints) -> None:
        """Take rows of the day, in file order."""
        low, high = bucket.min(), bucket.max()
        for selection in self._selections[:_SELECTIONS_AT_ONCE]:
            if low < selection.last and high >= selection.first:
                selection.feed(bucket, delay)
        owner = self._chunk_of[bucket]
        for name in np.unique(owner).tolist() if owner.min() != owner.max() else [int(owner[0])]:
            if name in self._chunks and name not in self._put_off:
                mine = owner == name
                self._gather(self._chunks[name], bucket[mine], delay[mine])

    def _gather(self, chunk: _Chunk, bucket: Ints, delay: Ints) -> None:
        chunk.buckets.append(bucket.astype(np.int16))
        chunk.delays.append(delay)
        chunk.got += len(delay)
        if chunk.got == chunk.rows:
            self._solve(chunk)
            del self._chunks[chunk.first]
            return
        while sum(c.got for c in self._chunks.values()) > self._room:
            # The first chunk always stays, so every pass solves one at least.
            last = max(name for name, c in self._chunks.items() if c.got)
            self._chunks[last].drop()
            self._put_off.add(last)

    def _solve(self, chunk: _Chunk) -> None:
        bucket, delay = np.concatenate(chunk.buckets).astype(np.int64), np.concatenate(chunk.delays)
        chunk.drop()
        for level in range(chunk.level + 1):
            size = _SIZES[level]
            bars = slice(chunk.first // size, chunk.last // size)
            rows = self._rows[chunk.first : chunk.last].reshape(-1, size).sum(axis=1)
            has = rows > 0
            starts = (rows.cumsum() - rows)[has]
            ordered = _sorted_by_bar(bucket // size - bars.start, delay)
            middle = ordered[starts + (rows[has] - 1) // 2] + ordered[starts + rows[has] // 2]
            self.found[level][bars][has] = middle / 2

    def end_pass(self) -> None:
        """Prepare the next pass: narrow the selections, take up what was put off."""
        self._put_off.clear()
        following = self._selections[_SELECTIONS_AT_ONCE:]
        for selection in self._selections[:_SELECTIONS_AT_ONCE]:
            narrowed = selection.narrow()
            if selection.shift:
                following += narrowed
                continue
            at = selection.first // _SIZES[selection.level]
            self.found[selection.level][at] += sum(one.low * len(one.ranks) for one in narrowed) / 2
        self._selections = following


def _sorted_by_bar(bar: Ints, delay: Ints) -> Ints:
    """Return delays ordered by bar, then by themselves."""
    low = int(delay.min())
    bits = (int(delay.max()) - low).bit_length()
    if bits + int(bar.max()).bit_length() > _KEY_BITS:  # absurd delays: bar and delay do not fit one integer
        result: Ints = delay[np.lexsort((delay, bar))]
        return result
    keys = (bar << bits) | (delay - low)
    keys.sort()
    return (keys & ((1 << bits) - 1)) + low
