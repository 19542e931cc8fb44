"""Stands in for runner.market.symbols until it exists."""

from __future__ import annotations

from typing import NamedTuple


class Venue(NamedTuple):
    """A venue."""

    venue: str
    exchange: str


VENUES = tuple(
    Venue(e.replace("okex", "okx").upper(), e)
    for e in (
        "binance",
        "binance-futures",
        "deribit",
        "bybit",
        "bybit-spot",
        "okex",
        "okex-futures",
        "okex-swap",
        "upbit",
        "binance-delivery",
    )
)
DEFAULT_VENUES = tuple(v.venue for v in VENUES[:8])


def resolve_venue(text: str) -> str | None:
    """Return our name."""
    return next((v.venue for v in VENUES if text.lower() in (v.venue.lower(), v.exchange)), None)
