"""What a request expects, catalogue by selection, as tasks: planning and validation share it and cannot disagree."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from itertools import groupby

from runner.errors import NotFoundError
from runner.market.groups import Group
from runner.market.names import OPTIONS_CHAIN
from runner.market.symbols import INSTRUMENT_TYPES, Instrument, exchange_of, selects, unmatched
from runner.spec import RunSpec
from runner.stages.instruments import InstrumentTable, instrument_tables
from runner.store import Store
from runner.tardis.catalogue import parse_exchange
from runner.tardis.client import Tardis
from runner.task import Stage, Task

_KEPT = 1 << 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Day:
    """The expectation of one day: its instrument table, and the download tasks that a request selects."""

    day: date
    table: InstrumentTable
    tasks: tuple[Task, ...]


def days_of(spec: RunSpec, tardis: Tardis) -> tuple[date, ...]:
    """Return the days of a request, both ends included.

    Without dates: the newest day exported of all those venues of the request that the source lists.
    Raises NotFoundError when it lists none of them.
    """
    if spec.start_date is None:
        listed = {str(item.get("id")) for item in tardis.exchanges()}
        asked = [exchange for exchange in map(exchange_of, spec.venues) if exchange in listed]
        if not asked:
            raise NotFoundError(f"{tardis.api_url} lists none of {', '.join(spec.venues)}; give other --venues")
        return (min(parse_exchange(tardis.exchange(e)).exported_days_until for e in asked) - timedelta(days=1),)
    last = spec.end_date or spec.start_date
    return tuple(spec.start_date + timedelta(days=n) for n in range((last - spec.start_date).days + 1))


def exchanges_of(spec: RunSpec) -> frozenset[str]:
    """Return the exchanges of a request's venues: it cannot do without their catalogues, and can without the others'.

    >>> sorted(exchanges_of(RunSpec(venues=("OKX", "BINANCE"))))
    ['binance', 'okex']
    """
    return frozenset(map(exchange_of, spec.venues))


def expect(spec: RunSpec, store: Store, tardis: Tardis, days: Iterable[date]) -> Iterator[Day]:
    """Yield what is expected of each day. Writes a day's instrument table when it is missing."""
    for _, table in instrument_tables(store, tardis, days, exchanges_of(spec)):
        yield expect_of(spec, table)


def expect_of(spec: RunSpec, table: InstrumentTable) -> Day:
    """Return what is expected of the day of an instrument table."""
    rows = tuple(selected(spec, table.rows))
    taken = {group.instrument_key for group in selected_groups(spec, table.groups, rows)}
    grouped = (task for task in group_tasks(table, spec.data_types) if task.key in taken)
    return Day(table.day, table, (*tasks_of(rows, spec.data_types, table.day), *grouped))


def selected_groups(spec: RunSpec, groups: Iterable[Group], rows: Sequence[Instrument]) -> Iterator[Group]:
    """Yield the groups that the request means, by their own name or by that of a member among the selected `rows`."""
    return (group for group in groups if _takes(spec, group, rows))


def selected(spec: RunSpec, rows: Iterable[Instrument]) -> Iterator[Instrument]:
    """Yield the instruments that the request's venues, types and selectors take, by key."""
    venues, types = set(spec.venues), set(spec.instrument_types)
    taken = (
        row
        for row in sorted(rows, key=lambda row: row.instrument_key)
        if row.venue in venues
        and (not types or row.instrument_type in types)
        and (not spec.instruments or _named(spec.instruments, row))
    )
    for _, group in groupby(taken, key=lambda row: row.venue):
        yield from (row for n, row in enumerate(group) if spec.max_instruments is None or n < spec.max_instruments)


def _takes(spec: RunSpec, group: Group, rows: Iterable[Instrument]) -> bool:
    """Tell whether a request means a group: by its venue and type, and by the group's name or that of any member."""
    if group.venue not in spec.venues or (spec.instrument_types and group.instrument_type not in spec.instrument_types):
        return False
    named = not spec.instruments or _named(spec.instruments, group)
    return named or any((row.venue, row.instrument_type) == (group.venue, group.instrument_type) for row in rows)


def group_tasks(table: InstrumentTable, data_types: Iterable[str]) -> Iterator[Task]:
    """Yield a download task for each group that offers data types which no member offers that day, with those.

    Where a member offers a type, the members' own files hold the rows of the group's.
    """
    if not table.groups:
        return
    members = {(row.venue, row.instrument_type, row.data_types) for row in table.rows}
    own = {(venue, kind, data_type) for venue, kind, offered in members for data_type in offered}
    wanted = tuple(data_types)
    for group in table.groups:
        held = {data_type for venue, kind, data_type in own if (venue, kind) == (group.venue, group.instrument_type)}
        if types := tuple(t for t in wanted if t in group.data_types and t not in held):
            parts = underlyings(table, group) if OPTIONS_CHAIN in types else ()
            yield Task(Stage.DOWNLOAD, table.day, group.instrument_key, types, group.source, parts=parts)


def underlyings(table: InstrumentTable, group: Group) -> tuple[str, ...]:
    """Return the underlyings of which the group has a member that day, sorted: what its file is split by."""
    here = (group.venue, group.instrument_type)
    found = {row.underlying for row in table.rows if (row.venue, row.instrument_type) == here and row.underlying}
    return tuple(sorted(found))


def offered(table: InstrumentTable, data_type: str, venue: str) -> Iterator[Task]:
    """Yield the download task of everything of a venue that offers a data type that day, whatever is requested."""
    yield from tasks_of((row for row in table.rows if row.venue == venue), (data_type,), table.day)
    yield from (task for task in group_tasks(table, (data_type,)) if task.key.startswith(f"{venue}:"))


def tasks_of(rows: Iterable[Instrument], data_types: Iterable[str], day: date) -> Iterator[Task]:
    """Yield a download task for each instrument that offers any of the data types, with those it offers."""
    wanted = tuple(data_types)
    for row in rows:
        if types := _common(wanted, row.data_types):
            yield Task(Stage.DOWNLOAD, day, row.instrument_key, types, row.source)


def _every(spec: RunSpec, days: Iterable[Day]) -> Iterator[Instrument | Group]:
    """Yield each instrument and group of the request's venues and types that is listed on any of the days, once."""
    venues, kinds, seen = set(spec.venues), set(spec.instrument_types or INSTRUMENT_TYPES), set[str]()
    for day in days:
        named: tuple[Instrument | Group, ...] = (*day.table.rows, *day.table.groups)
        for each in named:
            if each.venue in venues and each.instrument_type in kinds and each.instrument_key not in seen:
                seen.add(each.instrument_key)
                yield each


@lru_cache(maxsize=_KEPT)
def _named(selectors: tuple[str, ...], named: Instrument | Group) -> bool:
    """Tell whether any of the selectors means an instrument or group, worked out once and not once a day."""
    return any(selects(selector, named) for selector in selectors)


@lru_cache(maxsize=_KEPT)
def _common(wanted: tuple[str, ...], offered: tuple[str, ...]) -> tuple[str, ...]:
    """Return those wanted that are offered: one object for all tasks, of which there may be millions."""
    return tuple(data_type for data_type in wanted if data_type in offered)


def venue_tasks(day: Day, spec: RunSpec) -> Iterator[Task]:
    """Yield a validate task for each venue of the request that lists any instrument or group that day."""
    listed = {row.venue for row in day.table.rows} | {group.venue for group in day.table.groups}
    for venue in spec.venues:
        if venue in listed:
            yield Task(Stage.VALIDATE, day.day, venue, spec.data_types)


def refuse_nothing(spec: RunSpec, days: Sequence[Day], *, may_lose: bool = False) -> None:
    """Raise NotFoundError when the request, or one of its selectors, matches no instrument on any of its days.

    Venues without any are warned of. Of selectors a request that is made every day `may_lose` some, as instruments are
    delisted: these are warned of too, and so are those of a pipeline's step.
    """
    found = {task.key.split(":", 1)[0] for day in days for task in day.tasks}
    if not found:
        asked = [*spec.instruments, *spec.instrument_types] or ["every instrument"]
        raise NotFoundError(
            f"nothing matches: {', '.join(asked)} on {', '.join(spec.venues)} with {', '.join(spec.data_types)} "
            f"from {spec.start_date} to {spec.end_date or spec.start_date}; see `runner plan` with fewer selectors"
        )
    lost = unmatched(spec.instruments, _every(spec, days))
    if lost and not may_lose and spec.parent is None:
        raise NotFoundError(
            f"nothing matches {', '.join(lost)} from {days[0].day} to {days[-1].day}; what is listed: "
            f"runner instruments list --day {days[-1].day} --store {spec.store}"
        )
    if lost:
        log.warning("nothing matches %s on %s", ", ".join(lost), days[-1].day)
    if without := [venue for venue in spec.venues if venue not in found]:
        log.warning("nothing is expected of %s: no instrument there matches the request", ", ".join(without))
