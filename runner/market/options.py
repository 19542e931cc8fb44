"""Option features of one underlying: the 25-delta skew and the at-the-money volatility of the nearest expiry.

The state is the last row of each option, reset at 00:00 UTC and sampled at the end of every bar, so a coarser bar has
what the finest bar with the same end has. Memory grows with the number of options, not with rows.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from runner.market.bars import (
    BASE_US,
    BUCKETS,
    NEVER_US,
    SECOND_US,
    Bars,
    Floats,
    Ints,
    equals,
    integers,
    numbers,
    table,
    times,
)
from runner.market.names import TIMEFRAMES
from runner.market.schema import OPTION_FEATURES

AGE_MAX_US = 15 * 60 * SECOND_US
"""How old the last row of an option may be at the end of a bar."""

DISTANCE_MAX = 0.10
"""How far the delta of an option may be from the wanted one."""

_FIRST_ROOM = 256
_LATEST_US = np.iinfo(np.int64).max
_KEPT = np.dtype([("at", "i8"), ("expiry", "i8"), ("call", "?"), ("strike", "f8"), ("delta", "f8"), ("mark_iv", "f8")])
_VALUES = (
    "skew_25d_put_call_ratio",
    "atm_mark_iv",
    "put_strike",
    "put_mark_iv",
    "call_strike",
    "call_mark_iv",
    "atm_strike",
)


class OptionFeatures:
    """Folds an options chain into features; `add` batches in file order, then `finish`.

    The clock is `local_timestamp`, in arrival order: where it goes back, a row counts at the latest time before it.
    A bar is [start, end): a row at exactly the end belongs to the next bar and is not in this sample. Rows of other
    days are in none; they are counted (`rows_before`, `rows_after`): the three counts sum to all rows added.

    An option is eligible when its last row is at most 15 minutes old at the end (900 s exactly is), has a delta, a
    mark_iv above 0, and an expiry after the end (the instant itself is not after). `expiry` is the smallest of the
    eligible ones; of its options `put` is the put nearest to delta -0.25, `call` the call nearest to 0.25, `atm` the
    one whose |delta| is nearest to 0.5, as distances of doubles; equal ones go to the lower strike, then to the call.
    What is more than 0.10 away is null. The skew is mark_iv(put) / mark_iv(call). IVs are in the source's percent.

    `bars.key` is the underlying. `listed` tells that the group of options is offered that day.

    >>> from datetime import date
    >>> at = pa.array([1723075201000000] * 2, pa.timestamp("us", tz="UTC"))
    >>> rows = {"local_timestamp": at, "symbol": ["P", "C"], "type": ["put", "call"], "strike_price": [9.0, 11.0]}
    >>> rows |= {"expiration": pa.array([1723190400000000] * 2, at.type), "delta": [-0.25, 0.25], "mark_iv": [66.0, 60]}
    >>> features = OptionFeatures(Bars(date(2024, 8, 8), "X", "BTC-USD", False, "base", None, None, None))
    >>> features.add(pa.record_batch(rows))
    >>> features.finish()["15s"].slice(0, 1).to_pylist()[0]["skew_25d_put_call_ratio"]
    1.1
    """

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._what = f"options_chain of {bars.venue} {bars.key} on {bars.day}"
        self._state = _State()
        self._next = 0
        self._clock_us = NEVER_US
        self._expiry = np.full(BUCKETS, NEVER_US)
        self._values = {name: np.full(BUCKETS, np.nan) for name in _VALUES}
        self.rows_before = 0
        self.rows_in = 0
        self.rows_after = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Fold in the next rows of the file; raises IntegrityError when a time is missing.

        Columns local_timestamp, symbol, type, strike_price, expiration, delta, mark_iv.
        """
        if not batch.num_rows:
            return
        at = np.maximum(np.maximum.accumulate(integers(batch, "local_timestamp", self._what)), self._clock_us)
        self._clock_us = int(at[-1])
        codes, rows = self._state.codes(batch.column("symbol")), _rows(batch, at, self._what)
        bars = (at - self._bars.start_us) // BASE_US
        starts = np.flatnonzero(np.append(True, bars[1:] != bars[:-1]))
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(bars)], strict=True):
            self._take(int(bars[start]), codes[start:stop], rows[start:stop])

    def finish(self) -> dict[str, pa.Table]:
        """Return the features of the day by timeframe, one row per bar, columns of `schema.OPTION_FEATURES`."""
        self._sample_before(BUCKETS)
        tables = {}
        for timeframe, seconds in TIMEFRAMES.items():
            step = seconds * SECOND_US // BASE_US
            ends = slice(step - 1, None, step)
            columns = self._bars.columns(timeframe, np.full(BUCKETS // step, NEVER_US))
            columns["underlying"] = columns.pop("instrument_key")
            columns["expiry"] = times(self._expiry[ends], self._expiry[ends] != NEVER_US)
            columns |= {name: numbers(values[ends]) for name, values in self._values.items()}
            tables[timeframe] = table(columns, OPTION_FEATURES)
        return tables

    def _take(self, bar: int, codes: Ints, rows: np.ndarray) -> None:
        if bar < 0:
            self.rows_before += len(rows)
        elif bar >= BUCKETS:
            self.rows_after += len(rows)
        else:
            self._sample_before(bar)
            self._state.put(codes, rows)
            self.rows_in += len(rows)

    def _sample_before(self, bar: int) -> None:
        """Sample the bars that end before or where a bar begins."""
        for number in range(self._next, bar):
            self._sample(number)
        self._next = max(self._next, bar)

    def _sample(self, bar: int) -> None:
        options = self._state.nearest_expiry(self._bars.start_us + (bar + 1) * BASE_US)
        if not len(options):
            return
        self._expiry[bar] = options["expiry"][0]
        calls, puts = options[options["call"]], options[~options["call"]]
        put = _nearest(puts, np.abs(puts["delta"] + 0.25))
        call = _nearest(calls, np.abs(calls["delta"] - 0.25))
        atm = _nearest(options, np.abs(np.abs(options["delta"]) - 0.5))
        for name, option in (("put", put), ("call", call), ("atm", atm)):
            if option is not None:
                self._values[f"{name}_strike"][bar] = option["strike"]
                self._values[f"{name}_mark_iv"][bar] = option["mark_iv"]
        if put is not None and call is not None:
            self._values["skew_25d_put_call_ratio"][bar] = put["mark_iv"] / call["mark_iv"]


def _rows(batch: pa.RecordBatch, at: Ints, what: str) -> np.ndarray:
    """Return what the state keeps of each row."""
    rows = np.empty(batch.num_rows, _KEPT)
    rows["at"], rows["expiry"] = at, integers(batch, "expiration", what)
    rows["call"] = equals(batch.column("type"), "call")
    for name, column in (("strike", "strike_price"), ("delta", "delta"), ("mark_iv", "mark_iv")):
        rows[name] = batch.column(column).to_numpy(zero_copy_only=False)
    return rows


class _State:
    """The last row of each option: one place for each symbol ever seen on the day."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self.options = _room(_FIRST_ROOM)

    def codes(self, symbols: pa.Array) -> Ints:
        """Return the place of each row's option, making room for new ones."""
        words = symbols.dictionary_encode()
        places = [self._codes.setdefault(symbol, len(self._codes)) for symbol in words.dictionary.to_pylist()]
        if len(self._codes) > len(self.options):
            self.options = np.append(self.options, _room(2 * len(self._codes) - len(self.options)))
        found: Ints = np.array(places, np.int64)[words.indices.to_numpy()]
        return found

    def put(self, codes: Ints, rows: np.ndarray) -> None:
        """Replace the rows of these options by the last of each."""
        last = np.full(len(self._codes), -1)
        np.maximum.at(last, codes, np.arange(len(codes)))
        places = np.flatnonzero(last >= 0)
        self.options[places] = rows[last[places]]

    def nearest_expiry(self, end_us: int) -> np.ndarray:
        """Return the eligible options of the smallest expiry after `end_us`; none where there are none."""
        every = self.options[: len(self._codes)]
        is_known = (every["at"] >= end_us - AGE_MAX_US) & (every["mark_iv"] > 0) & ~np.isnan(every["delta"])
        eligible = every[is_known & (every["expiry"] > end_us)]
        nearest: np.ndarray = eligible[eligible["expiry"] == eligible["expiry"].min(initial=_LATEST_US)]
        return nearest


def _room(places: int) -> np.ndarray:
    room = np.zeros(places, _KEPT)
    room["at"] = NEVER_US
    return room


def _nearest(options: np.ndarray, distance: Floats) -> np.void | None:
    """Return the option at the least distance; of equal ones the lower strike, then the call; None beyond 0.10."""
    if not len(options) or (least := distance.min()) > DISTANCE_MAX:
        return None
    found: np.void = min(options[distance == least], key=lambda option: (option["strike"], not option["call"]))
    return found
