"""Deterministic day files for the bench: CSV as Tardis writes it, gzip level 6, made once per version and size.

A perpetual's day: prices in steps of 0.1, amounts in steps of 0.001. How often a column changes from row to row, how
many rows one event brings and how well a file packs (7 to 9 times) follow real days of BTCUSDT.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from agreed import START_US

VERSION = 1
"""Part of a file's name: raise it when the same arguments would give other rows."""

_DAY_US = 86_400_000_000
_BLOCK_ROWS = 500_000
_LEVELS = 5
_LATE = 0.0002
# Share of rows in which the best price, then the gap to each further level, differs from the row before: so the prices
# themselves differ in 10 to 37 %. The amount behind the best price changes more often; the others go with their price.
_PRICE_CHANGES = (0.10, 0.13, 0.09, 0.07, 0.05)
_BEST_AMOUNT_CHANGES = 0.74
_RESTING_ROWS = 20_000
# In steps of the price, from a level to the next.
_GAPS = (1, 1, 1, 1, 1, 2, 2, 3, 4, 7)
_USUAL_AMOUNTS = (1, 2, 2, 2, 3, 5, 10, 20, 50, 100, 100, 200, 500)


def day_file(kind: str, rows: int, folder: Path) -> Path:
    """Return the gzipped CSV of a day of `kind` (trades or book_snapshot_5) with so many rows, making it if need be."""
    path = folder / f"{kind}-{rows}-v{VERSION}.csv.gz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
        make = {"trades": _trades, "book_snapshot_5": _book}[kind]
        with gzip.GzipFile(scratch, "wb", compresslevel=6, mtime=0) as file:
            for number, start in enumerate(range(0, rows, _BLOCK_ROWS)):
                block = _Block(np.random.default_rng([7, number]), start, min(_BLOCK_ROWS, rows - start), rows)
                file.write(make(block).write_csv(include_header=start == 0).encode())
        scratch.replace(path)
    return path


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows [start, start + count) of a day of so many rows."""

    dice: np.random.Generator
    start: int
    count: int
    rows: int

    def times(self, together: float) -> tuple[dict[str, object], np.ndarray]:
        """Return the leading columns, and the first row of each row's event, whose rows arrive µs after each other.

        Exchange times are whole ms, and now and then go back.
        """
        sweeps = np.repeat(self.dice.random(self.count // 64 + 1) < 0.3, 64)[: self.count]
        first = self.dice.random(self.count) >= np.where(sweeps, together**0.2, together)
        first[0] = True
        event = np.maximum.accumulate(np.where(first, np.arange(self.count), 0))
        after = np.cumsum(np.where(first, 0, self.dice.choice((0, 1, 1, 2, 4), self.count)))
        pace_us = (_DAY_US - 200_000) / self.rows
        place = self.start + event + 0.9 * self.dice.random(self.count)[event]
        arrived = START_US + 50_000 + (place * pace_us).astype(np.int64)
        exchange = (arrived - 25_000 - self.dice.gamma(2, 1_500, self.count)[event].astype(np.int64)) // 1_000 * 1_000
        late = self.dice.random(self.count) < _LATE
        exchange[late] -= self.dice.integers(1_000_000, 20_000_000, late.sum())
        if self.start == 0:
            exchange[:3] = START_US - 4_000
        text = {"exchange": np.full(self.count, "binance-futures"), "symbol": np.full(self.count, "BTCUSDT")}
        return {**text, "timestamp": exchange, "local_timestamp": arrived + after - after[event]}, event


def _held(dice: np.random.Generator, values: np.ndarray, change: float) -> np.ndarray:
    """Return one value fewer than given: each stays for a while, every row having this chance of the next one."""
    return values[np.cumsum(dice.random(len(values) - 1) < change)]


def _amounts(dice: np.random.Generator, count: int, *, usual: float) -> np.ndarray:
    """Return one amount more than `count`, in units of 0.001: this share of the few sizes that programs place."""
    drawn = dice.lognormal(3.6, 1.9, count + 1).astype(np.int64) + 1
    return np.where(dice.random(count + 1) < usual, dice.choice(_USUAL_AMOUNTS, count + 1), drawn)


def _mid(dice: np.random.Generator, start: int, count: int) -> np.ndarray:
    """Return a price in steps of 0.1 that wanders around a slow wave, so that blocks join."""
    steps = dice.integers(-6, 7, count)
    wave = 600_000 + 8_000 * np.sin((start + np.arange(count)) / 700_000)
    return (wave // 10 * 10).astype(np.int64) + np.cumsum(steps) // 4


def _trades(block: _Block) -> pl.DataFrame:
    dice, count = block.dice, block.count
    times, event = block.times(0.45)
    buys = (dice.random(count) < 0.5)[event]
    walk = _held(dice, _mid(dice, block.start, count + 1), 0.38)
    columns = {
        "id": np.arange(3_700_000_000 + block.start, 3_700_000_000 + block.start + count),
        "side": np.where(buys, "buy", "sell"),
        "price": walk / 10,
        "amount": _held(dice, _amounts(dice, count, usual=0.36), 0.84) / 1_000,
    }
    return pl.DataFrame({**times, **columns})


def _book(block: _Block) -> pl.DataFrame:
    dice, count = block.dice, block.count
    times, _ = block.times(0.02)
    mid = _held(dice, _mid(dice, block.start, count + 1), _PRICE_CHANGES[0])
    resting = _amounts(dice, count, usual=0.5)
    columns: dict[str, np.ndarray] = {}
    far = {"ask": np.zeros(count, np.int64), "bid": np.zeros(count, np.int64)}
    for level in range(_LEVELS):
        for side, sign in (("ask", 1), ("bid", -1)):
            gap = 1 if level == 0 else _held(dice, dice.choice(_GAPS, count + 1), _PRICE_CHANGES[level])
            far[side] = far[side] + gap
            price = mid + sign * far[side]
            behind = resting[(price + np.arange(count) // _RESTING_ROWS * 7_919) % count]
            best = _held(dice, _amounts(dice, count, usual=0.1), _BEST_AMOUNT_CHANGES)
            columns[f"{side}s[{level}].price"] = price / 10
            columns[f"{side}s[{level}].amount"] = (best if level == 0 else behind) / 1_000
    return pl.DataFrame({**times, **columns})


def digest(path: Path) -> str:
    """Return the MD5 of a file, as the source sends it beside a day."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
