"""Whether the source has exported a day of the venues asked for."""

from __future__ import annotations

from datetime import date

from runner.errors import NotFoundError, TransientError
from runner.market.symbols import exchange_of
from runner.spec import RunSpec
from runner.stages.instruments import Catalogues
from runner.tardis.client import Tardis


def newest(spec: RunSpec, tardis: Tardis) -> date | None:
    """Return the first day that no venue asked for has exported, None while the source cannot say."""
    try:
        return max(exported_until for exported_until in _exports(spec, tardis).values())
    except TransientError:
        return None


def late(spec: RunSpec, tardis: Tardis, day: date) -> tuple[tuple[str, ...], bool]:
    """Return the venues whose day is not exported yet, and whether that is all of them; those unknown do not count.

    Raises NotFoundError when the source lists none of them.
    """
    known = _exports(spec, tardis)
    venues = tuple(venue for venue, exported_until in known.items() if exported_until <= day)
    return venues, len(venues) == len(known)


def _exports(spec: RunSpec, tardis: Tardis) -> dict[str, date]:
    catalogues = Catalogues(tardis)
    listed = {venue: exchange for venue in spec.venues if (exchange := exchange_of(venue)) in catalogues.listed()}
    known = {venue: found for venue, exchange in listed.items() if (found := catalogues.of(exchange)) is not None}
    if not known:
        raise NotFoundError(f"{tardis.api_url} lists none of {', '.join(spec.venues)}; give other --venues")
    return {venue: found.exported_until for venue, found in known.items()}
