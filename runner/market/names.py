"""Names of timeframes and data types: plain strings, for those who must not wait for pyarrow.

What the names stand for (columns, encodings) is in schema.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SCHEMA_VERSION = 1
"""Part of every request's and file's identity: raise it when the content of an output changes for the same input."""

TIMEFRAMES: Mapping[str, int] = MappingProxyType(
    {"15s": 15, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "24h": 86_400}
)
"""Name to seconds, ascending; each is a whole multiple of the one before and divides the day."""

DATA_TYPE_NAMES = (
    "trades",
    "quotes",
    "book_ticker",
    "book_snapshot_5",
    "book_snapshot_25",
    "incremental_book_L2",
    "derivative_ticker",
    "liquidations",
    "options_chain",
)
"""Every data type whose files can be read and stored."""

GROUPS: Mapping[str, str] = MappingProxyType(
    {"SPOT": "SPOT_PAIR", "PERPETUALS": "PERPETUAL", "FUTURES": "FUTURE", "OPTIONS": "OPTION"}
)
"""Tardis's symbols for files that hold the rows of every symbol of a type, with the TYPE of our keys."""

OPTIONS_CHAIN = "options_chain"
"""The type that exists for a whole venue alone, and is split by underlying."""

DEFAULT_DATA_TYPES = ("trades", "book_snapshot_5", "derivative_ticker", "liquidations", OPTIONS_CHAIN)

_BOOK_DEPTHS: Mapping[str, int] = MappingProxyType({"book_snapshot_5": 5, "book_snapshot_25": 25})


def book_depth(data_type: str) -> int | None:
    """Return the number of levels of a book-snapshot type, None for any other.

    >>> book_depth("book_snapshot_25"), book_depth("trades")
    (25, None)
    """
    return _BOOK_DEPTHS.get(data_type)


def is_group(key: str) -> bool:
    """Tell whether a key is the reserved one of a grouped file.

    >>> is_group("DERIBIT:OPTION:OPTIONS"), is_group("DERIBIT:PERPETUAL:BTC-USD")
    (True, False)
    """
    return key.rsplit(":", 1)[-1] in GROUPS
