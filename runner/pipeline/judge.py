"""What is true of a day: what it lacks, by the store and the catalogue alone, whoever did what before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from runner.market.symbols import exchange_of
from runner.spec import RunSpec
from runner.stages import completeness, expected
from runner.stages.completeness import Lack
from runner.stages.expected import Day
from runner.stages.instruments import Catalogues, instrument_tables, read_instruments
from runner.store import Store
from runner.tardis.client import Tardis


def look(spec: RunSpec, store: Store, tardis: Tardis, day: date) -> Day:
    """Return what is expected of a day by the newest catalogues that can be read. Writes its table when missing."""
    return next(expected.expect_of(spec, table) for _, table in instrument_tables(store, tardis, [day], needed=()))


def is_known(store: Store, day: date, venue: str) -> bool:
    """Tell whether the store knows for good what a venue lists on a day: its catalogue is asked no more."""
    table = read_instruments(store, day)
    return table is not None and table.exported_until.get(exchange_of(venue), date.min) > day


def stored(spec: RunSpec, store: Store, day: date) -> Day | None:
    """Return what is expected of a day as the store knows it, None where it knows nothing of the day."""
    table = read_instruments(store, day)
    return None if table is None else expected.expect_of(spec, table)


def is_whole(spec: RunSpec, store: Store, tardis: Tardis, day: Day) -> bool:
    """Tell whether nothing keeps a day from being whole; a day on which nothing is listed is, if all is known of it."""
    if not day.tasks:
        return next(unknown(spec, store, tardis, day), None) is None
    return next(lacks(spec, store, tardis, day), None) is None


def lacks(spec: RunSpec, store: Store, tardis: Tardis, day: Day) -> Iterator[Lack]:
    """Yield what keeps a day from being whole: unknown venues, gaps, records that hold no more, candles behind."""
    yield from unknown(spec, store, tardis, day)
    found = list(completeness.lacks(spec, store, day))
    yield from found
    named = {(lack.venue, lack.data_type) for lack in found}
    behind = completeness.candle_lacks(store, day)
    yield from (lack for lack in behind if (lack.venue, lack.data_type) not in named)


def unknown(spec: RunSpec, store: Store, tardis: Tardis, day: Day) -> Iterator[Lack]:
    """Yield the venues that the source lists and whose catalogue it cannot show: what they offer is not known."""
    asked = {venue: exchange_of(venue) for venue in spec.venues}
    unread = {venue for venue, exchange in asked.items() if exchange not in day.table.exported_until}
    listed = Catalogues(tardis).listed() if unread else ()
    for venue in sorted(unread):
        if asked[venue] in listed:
            why = "the source lists this venue and shows no catalogue of it now"
            again = f"runner pipeline --day {day.day} --venues {venue} --store {store.url}"
            yield Lack(day.day, venue, "*", 0, "*", why, again)


def behind(spec: RunSpec, store: Store, day: date) -> Iterator[Lack]:
    """Yield the candles of a day beside that wait for nothing and are not made of the ticks as they are now."""
    if (found := stored(spec, store, day)) is not None:
        shut = {lack.venue for lack in completeness.gate(spec, store, found)}
        yield from (lack for lack in completeness.candle_lacks(store, found) if lack.venue not in shut)
