"""Rows of generated days, block by block, as gzip'd CSV: what a Tardis day file looks like, blemishes included.

Rows are in order of `local_timestamp`, with equal ones; `timestamp` goes back now and then; the first rows have one
on the day before and the last rows one on the day after; books lack levels, quotes lack sides, and a few are crossed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runner.sandbox.text import Bytes, Ints, decimals, empty, integers, lines, words
from runner.sandbox.walk import Clockwork, Day, Grid, Walk

# Part of the names of cached files: raise it when the same specification would give other bytes.
VERSION = 1

_HEAD = "exchange,symbol,timestamp,local_timestamp"
_QUOTES_HEAD = "ask_amount,ask_price,bid_price,bid_amount"
_TICKER_HEAD = "funding_timestamp,funding_rate,predicted_funding_rate,open_interest,last_price,index_price,mark_price"
_FIRST_ID = 1_000_000_000
_SIDES = ("buy", "sell", "unknown")
_SNAPSHOT_ROWS = 400
_FUNDING_US = 8 * 3_600_000_000
_GZIP_LEVEL = 1
# Bit 4 of wbits asks zlib for a gzip header and trailer.
_GZIP_WBITS = 31


@dataclass(frozen=True, slots=True)
class Block:
    """Rows [start, …) of a day with their times."""

    day: Day
    walk: Walk
    start: int
    timestamp: Ints
    dice: np.random.Generator

    @property
    def count(self) -> int:
        """Return the number of rows."""
        return len(self.timestamp)

    @property
    def grid(self) -> Grid:
        """Return the instrument's grid."""
        return self.walk.grid

    def chance(self, share: float) -> NDArray[np.bool_]:
        """Return which rows something happens to."""
        found: NDArray[np.bool_] = self.dice.random(self.count) < share
        return found

    def price(self, ticks: Ints, missing: NDArray[np.bool_] | None = None) -> Bytes:
        """Return a column of prices given in ticks."""
        return decimals(np.maximum(ticks, 1) * self.grid.tick, self.grid.price_decimals, missing)

    def amount(self, missing: NDArray[np.bool_] | None = None, times: float = 1.0) -> Bytes:
        """Return a column of amounts, many small and few large."""
        units = self.dice.lognormal(np.log(self.grid.amount_units * times), 1.2, self.count).astype(np.int64) + 1
        if self.day.exchange == "deribit":
            units = (units // 10 + 1) * 10
        return decimals(units, self.grid.amount_decimals, missing)


@dataclass(frozen=True, slots=True)
class Writer:
    """How one data type is written: its columns after the first four, and rows that arrive together."""

    header: str
    columns: Callable[[Block], list[Bytes]]
    block_rows: int = 65_536
    together: float = 0.1


def _trades(block: Block) -> list[Bytes]:
    day = block.day
    # Ids go on over midnight, because every day of a specification has as many rows.
    ids = _FIRST_ID + (day.day.toordinal() - 700_000) * day.rows + np.arange(block.start, block.start + block.count)
    return [integers(ids), *_deals(block, 1.0)]


def _liquidations(block: Block) -> list[Bytes]:
    return [empty(block.count), *_deals(block, 5.0)]


def _deals(block: Block, size: float) -> list[Bytes]:
    sides = block.dice.integers(0, 2, block.count)
    ticks = block.walk.ticks(block.timestamp) + (1 - 2 * sides) * block.dice.geometric(0.4, block.count)
    sides[block.chance(0.001)] = 2
    return [words(sides, _SIDES), block.price(ticks), block.amount(times=size)]


def _top(block: Block) -> list[Bytes]:
    no_ask, no_bid = block.chance(0.0008), block.chance(0.0008)
    mid = block.walk.ticks(block.timestamp)
    ask, bid = mid + block.dice.geometric(0.6, block.count), mid - block.dice.geometric(0.6, block.count)
    return [block.amount(no_ask), block.price(ask, no_ask), block.price(bid, no_bid), block.amount(no_bid)]


def _ticker(block: Block) -> list[Bytes]:
    mid = block.walk.ticks(block.timestamp)
    no_funding, no_guess = block.chance(0.002), block.chance(0.3)
    rate = 10 + (np.sin(block.timestamp / 7e9) * 8).astype(np.int64)
    interest = (
        80_000_000 + (np.sin(block.timestamp / 9e9) * 2e6).astype(np.int64) + block.dice.integers(0, 999, block.count)
    )
    return [
        integers((block.timestamp // _FUNDING_US + 1) * _FUNDING_US, no_funding),
        decimals(rate, 5, no_funding),
        decimals(rate + 1, 5, no_guess),
        decimals(interest, 3, block.chance(0.2)),
        block.price(mid + block.dice.integers(-2, 3, block.count), block.chance(0.01)),
        block.price(mid + 3),
        block.price(mid + 1),
    ]


def _updates(block: Block) -> list[Bytes]:
    snapshot = np.arange(block.start, block.start + block.count) < min(_SNAPSHOT_ROWS, block.day.rows // 4)
    sides = block.dice.integers(0, 2, block.count)
    ticks = block.walk.ticks(block.timestamp) + (2 * sides - 1) * block.dice.geometric(0.05, block.count)
    removed = block.chance(0.25) & ~snapshot
    amount = block.amount(removed)
    amount[removed, 0] = ord("0")
    return [
        words(snapshot.astype(np.int64), ("false", "true")),
        words(sides, ("bid", "ask")),
        block.price(ticks),
        amount,
    ]


def _book(depth: int) -> Callable[[Block], list[Bytes]]:
    def columns(block: Block) -> list[Bytes]:
        count = block.count
        mid = block.walk.ticks(block.timestamp)
        asks = mid[:, None] + np.cumsum(block.dice.geometric(0.5, (count, depth)), axis=1)
        bids = mid[:, None] - np.cumsum(block.dice.geometric(0.5, (count, depth)), axis=1)
        # A crossed book: the best bid above the best ask.
        crossed = block.chance(0.0003)
        bids[crossed] += (asks[crossed, :1] - bids[crossed, :1]) + 1
        full = [_levels(block, depth), _levels(block, depth)]
        found = []
        for level in range(depth):
            for prices, levels in zip((asks, bids), full, strict=True):
                missing = (levels <= level) | (prices[:, level] < 1)
                found += [block.price(prices[:, level], missing), block.amount(missing)]
        return found

    return columns


def _levels(block: Block, depth: int) -> Ints:
    """Return how many levels one side has: nearly always all, sometimes none."""
    thin = block.dice.integers(0, depth, block.count)
    return np.where(block.chance(0.004), thin, depth)


def _book_header(depth: int) -> str:
    return ",".join(
        f"{side}[{n}].{what}" for n in range(depth) for side in ("asks", "bids") for what in ("price", "amount")
    )


WRITERS: Mapping[str, Writer] = {
    "trades": Writer("id,side,price,amount", _trades, together=0.35),
    "quotes": Writer(_QUOTES_HEAD, _top),
    "book_snapshot_5": Writer(_book_header(5), _book(5), block_rows=16_384),
    "book_snapshot_25": Writer(_book_header(25), _book(25), block_rows=4_096),
    "book_ticker": Writer(_QUOTES_HEAD, _top),
    "incremental_book_L2": Writer("is_snapshot,side,price,amount", _updates, together=0.8),
    "derivative_ticker": Writer(_TICKER_HEAD, _ticker),
    "liquidations": Writer("id,side,price,amount", _liquidations, together=0.3),
}


def day_chunks(day: Day) -> Iterator[bytes]:
    """Yield the bytes of a day file, a few MB at a time; a day of no rows is an empty member without a header line."""
    gzip = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    writer = WRITERS[day.data_type]
    walk, clockwork = Walk(day), Clockwork(day, writer.together)
    if day.rows:
        yield gzip.compress(f"{_HEAD},{writer.header}\n".encode())
    for number, start in enumerate(range(0, day.rows, writer.block_rows)):
        dice = day.dice(day.data_type, day.day, number)
        timestamp, local = clockwork.times(start, min(day.rows, start + writer.block_rows), dice)
        if day.data_type == "incremental_book_L2" and start == 0:
            # A snapshot is one message.
            whole = min(_SNAPSHOT_ROWS, day.rows // 4, len(local))
            timestamp[:whole], local[:whole] = timestamp[:1].repeat(whole), local[:1].repeat(whole)
        block = Block(day, walk, start, timestamp, dice)
        columns = [integers(timestamp), integers(local), *writer.columns(block)]
        yield gzip.compress(lines(f"{day.exchange},{day.symbol.upper()}", columns))
    yield gzip.flush()
