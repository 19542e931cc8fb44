"""Tardis's grouped files: one file with the rows of every symbol of a type. They have reserved keys, no instruments.

What a group's file is split by, the underlying of an option, is told from a row's symbol alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from runner.market import grammar
from runner.market.grammar import OPTION, UnreadableError
from runner.market.names import GROUPS
from runner.market.symbols import venue_of
from runner.task import Source

UNPARSED = "UNPARSED"
"""The part that holds the rows of symbols that have no key."""
_CAPITAL_POINT = re.compile(r"-([0-9]+)D([0-9]+)-")


@dataclass(frozen=True, slots=True)
class Group:
    """A grouped file on one day: offered at the instants [available_from, available_to), None while still offered.

    >>> from datetime import UTC
    >>> group = Group("deribit", "OPTIONS", ("options_chain",), datetime(2019, 3, 30, tzinfo=UTC), None)
    >>> group.venue, group.instrument_type, group.instrument_key
    ('DERIBIT', 'OPTION', 'DERIBIT:OPTION:OPTIONS')
    """

    tardis_exchange: str
    tardis_symbol: str
    data_types: tuple[str, ...]
    available_from: datetime
    available_to: datetime | None

    @property
    def venue(self) -> str:
        """Return our name of the venue."""
        return venue_of(self.tardis_exchange)

    @property
    def instrument_type(self) -> str:
        """Return the TYPE of its members' keys."""
        return GROUPS[self.tardis_symbol]

    @property
    def instrument_key(self) -> str:
        """Return the reserved key."""
        return f"{self.venue}:{self.instrument_type}:{self.tardis_symbol}"

    @property
    def source(self) -> Source:
        """Return where its file is."""
        return Source(self.tardis_exchange, self.tardis_symbol)


def underlying_of(exchange: str, symbol: str) -> str | None:
    """Return the BASE-QUOTE of an option's key, None where the symbol is not that of an option of ours.

    Rows may have it in capitals, though the venue writes the point of a strike as a small d.

    >>> underlying_of("deribit", "BTC-9JUN20-9875-P"), underlying_of("deribit", "XRP_USDC-29DEC23-0d5-C")
    ('BTC-USD', 'XRP-USDC')
    >>> underlying_of("deribit", "BTC-PERPETUAL"), underlying_of("deribit", "XRP_USDC-29DEC23-0D5-C")
    (None, 'XRP-USDC')
    """
    try:
        parts = grammar.read(exchange, _CAPITAL_POINT.sub(r"-\1d\2-", symbol), OPTION)
    except UnreadableError:
        return None
    return f"{parts.base}-{parts.quote}"
