"""Rows of generated days."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from datetime import date
from typing import BinaryIO

VERSION = 0
WRITERS = {"trades": 1, "quotes": 1, "book_snapshot_5": 1}


@dataclass(frozen=True, slots=True)
class Day:
    """One generated day file."""

    exchange: str
    symbol: str
    data_type: str
    day: date
    rows: int
    seed: int


def write_day(day: Day, out: BinaryIO) -> None:
    out.write(gzip.compress(b""))
