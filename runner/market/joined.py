"""What other data types say of a day's candles: funding, index, mark and open interest, and liquidations.

A type that is not used gives null; the sums of one that is used and has no rows are 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.market.bars import BASE_US, BUCKETS, NEVER_US, Bars, Floats, Ints, equals, integers, numbers
from runner.market.names import TIMEFRAMES
from runner.market.slices import Run, Sliced, Slices

TICKER_COLUMNS = ("funding_rate", "predicted_funding_rate", "index_price", "mark_price", "open_interest")
_INTEREST = "open_interest"
_BASE_S = min(TIMEFRAMES.values())


@dataclass(frozen=True, slots=True)
class JoinedBars:
    """The joined columns of one timeframe, and the largest local_timestamp of the rows behind them, by bar."""

    last_local_us: Ints
    columns: Mapping[str, pa.Array]


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest value of each bar: the row's number in arrival order (-1: none), the value, its local_timestamp."""

    row: Ints
    value: Floats
    local: Ints

    @classmethod
    def none(cls) -> _Newest:
        return cls(np.full(BUCKETS, -1), np.full(BUCKETS, np.nan), np.full(BUCKETS, NEVER_US))

    def put(self, bars: Ints, rows: Ints, values: Floats, locals_us: Ints) -> None:
        """Take rows in arrival order; of several in one bar the last stays."""
        at, newest = np.unique(bars[::-1], return_index=True)
        chosen = len(bars) - 1 - newest
        self.row[at], self.value[at], self.local[at] = rows[chosen], values[chosen], locals_us[chosen]

    def rolled_up(self, factor: int) -> _Newest:
        row = self.row.reshape(-1, factor)
        chosen = row.argmax(axis=1) + np.arange(len(row)) * factor
        return _Newest(self.row[chosen], self.value[chosen], self.local[chosen])


class Tickers:
    """Folds derivative tickers into what each bar knows last; `add` batches in file order.

    A bar's value is the last in arrival order that is not null, at every timeframe. `oi_change` is the bar's open
    interest less that of the newest 15-second bar before the bar's start that has any, on the day or the day before;
    null without one. Rows after the day, or older than the day before, count for nothing but the counts.

    >>> from datetime import date
    >>> at = pa.array([-1, 5, 6], pa.timestamp("us", tz="UTC"))
    >>> some = {name: pa.array([None, None, None], pa.float64()) for name in TICKER_COLUMNS}
    >>> rows = {"timestamp": at, "local_timestamp": at, **some, "open_interest": pa.array([7.0, 9.0, None])}
    >>> tickers = Tickers(Bars(date(1970, 1, 1), "X", "X:PERPETUAL:A-B", False, "base", None, None, None))
    >>> tickers.add(pa.record_batch(rows))
    >>> change, interest = tickers.change("24h"), tickers.newest("open_interest", "24h")
    >>> interest.value.tolist(), change.value.tolist(), tickers.rows_before
    ([9.0], [2.0], 1)
    """

    def __init__(self, bars: Bars) -> None:
        self.rows_before = 0
        self.rows_in = 0
        self.rows_after = 0
        self._start_us = bars.start_us
        self._what = f"derivative tickers of {bars.key} on {bars.day}"
        self._newest = {name: _Newest.none() for name in TICKER_COLUMNS}
        self._before: tuple[int, float, int] = (-BUCKETS - 1, np.nan, NEVER_US)  # bar, value, local_timestamp
        self._rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Fold in the next rows: columns timestamp, local_timestamp and TICKER_COLUMNS."""
        local = integers(batch, "local_timestamp", self._what)
        bar = (integers(batch, "timestamp", self._what) - self._start_us) // BASE_US
        inside = (bar >= 0) & (bar < BUCKETS)
        self.rows_in += int(inside.sum())
        self.rows_before += int((bar < 0).sum())
        self.rows_after += int((bar >= BUCKETS).sum())
        for name, newest in self._newest.items():
            values = batch.column(name).to_numpy(zero_copy_only=False)
            rows = np.flatnonzero(inside & ~np.isnan(values))
            if len(rows):
                newest.put(bar[rows], rows + self._rows, values[rows], local[rows])
        interest = batch.column(_INTEREST).to_numpy(zero_copy_only=False)
        earlier = np.flatnonzero((bar < 0) & (bar >= -BUCKETS) & ~np.isnan(interest))
        if len(earlier) and (last_bar := int(bar[earlier].max())) >= self._before[0]:
            row = earlier[bar[earlier] == last_bar][-1]
            self._before = last_bar, float(interest[row]), int(local[row])
        self._rows += batch.num_rows

    def skip(self, rows: int) -> None:
        """Pass over the next rows of the file, none of which is of interest."""

    def next_file(self) -> None:
        """End the file: the rows that follow are of the next one."""

    def newest(self, name: str, timeframe: str) -> _Newest:
        """Return the last value of each bar that is not null."""
        return self._newest[name].rolled_up(TIMEFRAMES[timeframe] // _BASE_S)

    def change(self, timeframe: str) -> _Newest:
        """Return the change of open interest of each bar, NaN where unknown, and the newest row behind each."""
        factor = TIMEFRAMES[timeframe] // _BASE_S
        here, base = self.newest(_INTEREST, timeframe), self._newest[_INTEREST]
        _, value, local = self._before
        values, locals_us = np.append(value, base.value), np.append(local, base.local)
        # Slot 0 is all that was before the day; `held` is the newest slot up to each that has a value.
        slots = np.where(np.isnan(values), 0, np.arange(len(values)))
        held = np.maximum.accumulate(slots)[:-1:factor]
        change = here.value - values[held]
        known = np.where(np.isnan(change), NEVER_US, np.maximum(here.local, locals_us[held]))
        return _Newest(here.row, change, known)


_SUMS = ("buy", "sell", "amount")


class Liquidations(Sliced):
    """Folds liquidations into sums by side; `add` batches in file order, `next_file` between files.

    A row counts in `liquidation_count` whatever its side; its amount counts as 0 where it has none.

    >>> from datetime import date
    >>> at = pa.array([5], pa.timestamp("us", tz="UTC"))
    >>> found = Liquidations(Bars(date(1970, 1, 1), "X", "X:PERPETUAL:A-B", False, "base", None, None, None))
    >>> found.add(pa.record_batch({"timestamp": at, "local_timestamp": at, "side": ["buy"], "amount": [2.0]}))
    >>> bars = Joined(None, found).bars("24h")
    >>> bars.columns["liquidation_buy_volume"].to_pylist(), bars.columns["liquidation_count"].to_pylist()
    ([2.0], [1])
    """

    def __init__(self, bars: Bars) -> None:
        self._what = f"liquidations of {bars.key} on {bars.day}"
        self._slices = Slices(bars.start_us, (np.int64, np.int64, np.float64, np.bool_, np.bool_), self._fold)
        self._sums = {name: np.zeros(BUCKETS) for name in _SUMS}
        self._rows = np.zeros(BUCKETS, np.int64)
        self._local = np.full(BUCKETS, NEVER_US)

    def add(self, batch: pa.RecordBatch) -> None:
        """Fold in the next rows of the file: columns timestamp, local_timestamp, side, amount."""
        side, amount = batch.column("side"), batch.column("amount").to_numpy(zero_copy_only=False)
        self._slices.add(
            (
                integers(batch, "timestamp", self._what),
                integers(batch, "local_timestamp", self._what),
                np.nan_to_num(amount, nan=0.0),
                equals(side, "buy"),
                equals(side, "sell"),
            )
        )

    def _fold(self, run: Run) -> None:
        _, local, amount, buy, sell = run.columns
        for name, values in zip(_SUMS, (amount * buy, amount * sell, amount), strict=True):
            self._sums[name][run.bars] += np.add.reduceat(values, run.starts)
        self._rows[run.bars] += np.diff(np.append(run.starts, len(run.order)))
        self._local[run.bars] = np.maximum(self._local[run.bars], np.maximum.reduceat(local, run.starts))

    def sums(self, factor: int) -> tuple[dict[str, Floats], Ints, Ints]:
        """Return sums, counts and the largest local_timestamp of bars of so many base bars."""
        self._slices.flush()
        sums = {name: values.reshape(-1, factor).sum(axis=1) for name, values in self._sums.items()}
        return sums, self._rows.reshape(-1, factor).sum(axis=1), self._local.reshape(-1, factor).max(axis=1)


@dataclass(frozen=True, slots=True)
class Joined:
    """The joined types of a day's candles; None is a type that is not used.

    `liquidation_with_rising_oi` and `_falling_oi` are sums over 15-second bars, at every timeframe; they need both.
    """

    tickers: Tickers | None
    liquidations: Liquidations | None

    def bars(self, timeframe: str) -> JoinedBars:
        """Return the joined columns of a timeframe, and when the rows that each bar uses had all arrived."""
        factor = TIMEFRAMES[timeframe] // _BASE_S
        last_local, columns = np.full(BUCKETS // factor, NEVER_US), {}
        if self.tickers is not None:
            for name in TICKER_COLUMNS:
                newest = self.tickers.newest(name, timeframe)
                columns[name] = numbers(newest.value)
                last_local = np.maximum(last_local, newest.local)
            change = self.tickers.change(timeframe)
            columns["oi_change"] = numbers(change.value)
            last_local = np.maximum(last_local, change.local)
        if self.liquidations is not None:
            sums, rows, local = self.liquidations.sums(factor)
            columns |= {f"liquidation_{side}_volume": numbers(sums[side]) for side in ("buy", "sell")}
            columns["liquidation_count"] = pa.array(rows)
            last_local = np.maximum(last_local, local)
        if self.tickers is not None and self.liquidations is not None:
            directed, local = _by_direction(self.tickers, self.liquidations, factor)
            columns |= directed
            last_local = np.maximum(last_local, local)
        return JoinedBars(last_local, columns)


def _by_direction(tickers: Tickers, liquidations: Liquidations, factor: int) -> tuple[dict[str, pa.Array], Ints]:
    """Return liquidation volume by the direction of open interest, and the newest ticker row that decided it."""
    sums, rows, _ = liquidations.sums(1)
    change = tickers.change(next(iter(TIMEFRAMES)))
    decided = {"rising": change.value > 0, "falling": change.value < 0}
    columns = {
        f"liquidation_with_{name}_oi": numbers((sums["amount"] * chosen).reshape(-1, factor).sum(axis=1))
        for name, chosen in decided.items()
    }
    local = np.where(rows > 0, change.local, NEVER_US)
    return columns, local.reshape(-1, factor).max(axis=1)
