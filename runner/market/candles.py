"""Candles of trades at every timeframe, in one pass over the ticks of a day and memory that does not grow with rows.

Rows fall into bars by exchange time; sums are taken slice by slice (slices.py), so the same files give the same bits.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from runner.errors import IntegrityError
from runner.market.bars import (
    BUCKETS,
    NEVER_US,
    Bars,
    Floats,
    Ints,
    equals,
    integers,
    numbers,
    ratio,
    table,
)
from runner.market.joined import Joined, JoinedBars
from runner.market.medians import Delays, Times, medians
from runner.market.names import TIMEFRAMES
from runner.market.schema import CANDLES
from runner.market.slices import SLICE_ROWS, Run, Sliced, Slices

__all__ = ["SLICE_ROWS", "Bars", "TradeCandles"]

_LAST = np.iinfo(np.int64).max
_US_PER_MS = 1_000

# Columns of a trade as they are sliced: timestamp, local_timestamp, price, amount, is a buy, is a sell.
_KINDS = (np.int64, np.int64, np.float64, np.float64, np.bool_, np.bool_)


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


def _reduce(run: Run) -> _Parts:
    """Return the parts of each bar of a run of trades."""
    timestamp, local, price, amount, buy, sell = run.columns
    delay = local - timestamp
    ends = np.append(run.starts[1:], len(run.order)) - 1
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused or null in the end
        columns = {
            "amount": amount,
            "value": price * amount,
            "base": ratio(amount, price),
            "buy": amount * buy,
            "sell": amount * sell,
            "delay": delay.astype(np.float64),  # exact below 2**53, and never wraps
            "low": price,
            "delay_min": delay,
            "high": price,
            "delay_max": delay,
            "last_local": local,
        }
        parts = {name: _JOINED[name][0].reduceat(values, run.starts) for name, values in columns.items()}
    parts |= {"rows": ends - run.starts + 1, "first_row": run.order[run.starts], "last_row": run.order[ends]}
    return parts | {"open": price[run.starts], "close": price[ends]}


def _roll_up(parts: _Parts, factor: int) -> _Parts:
    """Join `factor` neighbours into one; open and close are those of the row that arrived first and last."""
    shaped = {name: values.reshape(-1, factor) for name, values in parts.items()}
    wide = {name: join.reduce(shaped[name], axis=1) for name, (join, _) in _JOINED.items()}
    bars = np.arange(len(wide["rows"]))
    wide["open"] = shaped["open"][bars, shaped["first_row"].argmin(axis=1)]
    wide["close"] = shaped["close"][bars, shaped["last_row"].argmax(axis=1)]
    return wide


class TradeCandles(Sliced):
    """Folds trades into candles; `add` batches in file order, `next_file` between files, then `finish`.

    Open and close are the first and last trade in arrival order, at every timeframe. Rows whose exchange time lies on
    another day are in no candle; they are counted (`rows_before`, `rows_after`): the three counts sum to all rows
    added. Files are those of the day before, the day and the day after, in this order; one alone will do.
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
        self._bars = bars
        self._what = f"trades of {bars.key} on {bars.day}"
        self._slices = Slices(bars.start_us, _KINDS, self._fold)
        self._parts: _Parts = {name: np.full(BUCKETS, empty) for name, (_, empty) in _JOINED.items()}
        self._parts |= {"open": np.full(BUCKETS, np.nan), "close": np.full(BUCKETS, np.nan)}

    def add(self, batch: pa.RecordBatch) -> None:
        """Fold in the next rows of the file: columns timestamp, local_timestamp, side, price, amount.

        Raises IntegrityError when a time, price or amount is missing or not a number.
        """
        self._slices.add(
            (
                integers(batch, "timestamp", self._what),
                integers(batch, "local_timestamp", self._what),
                self._floats(batch, "price"),
                self._floats(batch, "amount"),
                equals(batch.column("side"), "buy"),
                equals(batch.column("side"), "sell"),
            )
        )

    def finish(self, times: Times, joined: Joined | None = None) -> dict[str, pa.Table]:
        """Return the candles of the day by timeframe, one row per bar, columns of `schema.CANDLES`.

        `times` reads the same rows' (timestamp, local_timestamp) again for the medians, several times if need be.
        `joined` is what other data types say of these bars; without it, those columns are null.
        """
        self._slices.flush()
        delays = Delays(self._bars.start_us, *(self._parts[name] for name in ("rows", "delay_min", "delay_max")))
        middle = medians(delays, times)
        parts, step_s = self._parts, min(TIMEFRAMES.values())
        tables = {}
        for timeframe, seconds in TIMEFRAMES.items():
            parts, step_s = _roll_up(parts, seconds // step_s), seconds
            more = joined.bars(timeframe) if joined else JoinedBars(parts["last_local"], {})
            last_local = np.maximum(parts["last_local"], more.last_local_us)
            columns = {**self._bars.columns(timeframe, last_local), **_prices(parts, self._bars)}
            columns |= _volumes(parts, self._bars) | _timing(parts, middle[timeframe]) | dict(more.columns)
            tables[timeframe] = table(columns, CANDLES)
        return tables

    def _floats(self, batch: pa.RecordBatch, name: str) -> Floats:
        column = batch.column(name)
        if column.null_count:
            raise IntegrityError(f"{self._what}: a row without {name}; the file is damaged, fetch it again")
        result: Floats = column.to_numpy()
        return result

    def _fold(self, run: Run) -> None:
        """Add the trades of a slice to the bars."""
        parts = _reduce(run)
        if not np.isfinite(parts["value"]).all():
            raise IntegrityError(
                f"{self._what}: a price or amount is not a number; the file is damaged, fetch it again"
            )
        self._merge(run.bars, parts)

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
