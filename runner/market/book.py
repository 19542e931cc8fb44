"""Candles of the order book: the first snapshot of each bar and what follows from it.

A bar's snapshot is the first in arrival order whose exchange time is in the bar, at every timeframe; where there is
none, everything is null: nothing is carried forward. Crossed books are kept and flagged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.market.bars import (
    BASE_US,
    BUCKETS,
    NEVER_US,
    Bars,
    Flags,
    Floats,
    Ints,
    integers,
    numbers,
    ratio,
    table,
    times,
)
from runner.market.names import TIMEFRAMES
from runner.market.schema import book_candles_schema

__all__ = ["Bars", "BookCandles"]

_BPS = 1e4
_NO_ROW = np.iinfo(np.int64).max


class BookCandles:
    """Folds book snapshots into book candles; `add` batches in file order, file after file, then `finish`.

    The first snapshot in arrival order is that over all files: the day before, the day, the day after.

    `depth` is the number of levels a side, as in the data type's name. Rolling up takes the snapshot that arrived
    first among those of the finer bars: the first one there is, unless rows are out of order across finer bars.
    A level is filled when it has a price and a volume; totals and vwaps are of those that have a volume, or both.
    mid_price and all that is relative to it need both best prices; `crossed` is bid_price_1 > ask_price_1 (equal is
    locked, not crossed). A side without levels has total 0 and no vwap. A zero divisor gives null.

    >>> from datetime import date
    >>> at = pa.array([1723075200000000], pa.timestamp("us", tz="UTC"))
    >>> book = {"timestamp": at, "local_timestamp": at, "ask_price_1": [11.0], "ask_volume_1": [1.0]}
    >>> candles = BookCandles(Bars(date(2024, 8, 8), "X", "X:SPOT_PAIR:A-B", False, "base", None, None, None), 1)
    >>> candles.add(pa.record_batch(book | {"bid_price_1": [9.0], "bid_volume_1": [3.0]}))
    >>> bar = candles.finish()["1m"].to_pylist()[0]
    >>> bar["mid_price"], bar["spread_bps"], bar["volume_imbalance"], bar["bid_levels_filled"]
    (10.0, 2000.0, 0.5, 1)
    """

    def __init__(self, bars: Bars, depth: int) -> None:
        self.rows_before = 0
        self.rows_in = 0
        self.rows_after = 0
        self._bars = bars
        self._depth = depth
        self._what = f"book snapshots of {bars.key} on {bars.day}"
        self._rows = 0
        self._levels = {name: np.full(BUCKETS, np.nan) for name in _level_names(depth)}
        self._row = np.full(BUCKETS, _NO_ROW)
        self._timestamp = np.full(BUCKETS, NEVER_US)
        self._local = np.full(BUCKETS, NEVER_US)

    def add(self, batch: pa.RecordBatch) -> None:
        """Fold in the next rows of the file: timestamp, local_timestamp and the levels, null where absent.

        Raises IntegrityError when a time is missing.
        """
        timestamp = integers(batch, "timestamp", self._what)
        local = integers(batch, "local_timestamp", self._what)
        bucket = (timestamp - self._bars.start_us) // BASE_US
        inside = np.flatnonzero((bucket >= 0) & (bucket < BUCKETS))
        self.rows_before += int((bucket < 0).sum())
        self.rows_after += int((bucket >= BUCKETS).sum())
        self.rows_in += len(inside)
        fresh = inside[self._row[bucket[inside]] == _NO_ROW]
        at, first = np.unique(bucket[fresh], return_index=True)
        rows = fresh[first]
        self._row[at] = rows + self._rows
        self._timestamp[at], self._local[at] = timestamp[rows], local[rows]
        for name, values in self._levels.items():
            values[at] = batch.column(name).take(pa.array(rows)).to_numpy(zero_copy_only=False)
        self._rows += batch.num_rows

    def skip(self, rows: int) -> None:
        """Pass over the next rows of the file, none of which lies on the day."""

    def next_file(self) -> None:
        """End the file: the rows that follow are of the next one."""

    def finish(self) -> dict[str, pa.Table]:
        """Return the book candles of the day by timeframe, one row per bar, columns of `book_candles_schema`."""
        schema = book_candles_schema(self._depth)
        base_s = min(TIMEFRAMES.values())
        return {name: table(self._columns(name, seconds // base_s), schema) for name, seconds in TIMEFRAMES.items()}

    def _columns(self, timeframe: str, factor: int) -> dict[str, pa.Array]:
        row = self._row.reshape(-1, factor)
        chosen = row.argmin(axis=1) + np.arange(len(row)) * factor
        present = self._row[chosen] != _NO_ROW
        levels = {name: values[chosen] for name, values in self._levels.items()}
        bid, ask = (_Side.of(levels, side, self._depth) for side in ("bid", "ask"))
        features = _top(bid, ask) | _sides(bid, ask)
        leading = self._bars.columns(timeframe, self._local[chosen])
        return {
            **leading,
            "snapshot_timestamp": times(self._timestamp[chosen], present),
            **{name: numbers(values) for name, values in levels.items()},
            **{name: _where(present, values) for name, values in features.items()},
        }


def _level_names(depth: int) -> list[str]:
    kinds = ("ask_price", "ask_volume", "bid_price", "bid_volume")
    return [f"{kind}_{level}" for level in range(1, depth + 1) for kind in kinds]


def _where(present: Flags, values: Floats | Ints | pa.Array) -> pa.Array:
    """Return a column that is null where there is no snapshot."""
    if isinstance(values, pa.Array):  # a flag with nulls of its own
        return values
    if values.dtype == np.int64:
        return pa.array(values, mask=~present)
    return numbers(np.where(present, values, np.nan))


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of the chosen snapshots; arrays run over bars, lists over levels, best first."""

    name: str
    prices: list[Floats]
    volumes: list[Floats]
    total: Floats
    vwap: Floats
    filled: Ints

    @classmethod
    def of(cls, levels: dict[str, Floats], name: str, depth: int) -> _Side:
        prices = [levels[f"{name}_price_{level}"] for level in range(1, depth + 1)]
        volumes = [levels[f"{name}_volume_{level}"] for level in range(1, depth + 1)]
        filled = [~np.isnan(price) & ~np.isnan(volume) for price, volume in zip(prices, volumes, strict=True)]
        value = _total([price * volume for price, volume in zip(prices, volumes, strict=True)])
        priced = _total([np.where(full, volume, np.nan) for full, volume in zip(filled, volumes, strict=True)])
        count = np.stack(filled).sum(axis=0, dtype=np.int64)
        return cls(name, prices, volumes, _total(volumes), ratio(value, priced), count)


def _total(columns: Sequence[Floats]) -> Floats:
    """Add level by level, so that a sum's bits do not depend on how many bars there are; NaN counts as nothing."""
    total = np.zeros_like(columns[0])
    for column in columns:
        total += np.where(np.isnan(column), 0.0, column)
    return total


def _top(bid: _Side, ask: _Side) -> dict[str, Floats | pa.Array]:
    best_bid, best_ask = bid.prices[0], ask.prices[0]
    mid = (best_bid + best_ask) / 2
    features: dict[str, Floats | pa.Array] = {
        "mid_price": mid,
        "spread_abs": best_ask - best_bid,
        "spread_bps": ratio(best_ask - best_bid, mid) * _BPS,
        "bid_ask_ratio": ratio(bid.volumes[0], ask.volumes[0]),
        "crossed": pa.array(best_bid > best_ask, mask=np.isnan(mid)),
    }
    for side in (bid, ask):
        for level, price in enumerate(side.prices, start=1):
            features[f"{side.name}_distance_{level}"] = ratio(price - mid, mid) * _BPS
    return features


def _sides(bid: _Side, ask: _Side) -> dict[str, Floats | Ints]:
    features: dict[str, Floats | Ints] = {
        "volume_imbalance": ratio(bid.total - ask.total, bid.total + ask.total),
        "vwap_spread": ask.vwap - bid.vwap,
        "book_imbalance": (bid.filled - ask.filled) / len(bid.prices),
    }
    for side in (bid, ask):
        features[f"total_{side.name}_volume"] = side.total
        features[f"{side.name}_vwap"] = side.vwap
        features[f"{side.name}_levels_filled"] = side.filled
        for level, volume in enumerate(side.volumes, start=1):
            features[f"{side.name}_volume_ratio_{level}"] = ratio(volume, side.total)
    return features
