"""The grid that candles lie on: one day in bars, the columns every kind of candle has, and how numbers become null.

Bars are [open, end) by exchange time; the finest (15 s) are the base from which all others are rolled up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from runner.errors import ConfigError, IntegrityError
from runner.market.names import TIMEFRAMES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
BASE_US = min(TIMEFRAMES.values()) * SECOND_US
BUCKETS = DAY_US // BASE_US
"""Base bars of a day: 5,760."""

OUT_DELAY_US = 200_000
"""How long after its last fact a bar counts as known: the margin that `timestamp_out` adds."""

AMOUNT_UNITS = ("base", "quote", "contract")

NEVER_US = np.iinfo(np.int64).min
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Bars:
    """What a candle must know of its day and instrument.

    `listed_from` and `listed_to` are UTC dates, [from, to); None is unbounded. `amount_unit` is what the venue counts
    amounts in: base, quote or contract; `contract_size` is in base, for inverse instruments in quote; None is unknown.

    >>> Bars(date(2024, 8, 8), "BINANCE", "BINANCE:SPOT_PAIR:BTC-USDT", False, "base", None, None, None).listed
    True
    """

    day: date
    venue: str
    key: str
    inverse: bool
    amount_unit: str
    contract_size: float | None
    listed_from: date | None
    listed_to: date | None

    def __post_init__(self) -> None:
        if self.amount_unit not in AMOUNT_UNITS:
            raise ConfigError(f"{self.key}: amount unit {self.amount_unit!r} is none of {', '.join(AMOUNT_UNITS)}")

    @property
    def start_us(self) -> int:
        """Return midnight, when the day begins."""
        return (self.day - _EPOCH).days * DAY_US

    @property
    def listed(self) -> bool:
        """Tell whether the instrument is listed that day; listings are whole days, so this holds for all its bars."""
        after = self.listed_from is None or self.listed_from <= self.day
        return after and (self.listed_to is None or self.day < self.listed_to)

    def columns(self, timeframe: str, last_local_us: Ints) -> dict[str, pa.Array]:
        """Return the leading columns of a candle table, one row per bar.

        `last_local_us` is the largest local_timestamp of the rows each bar uses, `NEVER_US` where it uses none.
        """
        bar_us = TIMEFRAMES[timeframe] * SECOND_US
        bars = DAY_US // bar_us
        opens = self.start_us + bar_us * np.arange(bars, dtype=np.int64)
        known = np.maximum(opens + bar_us, last_local_us) + OUT_DELAY_US
        return {
            "venue": pa.repeat(self.venue, bars),
            "instrument_key": pa.repeat(self.key, bars),
            "timeframe": pa.repeat(timeframe, bars),
            "timestamp": times(opens),
            "timestamp_out": times(known),
            "listed": pa.repeat(self.listed, bars),
        }


def times(values: Ints, present: Flags | None = None) -> pa.Array:
    """Return UTC µs as an Arrow column, null where not present.

    >>> times(np.array([0, 5]), np.array([False, True])).cast(pa.int64()).to_pylist()
    [None, 5]
    """
    return pa.array(values, pa.timestamp("us", tz="UTC"), mask=None if present is None else ~present)


def numbers(values: Floats) -> pa.Array:
    """Return floats as an Arrow column; what is not a finite number is null.

    >>> numbers(np.array([1.5, np.nan, np.inf])).to_pylist()
    [1.5, None, None]
    """
    return pa.array(values, pa.float64(), mask=~np.isfinite(values))


def ratio(above: Floats, below: Floats) -> Floats:
    """Divide element by element; NaN (null, once a column) where the divisor is zero.

    >>> ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0])).tolist()
    [0.5, nan]
    """
    missing = np.full(np.broadcast(above, below).shape, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        np.divide(above, below, out=missing, where=below != 0)
    return missing


def integers(batch: pa.RecordBatch, name: str, what: str) -> Ints:
    """Return a column of times as UTC µs; raises IntegrityError naming `what` when one is null.

    >>> integers(pa.record_batch({"t": pa.array([7], pa.timestamp("us", tz="UTC"))}), "t", "x").tolist()
    [7]
    """
    column = batch.column(name)
    if column.null_count:
        raise IntegrityError(f"{what}: a row without {name}; the file is damaged, fetch it again")
    result: Ints = column.view(pa.int64()).to_numpy()
    return result


def equals(column: pa.Array, word: str) -> Flags:
    """Tell row by row whether a string column, dictionary-encoded or not, holds this word; null does not.

    >>> equals(pa.array(["buy", None, "sell"]), "buy").tolist()
    [True, False, False]
    """
    result: Flags = pc.fill_null(pc.equal(column, word), False).to_numpy(zero_copy_only=False)  # noqa: FBT003  (value)
    return result


def table(columns: Mapping[str, pa.Array], schema: pa.Schema) -> pa.Table:
    """Return a table of this schema; columns that are not given are null.

    >>> table({"a": pa.array([1])}, pa.schema([("a", pa.int64()), ("b", pa.float64())])).to_pylist()
    [{'a': 1, 'b': None}]
    """
    rows = len(next(iter(columns.values())))
    return pa.table(
        [columns[field.name] if field.name in columns else pa.nulls(rows, field.type) for field in schema],
        schema=schema,
    )
