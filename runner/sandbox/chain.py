"""Generated options chains: the rows of the file OPTIONS, and options for it where a specification names none.

A row is what a venue says of one option at a time: its book's top, its mark, and greeks that follow from the price of
the underlying and a smile of volatilities. Sides without orders, trades or greeks are empty; expired options are gone.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from runner.sandbox.text import Bytes, Ints, decimals, integers, lines, words
from runner.sandbox.walk import Clockwork, Day, Floats, Grid, Walk

HEADER = (
    "type,strike_price,expiration,open_interest,last_price,bid_price,bid_amount,bid_iv,ask_price,ask_amount,ask_iv,"
    "mark_price,mark_iv,underlying_index,underlying_price,delta,gamma,vega,theta,rho"
)
_OPTION = re.compile(r"^([A-Z0-9]+)(_[A-Z]+)?-(\d{1,2}[A-Z]{3}\d{2})-(\d+(?:d\d+)?)-([CP])$")
_EXPIRES_AT_US = 8 * 3_600_000_000
_YEAR_US = 365 * 86_400_000_000
_BLOCK_ROWS = 16_384
_GZIP_LEVEL, _GZIP_WBITS = 1, 31
_PLACES = 5
# What options are generated of: name, and how far apart its strikes are.
_UNDERLYINGS = (("BTC", 1_000.0), ("ETH", 50.0), ("XRP_USDC", 0.02))
_STRIKES_EACH_SIDE = 8
_FRIDAY = 4
_WEEKS_AHEAD = 4


@dataclass(frozen=True, slots=True)
class Option:
    """An option as its symbol tells it; `perpetual` is where its underlying's price is from."""

    symbol: str
    underlying: str
    expiry: date
    strike: float
    call: bool

    @classmethod
    def read(cls, symbol: str) -> Option | None:
        """Return the option that a symbol names, None when it names none.

        >>> Option.read("XRP_USDC-9AUG24-0d55-P").strike
        0.55
        """
        found = _OPTION.match(symbol)
        if found is None:
            return None
        base, quote, day, strike, right = found.groups()
        expiry = datetime.strptime(f"{day.title()} +0000", "%d%b%y %z").date()
        return cls(symbol, base + (quote or ""), expiry, float(strike.replace("d", ".")), right == "C")

    @property
    def expiry_us(self) -> int:
        """Return the instant of expiry."""
        day = datetime(self.expiry.year, self.expiry.month, self.expiry.day, tzinfo=UTC)
        return int(day.timestamp()) * 1_000_000 + _EXPIRES_AT_US


def members(exchange: str, first: date, last: date) -> tuple[str, ...]:
    """Return options to generate for days [first, last]: of the next days, and of the Fridays of some weeks."""
    days = {first + timedelta(days=n) for n in range((last - first).days + 2)}
    ahead = (first + timedelta(days=n) for n in range((last - first).days + 7 * _WEEKS_AHEAD))
    days |= {day for day in ahead if day.weekday() == _FRIDAY}
    return tuple(
        f"{name}-{day.day}{f'{day:%b%y}'.upper()}-{strike}-{right}"
        for name, step in _UNDERLYINGS
        for day in sorted(days)
        for strike in _strikes(Grid.of(exchange, name).base, step)
        for right in "CP"
    )


def _strikes(price: float, step: float) -> list[str]:
    """Return strikes on both sides of a price, the point of a fraction written d."""
    middle = round(price / step)
    steps = range(middle - _STRIKES_EACH_SIDE, middle + _STRIKES_EACH_SIDE + 1)
    return [f"{round(n * step, 2):g}".replace(".", "d") for n in steps]


@dataclass(frozen=True, slots=True)
class _Chain:
    """The options of a day, column by column, with the walk of each underlying."""

    options: tuple[Option, ...]
    walks: tuple[Walk, ...]
    underlying: Ints
    strike: Floats
    call: NDArray[np.bool_]
    expiry_us: Ints
    shares: Floats

    @classmethod
    def of(cls, day: Day, symbols: Sequence[str]) -> _Chain:
        found = (option for option in map(Option.read, symbols) if option is not None)
        options = tuple(option for option in found if option.expiry_us > day.start_us)
        names = list(dict.fromkeys(option.underlying for option in options))
        walks = tuple(Walk(Day(day.exchange, f"{name}-PERPETUAL", "", day.day, 0, day.seed)) for name in names)
        chain = cls(
            options,
            walks,
            np.array([names.index(option.underlying) for option in options], np.int64),
            np.array([option.strike for option in options]),
            np.array([option.call for option in options], np.bool_),
            np.array([option.expiry_us for option in options], np.int64),
            np.ones(len(options)),
        )
        return replace(chain, shares=chain._shares(day.start_us)) if options else chain

    def _shares(self, start_us: int) -> Floats:
        """Return which share of the rows each option has, added up."""
        every = np.arange(len(self.options))
        away = np.log(self.strike / self.price(every, np.full(len(every), start_us)))
        days = (self.expiry_us - start_us) / 86.4e9
        added = np.cumsum((np.exp(-((away / 0.05) ** 2)) + 0.02) / (1 + days))
        shares: Floats = added / added[-1]
        return shares

    def pick(self, at_us: Ints, dice: np.random.Generator) -> Ints:
        """Return the option that each row is of: one that has not expired, rather near the money and soon to expire."""
        found = np.searchsorted(self.shares, dice.random(len(at_us))).clip(max=len(self.options) - 1)
        latest = np.flatnonzero(self.expiry_us == self.expiry_us.max())
        return np.where(self.expiry_us[found] > at_us, found, dice.choice(latest, len(at_us)))

    def price(self, option: Ints, at_us: Ints) -> Floats:
        """Return the price of each row's underlying."""
        found = np.empty(len(option))
        for number, walk in enumerate(self.walks):
            mine = self.underlying[option] == number
            found[mine] = walk.ticks(at_us[mine]) * walk.grid.tick / 10.0**walk.grid.price_decimals
        return found


def chain_chunks(day: Day, symbols: Sequence[str]) -> Iterator[bytes]:
    """Yield the bytes of the file OPTIONS, gzip'd CSV; an empty member without a header where no option is left."""
    gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    chain, clockwork = _Chain.of(day, symbols), Clockwork(day, 0.3)
    rows = day.rows if chain.options else 0
    if rows:
        yield gzip.compress(f"exchange,symbol,timestamp,local_timestamp,{HEADER}\n".encode())
    for number, start in enumerate(range(0, rows, _BLOCK_ROWS)):
        dice = day.dice(day.data_type, day.day, number)
        timestamp, local = clockwork.times(start, min(rows, start + _BLOCK_ROWS), dice)
        option = chain.pick(timestamp, dice)
        names = words(option, tuple(each.symbol for each in chain.options))
        columns = [names, integers(timestamp), integers(local), *_columns(chain, option, timestamp, dice)]
        yield gzip.compress(lines(day.exchange, columns))
    yield gzip.flush()


def _columns(chain: _Chain, option: Ints, at_us: Ints, dice: np.random.Generator) -> list[Bytes]:
    strike, call, count = chain.strike[option], chain.call[option], len(option)
    price, years = chain.price(option, at_us), np.maximum(chain.expiry_us[option] - at_us, 60e6) / _YEAR_US
    away = np.log(strike / price)
    iv = 0.55 + 0.6 * away**2 - 0.15 * away + 0.02 * np.sin(at_us / 5e9) + dice.normal(0, 0.002, count)
    deviation = iv * np.sqrt(years)
    d1 = -away / deviation + deviation / 2
    density, up, at_strike = np.exp(-(d1**2) / 2) / np.sqrt(2 * np.pi), _normal(d1), _normal(d1 - deviation)
    worth = np.maximum(price * (up - ~call) - strike * (at_strike - ~call), price * 1e-4)
    in_coin = np.array(["_" not in each.underlying for each in chain.options])[option]
    mark = np.where(in_coin, worth / price, worth)
    no_last, no_bid, no_ask = dice.random(count) < 0.2, dice.random(count) < 0.15, dice.random(count) < 0.1  # noqa: PLR2004 -- shares
    no_greeks, no_iv = dice.random(count) < 0.003, dice.random(count) < 0.002  # noqa: PLR2004 -- shares
    indexes = tuple(f"SYN.{each.symbol.rsplit('-', 2)[0]}" for each in chain.options)
    greeks = (
        up - ~call,
        density / (price * deviation),
        price * density * np.sqrt(years) / 100,
        -price * density * iv / (2 * np.sqrt(years)) / 365,
        strike * years * (at_strike - ~call) / 100,
    )
    return [
        words(call.astype(np.int64), ("put", "call")),
        _signed(strike),
        integers(chain.expiry_us[option]),
        decimals(dice.integers(0, 9_000, count), 1),
        _signed(mark * dice.normal(1, 0.05, count), no_last),
        *_side(mark * 0.98, iv * 0.97, no_bid, dice),
        *_side(mark * 1.02, iv * 1.03, no_ask, dice),
        _signed(mark),
        _signed(iv * 100, no_iv),
        words(option, indexes),
        _signed(price),
        *(_signed(values, no_greeks) for values in greeks),
    ]


def _side(price: Floats, iv: Floats, missing: NDArray[np.bool_], dice: np.random.Generator) -> list[Bytes]:
    amount = decimals(dice.integers(1, 500, len(price)), 1, missing)
    # A price below what can be has no volatility: the venue writes 0.
    iv = np.where(dice.random(len(price)) < 0.02, 0, iv * 100)  # noqa: PLR2004 -- share
    return [_signed(price, missing), amount, _signed(iv, missing)]


def _signed(values: Floats, missing: NDArray[np.bool_] | None = None) -> Bytes:
    """Return numbers of either sign, to five decimals."""
    units = np.rint(values * 10**_PLACES).astype(np.int64)
    sign = np.where((units < 0) & (~missing if missing is not None else True), ord("-"), 0).astype(np.uint8)
    return np.concatenate([sign[:, None], decimals(np.abs(units), _PLACES, missing)], axis=1)


def _normal(values: Floats) -> Floats:
    """Return the normal distribution function, good to four digits (Page 1977)."""
    found: Floats = 1 / (1 + np.exp(-np.clip(1.5976 * values + 0.070566 * values**3, -60, 60)))
    return found
