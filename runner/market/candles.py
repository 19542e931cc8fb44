"""Candles of trades at every timeframe, in one pass over the ticks of a day and memory that does not grow with rows.

Rows fall into bars by exchange time. Sums are taken over slices of exactly 65,536 rows counted from row 0, whatever
batches the rows come in, and added up in file order: the same file gives the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from runner.errors import IntegrityError
from runner.market.bars import (
    BASE_US,
    BUCKETS,
    NEVER_US,
    Bars,
    Flags,
    Floats,
    Ints,
    equals,
    integers,
    numbers,
    ratio,
    table,
)
from runner.market.medians import Delays, Times, medians
from runner.market.names import TIMEFRAMES
from runner.market.schema import CANDLES

__all__ = ["SLICE_ROWS", "Bars", "TradeCandles"]

SLICE_ROWS = 65_536

_LAST = np.iinfo(np.int64).max
_US_PER_MS = 1_000


@dataclass(slots=True)
class _Slice:
    """Up to 65,536 consecutive rows of the file."""

    timestamp: Ints
    local: Ints
    price: Floats
    amount: Floats
    buy: Flags
    sell: Flags

    @classmethod
    def room(cls) -> _Slice:
        kinds = (np.int64, np.int64, np.float64, np.float64, np.bool_, np.bool_)
        return cls(*(np.empty(SLICE_ROWS, kind) for kind in kinds))  # type: ignore[arg-type]  # one dtype per field

    @property
    def arrays(self) -> tuple[Ints | Floats | Flags, ...]:
        return (self.timestamp, self.local, self.price, self.amount, self.buy, self.sell)

    def at(self, rows: slice | Ints | Flags) -> _Slice:
        return _Slice(*(array[rows] for array in self.arrays))  # type: ignore[arg-type]  # one dtype per field


# What is kept of a bar: how two parts of it are joined, and what a bar without trades has.
# `base` is Σ amount/price, `value` Σ price·amount; open and close go with first_row and last_row.
_JOINED: dict[str, tuple[np.ufunc, float | int]] = {
    "rows": (np.add, 0),
    "amount": (np.add, 0.0),
    "value": (np.add, 0.0),
    "base": (np.add, 0.0),
    "buy": (np.add, 0.0),
    "sell": (np.add, 0.0),
    "delay": (np.add, 0.0),
    "low": (np.minimum, np.inf),
    "delay_min": (np.minimum, _LAST),
    "first_row": (np.minimum, _LAST),
    "high": (np.maximum, -np.inf),
    "delay_max": (np.maximum, NEVER_US),
    "last_row": (np.maximum, -1),
    "last_local": (np.maximum, NEVER_US),
}

_Parts = dict[str, np.ndarray]


def _reduce(rows: _Slice, order: Ints, starts: Ints) -> _Parts:
    """Return the parts of each run of rows that begins at `starts`; `order` holds the rows' numbers in the file."""
    delay = rows.local - rows.timestamp
    ends = np.append(starts[1:], len(order)) - 1
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused or null in the end
        columns = {
            "amount": rows.amount,
            "value": rows.price * rows.amount,
            "base": ratio(rows.amount, rows.price),
            "buy": rows.amount * rows.buy,
            "sell": rows.amount * rows.sell,
            "delay": delay.astype(np.float64),  # exact below 2**53, and never wraps
            "low": rows.price,
            "delay_min": delay,
            "high": rows.price,
            "delay_max": delay,
            "last_local": rows.local,
        }
        parts = {name: _JOINED[name][0].reduceat(values, starts) for name, values in columns.items()}
    parts |= {"rows": ends - starts + 1, "first_row": order[starts], "last_row": order[ends]}
    return parts | {"open": rows.price[starts], "close": rows.price[ends]}


def _roll_up(parts: _Parts, factor: int) -> _Parts:
    """Join `factor` neighbours into one; open and close are those of the row that arrived first and last."""
    shaped = {name: values.reshape(-1, factor) for name, values in parts.items()}
    wide = {name: join.reduce(shaped[name], axis=1) for name, (join, _) in _JOINED.items()}
    bars = np.arange(len(wide["rows"]))
    wide["open"] = shaped["open"][bars, shaped["first_row"].argmin(axis=1)]
    wide["close"] = shaped["close"][bars, shaped["last_row"].argmax(axis=1)]
    return wide


class TradeCandles:
    """Folds the trades of one file into candles; `add` batches in file order, then `finish`.

    Open and close are the first and last trade in arrival order, at every timeframe. Rows whose exchange time lies on
    another day are in no candle; they are counted (`rows_before`, `rows_after`), so the three counts sum to all rows.
    A side that is neither buy nor sell counts in neither volume. `vwap` is Σpa/Σa, for inverse instruments Σa/Σ(a/p);
    a zero divisor gives null, and so does a price of 0 in Σ(a/p). `price_change_pct` is null when the open is 0.
    `volume_base` and `volume_quote` go by the unit of amounts: base Σa, Σpa; quote Σ(a/p), Σa; contracts of size c
    Σa·c, Σpa·c, inverse ones Σ(a/p)·c, Σa·c, null where c is unknown.

    >>> from datetime import date
    >>> at = pa.array([1723075200000000], pa.timestamp("us", tz="UTC"))
    >>> trade = {"timestamp": at, "local_timestamp": at, "side": ["buy"], "price": [2.0], "amount": [3.0]}
    >>> candles = TradeCandles(Bars(date(2024, 8, 8), "X", "X:SPOT_PAIR:A-B", False, "base", None, None, None))
    >>> candles.add(pa.record_batch(trade))
    >>> ticks = [(np.array([1723075200000000]), np.array([1723075200000000]))]
    >>> day = candles.finish(lambda: iter(ticks))["24h"].to_pylist()[0]
    >>> day["close"], day["volume_quote"], day["delay_median"]
    (2.0, 6.0, 0.0)
    """

    def __init__(self, bars: Bars) -> None:
        self.rows_before = 0
        self.rows_in = 0
        self.rows_after = 0
        self._bars = bars
        self._what = f"trades of {bars.key} on {bars.day}"
        self._slice = _Slice.room()
        self._filled = 0
        self._rows = 0
        self._parts: _Parts = {name: np.full(BUCKETS, empty) for name, (_, empty) in _JOINED.items()}
        self._parts |= {"open": np.full(BUCKETS, np.nan), "close": np.full(BUCKETS, np.nan)}

    def add(self, batch: pa.RecordBatch) -> None:
        """Fold in the next rows of the file: columns timestamp, local_timestamp, side, price, amount.

        Raises IntegrityError when a time, price or amount is missing or not a number.
        """
        arrived = _Slice(
            timestamp=integers(batch, "timestamp", self._what),
            local=integers(batch, "local_timestamp", self._what),
            price=self._floats(batch, "price"),
            amount=self._floats(batch, "amount"),
            buy=equals(batch.column("side"), "buy"),
            sell=equals(batch.column("side"), "sell"),
        )
        at = 0
        while at < batch.num_rows:
            step = min(SLICE_ROWS - self._filled, batch.num_rows - at)
            for room, values in zip(self._slice.arrays, arrived.arrays, strict=True):
                room[self._filled : self._filled + step] = values[at : at + step]
            at += step
            self._filled += step
            if self._filled == SLICE_ROWS:
                self._fold()

    def finish(self, times: Times) -> dict[str, pa.Table]:
        """Return the candles of the day by timeframe, one row per bar, columns of `schema.CANDLES`.

        `times` reads the same rows' (timestamp, local_timestamp) again for the medians, several times if need be.
        """
        self._fold()
        delays = Delays(self._bars.start_us, *(self._parts[name] for name in ("rows", "delay_min", "delay_max")))
        middle = medians(delays, times)
        parts, step_s = self._parts, min(TIMEFRAMES.values())
        tables = {}
        for timeframe, seconds in TIMEFRAMES.items():
            parts, step_s = _roll_up(parts, seconds // step_s), seconds
            columns = {**self._bars.columns(timeframe, parts["last_local"]), **_prices(parts, self._bars)}
            columns |= _volumes(parts, self._bars) | _timing(parts, middle[timeframe])
            tables[timeframe] = table(columns, CANDLES)
        return tables

    def _floats(self, batch: pa.RecordBatch, name: str) -> Floats:
        column = batch.column(name)
        if column.null_count:
            raise IntegrityError(f"{self._what}: a row without {name}; the file is damaged, fetch it again")
        result: Floats = column.to_numpy()
        return result

    def _fold(self) -> None:
        """Add the filled part of the slice to the bars."""
        rows = self._slice.at(slice(0, self._filled))
        order = np.arange(self._rows, self._rows + self._filled)
        self._rows, self._filled = self._rows + self._filled, 0
        bucket = (rows.timestamp - self._bars.start_us) // BASE_US
        inside = (bucket >= 0) & (bucket < BUCKETS)
        if not inside.all():
            self.rows_before += int((bucket < 0).sum())
            self.rows_after += int((bucket >= BUCKETS).sum())
            rows, order, bucket = rows.at(inside), order[inside], bucket[inside]
        if not len(bucket):
            return
        self.rows_in += len(bucket)
        if (bucket[1:] < bucket[:-1]).any():
            by_bar = bucket.argsort(kind="stable")
            rows, order, bucket = rows.at(by_bar), order[by_bar], bucket[by_bar]
        starts = np.flatnonzero(np.append(True, bucket[1:] != bucket[:-1]))
        parts = _reduce(rows, order, starts)
        if not np.isfinite(parts["value"]).all():
            raise IntegrityError(
                f"{self._what}: a price or amount is not a number; the file is damaged, fetch it again"
            )
        self._merge(bucket[starts], parts)

    def _merge(self, at: Ints, parts: _Parts) -> None:
        """Join parts of a slice, each bar once, to what is known of those bars."""
        fresh = self._parts["rows"][at] == 0
        self._parts["open"][at[fresh]] = parts["open"][fresh]
        self._parts["close"][at] = parts["close"]  # slices come in file order
        for name, (join, _) in _JOINED.items():
            self._parts[name][at] = join(self._parts[name][at], parts[name])


def _prices(parts: _Parts, bars: Bars) -> dict[str, pa.Array]:
    change = parts["close"] - parts["open"]
    vwap = ratio(parts["amount"], parts["base"]) if bars.inverse else ratio(parts["value"], parts["amount"])
    return {
        **{name: numbers(parts[name]) for name in ("open", "high", "low", "close")},
        "vwap": numbers(vwap),
        "price_vwap": numbers(vwap),
        "price_change": numbers(change),
        "price_change_pct": numbers(ratio(change, parts["open"]) * 100),
        "is_green": pa.array(change > 0, mask=parts["rows"] == 0),
    }


def _volumes(parts: _Parts, bars: Bars) -> dict[str, pa.Array]:
    base, quote = _base_and_quote(parts, bars)
    return {
        "volume": numbers(parts["amount"]),
        "volume_base": numbers(base),
        "volume_quote": numbers(quote),
        "trade_count": pa.array(parts["rows"]),
        "buy_volume_sum": numbers(parts["buy"]),
        "sell_volume_sum": numbers(parts["sell"]),
        "size_avg": numbers(ratio(parts["amount"], parts["rows"])),
    }


def _base_and_quote(parts: _Parts, bars: Bars) -> tuple[Floats, Floats]:
    amount, value, base = parts["amount"], parts["value"], parts["base"]
    if bars.amount_unit == "base":
        return amount, value
    if bars.amount_unit == "quote":
        return base, amount
    size = np.nan if bars.contract_size is None else bars.contract_size
    return (base * size, amount * size) if bars.inverse else (amount * size, value * size)


def _timing(parts: _Parts, middle_us: Floats) -> dict[str, pa.Array]:
    none = parts["rows"] == 0
    mean = numbers(ratio(parts["delay"], parts["rows"]) / _US_PER_MS)
    return {
        "latency_ms": mean,
        "delay_mean": mean,
        "delay_max": pa.array(parts["delay_max"] / _US_PER_MS, mask=none),
        "delay_min": pa.array(parts["delay_min"] / _US_PER_MS, mask=none),
        "delay_median": numbers(middle_us / _US_PER_MS),
    }
