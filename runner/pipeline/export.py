"""Whether the source has exported a day of the venues asked for."""

from __future__ import annotations

from datetime import date

from runner.errors import NotFoundError
from runner.market.symbols import exchange_of
from runner.spec import RunSpec
from runner.stages.instruments import Catalogues
from runner.tardis.client import Tardis


def late(spec: RunSpec, tardis: Tardis, day: date) -> tuple[tuple[str, ...], bool]:
    """Return the venues whose day is not exported yet, and whether that is all of them; those unknown do not count.

    Raises NotFoundError when the source lists none of them.
    """
    catalogues = Catalogues(tardis)
    listed = {venue: exchange for venue in spec.venues if (exchange := exchange_of(venue)) in catalogues.listed()}
    known = {venue: found for venue, exchange in listed.items() if (found := catalogues.of(exchange)) is not None}
    if not known:
        raise NotFoundError(f"{tardis.api_url} lists none of {', '.join(spec.venues)}; give other --venues")
    venues = tuple(venue for venue, found in known.items() if found.exported_until <= day)
    return venues, len(venues) == len(known)
