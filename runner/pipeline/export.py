"""Whether the source has exported a day of the venues asked for, as far as it can say at the moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from runner.errors import NotFoundError, TransientError
from runner.market.symbols import exchange_of
from runner.spec import RunSpec
from runner.stages.instruments import Catalogues
from runner.tardis.client import Tardis


@dataclass(frozen=True, slots=True)
class Exports:
    """By venue the first day that is not exported, and the venues whose catalogue cannot be read at the moment."""

    until: Mapping[str, date]
    unread: tuple[str, ...]

    def late(self, day: date) -> tuple[str, ...]:
        """Return the venues that have not exported a day.

        >>> Exports({"BINANCE": date(2024, 8, 9), "OKX": date(2024, 8, 8)}, ()).late(date(2024, 8, 8))
        ('OKX',)
        """
        return tuple(venue for venue, until in self.until.items() if until <= day)


def exports(spec: RunSpec, tardis: Tardis) -> Exports:
    """Return what the venues asked for have exported; those whose catalogue cannot be read or is refused are `unread`.

    Raises NotFoundError when the source lists none of them, TransientError when not one catalogue can be read now, and
    what the source says when it refuses them all.
    """
    catalogues = Catalogues(tardis, needed=())
    listed = {venue: exchange for venue in spec.venues if (exchange := exchange_of(venue)) in catalogues.listed()}
    known = {venue: found for venue, exchange in listed.items() if (found := catalogues.of(exchange)) is not None}
    unread = tuple(venue for venue, exchange in listed.items() if exchange in catalogues.unread)
    if not known and unread:
        why = min(catalogues.unread.values(), key=lambda e: not isinstance(e, TransientError))
        if not isinstance(why, TransientError):
            raise why
        raise TransientError(f"no catalogue can be read: {why}")
    if not known:
        raise NotFoundError(f"{tardis.api_url} lists none of {', '.join(spec.venues)}; give other --venues")
    return Exports({venue: found.exported_until for venue, found in known.items()}, unread)


def newest(spec: RunSpec, tardis: Tardis) -> date | None:
    """Return the first day that no venue asked for has exported, None while the source cannot say."""
    try:
        return max(exports(spec, tardis).until.values())
    except TransientError:
        return None
