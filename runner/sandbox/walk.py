"""The market behind generated days: when rows arrive, what the venue's clock says of them, and where the price is.

Everything follows from exchange, symbol, day and seed, block by block, so that memory does not grow with the day and
all data types of an instrument tell of the same price. Levels are anchored at midnights: adjacent days fit together.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from runner.sandbox.text import DECIMALS_MAX, Ints

Floats = NDArray[np.float64]

DAY_US = 86_400_000_000
# Once a day nothing at all arrives for this long, as when a venue is in maintenance.
_QUIET_US = 100_000_000
_MINUTES = 1440
_DAILY_VOLATILITY = 0.02
# Rows at the very start whose venue time is on the day before, and at the very end with one on the day after.
_HEAD_ROWS, _TAIL_ROWS = 8, 4
# Messages that are seconds late, and those that the venue stamps with a time still to come.
_LATE_SHARE, _EARLY_SHARE = 0.001, 0.0002
_PRICES = {"BTC": 60_000.0, "XBT": 60_000.0, "ETH": 2_600.0, "BNB": 520.0, "SOL": 150.0, "XRP": 0.58, "DOGE": 0.1}


@dataclass(frozen=True, slots=True)
class Day:
    """One generated day file."""

    exchange: str
    symbol: str
    data_type: str
    day: date
    rows: int
    seed: int

    def dice(self, *purpose: object) -> np.random.Generator:
        """Return the random numbers of one purpose of this instrument."""
        text = "\0".join(map(str, (self.seed, self.exchange, self.symbol, *purpose)))
        return np.random.Generator(np.random.SFC64(list(hashlib.sha256(text.encode()).digest())))

    @property
    def start_us(self) -> int:
        """Return midnight at which the day begins."""
        return int(datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC).timestamp()) * 1_000_000


@dataclass(frozen=True, slots=True)
class Grid:
    """Prices and amounts of an instrument: whole numbers of units of 10^-decimals, prices multiples of `tick`."""

    base: float
    price_decimals: int
    tick: int
    amount_decimals: int
    amount_units: float

    @classmethod
    def of(cls, exchange: str, symbol: str) -> Grid:
        """Return the grid of an instrument, the same every day."""
        known = (price for name, price in _PRICES.items() if symbol.startswith(name))
        shade = int(hashlib.sha256(symbol.encode()).hexdigest()[:8], 16) / 0xFFFFFFFF
        base = next(known, 10 ** (shade * 3.5 - 1))
        places = min(DECIMALS_MAX, max(0, 6 - math.floor(math.log10(base))))
        if exchange == "deribit":
            return cls(base, 1 if base > 1_000 else places, 5, 0, 1_000)  # noqa: PLR2004 -- half dollars for the dear
        if exchange.startswith("okex-"):
            return cls(base, places, 1, 0, 20)
        amount_places = 3 if "-" in exchange or exchange in {"bybit", "bitmex"} else 5
        return cls(base, places, 1, amount_places, max(2.0, 400 / base * 10**amount_places))


class Walk:
    """The mid price of one day: a bridge from this midnight's level to the next one's."""

    def __init__(self, day: Day) -> None:
        self.grid = Grid.of(day.exchange, day.symbol)
        dice = day.dice("walk", day.day)
        path = np.concatenate([[0.0], np.cumsum(dice.normal(0, _DAILY_VOLATILITY / math.sqrt(_MINUTES), _MINUTES))])
        share = np.linspace(0, 1, _MINUTES + 1)
        here, there = self._level(day, day.day), self._level(day, day.day + timedelta(days=1))
        self._logs = here * (1 - share) + there * share + path - share * path[-1]
        self._minutes_us = day.start_us + share * DAY_US

    def _level(self, day: Day, at: date) -> float:
        phase = day.dice("phase").uniform(0, 2 * math.pi, 2)
        swing = 0.12 * math.sin(at.toordinal() / 14 + phase[0]) + 0.05 * math.sin(at.toordinal() / 3.1 + phase[1])
        return math.log(self.grid.base) + swing + float(day.dice("level", at).normal(0, 0.006))

    def ticks(self, at_us: Ints) -> Ints:
        """Return the mid price at each time, in whole ticks ≥ 1."""
        prices = np.exp(np.interp(at_us, self._minutes_us, self._logs))
        ticks: Ints = np.rint(prices * 10**self.grid.price_decimals / self.grid.tick).astype(np.int64)
        return np.maximum(ticks, 1)


class Clockwork:
    """Arrival and venue times of a day's rows."""

    def __init__(self, day: Day, together: float) -> None:
        self._day = day
        self._together = together
        # All data types fall silent together.
        self._quiet_us = int(day.dice("quiet", day.day).uniform(0.1, 0.9) * (DAY_US - _QUIET_US))

    def _arrival(self, row: int) -> float:
        """Return when a row is due, µs after midnight without the quiet time: two busy and two calm spells a day."""
        share = row / self._day.rows
        return (DAY_US - _QUIET_US) * (share + 0.04 * math.sin(4 * math.pi * share))

    def times(self, start: int, stop: int, dice: np.random.Generator) -> tuple[Ints, Ints]:
        """Return (timestamp, local_timestamp) of rows [start, stop): the second in order, the first not quite.

        A share `together` of rows arrives in one message with the row before: same time of both kinds.
        """
        count = stop - start
        gaps = dice.exponential(size=count)
        gaps[dice.random(count) < self._together] = 0
        gaps[0] += 0.01
        passed = np.cumsum(gaps)
        begin, end = self._arrival(start), self._arrival(stop)
        arrival = (begin + (end - begin) * passed / (passed[-1] + dice.exponential() + 0.01)).astype(np.int64)
        arrival[arrival >= self._quiet_us] += _QUIET_US
        arrival += self._day.start_us
        # One message has one delay, and the venue stamps it in whole milliseconds.
        message = np.maximum.accumulate(np.where(gaps > 0, np.arange(count), 0))
        venue = (arrival - _delays_us(count, dice)[message]) // 1000 * 1000
        self._cross_midnights(start, stop, venue, arrival)
        return venue, arrival

    def _cross_midnights(self, start: int, stop: int, venue: Ints, arrival: Ints) -> None:
        rows, begin, end = self._day.rows, self._day.start_us, self._day.start_us + DAY_US
        head = min(_HEAD_ROWS, max(1, rows // 50)) if rows >= _TAIL_ROWS else 0
        tail = min(_TAIL_ROWS, max(1, rows // 100)) if rows >= _TAIL_ROWS else 0
        if start == 0 and head:
            steps = np.arange(head)
            arrival[:head] = np.minimum(arrival[:head], begin + 3000 + 700 * steps)
            venue[:head] = begin - 1000 * (1 + (head - steps) // 2)
        if stop == rows and tail:
            steps = np.arange(tail)[-len(arrival) :]
            arrival[-tail:] = np.maximum(arrival[-tail:], end - 9000 + 700 * steps)
            venue[-tail:] = end + 1000 * (steps // 2)


def _delays_us(count: int, dice: np.random.Generator) -> Ints:
    """Return how long messages travel: some ms, rarely seconds, and now and then the venue's clock is ahead."""
    delays = 2_000 + dice.gamma(2.0, 6_000, count)
    odd = dice.random(count)
    late, early = odd < _LATE_SHARE, odd > 1 - _EARLY_SHARE
    delays[late] += dice.uniform(200_000, 2_500_000, int(late.sum()))
    delays[early] = -dice.uniform(1_000, 40_000, int(early.sum()))
    return delays.astype(np.int64)
