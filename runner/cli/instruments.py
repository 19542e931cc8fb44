"""`instruments list|show|changes`: the store's instrument tables. Asks the source nothing, writes nothing."""

from __future__ import annotations

import difflib
import shlex
from datetime import date
from typing import Annotated

import typer

from runner import layout
from runner.cli import here
from runner.cli.given import WHERE, Given, takes
from runner.cli.output import Output, say, show
from runner.cli.steps import places
from runner.errors import Exit, NotFoundError, SpecError
from runner.market.symbols import exchange_of, selects
from runner.report import instruments as report
from runner.report.instruments import Listed, Named
from runner.spec import RunSpec
from runner.spec.values import day as read_day
from runner.spec.values import shown
from runner.stages import expected
from runner.stages.instruments import InstrumentTable, read_instruments
from runner.store import Store

_SHOWN = 3
_SELECTION = ("venues", "instrumentTypes", "instruments", "maxInstruments")
Key = Annotated[str, typer.Argument(metavar="KEY", help="An instrument as VENUE:TYPE:SYMBOL.", show_default=False)]
Day = Annotated[
    str | None,
    typer.Option("--day", metavar="DATE", help="A UTC day. Default: the newest with a table.", show_default=False),
]


@takes(*_SELECTION, *WHERE)
def list_instruments(*, day: Day = None, output: Output = "table", given: Given) -> int:
    """List the instruments of a day that a request would take, and apart: grouped files, symbols without a key."""
    spec = given.spec()
    found = _listed(spec, _table(here.open_spec_store(spec), _day(day), given))
    if not (found.rows or found.groups or found.unparsed):
        asked = [*spec.instruments, *spec.instrument_types] or ["every instrument"]
        raise NotFoundError(f"nothing matches: {', '.join(asked)} on {', '.join(spec.venues)} on {found.day}")
    listed: tuple[Named, ...] = (*found.rows, *found.groups)
    names = (each.instrument_key for each in listed)
    show(output, report.document(found), table=report.screen(found), names=names)
    if output != "table" and found.unparsed:
        say(f"{len(found.unparsed)} symbols of these venues have no key; see them: -o table, or `unparsed` of -o json")
    return Exit.DONE


@takes(*WHERE)
def show_instrument(key: Key, *, day: Day = None, output: Output = "table", given: Given) -> int:
    """Show every column of an instrument or group on a day: its symbols, dates and units.

    KEY may be a selector, such as a symbol of Tardis, that means one of them alone.
    """
    table = _table(here.open_spec_store(given.spec()), _day(day), given)
    named = {each.instrument_key: each for each in _named(table)}
    meant = [each for each in named.values() if selects(key, each)]
    found = named.get(key.upper(), meant[0] if len(meant) == 1 else None)
    if found is None and meant:
        some = ", ".join(each.instrument_key for each in meant[:_SHOWN]) + (", …" if len(meant) > _SHOWN else "")
        raise SpecError(f"{shown(key)} means {len(meant)} instruments on {table.day}: {some}; give the key of one")
    if found is None:
        near = difflib.get_close_matches(key.upper(), named, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise NotFoundError(f"{shown(key)} is not listed on {table.day}{hint}; see: runner instruments list")
    document = {"kind": "Instrument", "day": str(table.day), "instrument": report.details(found)}
    show(output, document, table=report.details_screen(found), names=[found.instrument_key])
    return Exit.DONE


@takes("startDate", "endDate", *_SELECTION[:-1], *WHERE)
def changes_of_instruments(*, output: Output = "table", given: Given) -> int:
    """Show what was listed, delisted or changed from --start-date to --end-date, by the tables of these two days."""
    spec = given.spec()
    if spec.start_date is None or spec.end_date is None:
        raise SpecError("changes are between two days; give --start-date and --end-date")
    store = here.open_spec_store(spec)
    every = spec.model_copy(update={"max_instruments": None})  # the first few of two days are not the same ones
    tables = [_table(store, day, given) for day in (spec.start_date, spec.end_date)]
    listed = [_listed(every, table) for table in tables]
    # A group is meant on both days by what is meant of it on either.
    groups = {group.instrument_key for each in listed for group in each.groups}
    before, after = (
        tuple[Named, ...]((*each.rows, *(group for group in table.groups if group.instrument_key in groups)))
        for each, table in zip(listed, tables, strict=True)
    )
    if not before and not after:
        raise NotFoundError(f"nothing matches on {', '.join(spec.venues)} on either day; give other selectors")
    found = list(report.changes(before, after))
    document = report.changes_document(str(spec.start_date), str(spec.end_date), found)
    show(output, document, table=report.changes_screen(found), names=dict.fromkeys(each.key for each in found))
    if not found:
        say(f"nothing changed from {spec.start_date} to {spec.end_date}")
    return Exit.DONE


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else read_day(text)
    except ValueError as e:
        raise SpecError(f"flag --day {shown(text)}: {e}") from e


def _table(store: Store, day: date | None, given: Given) -> InstrumentTable:
    """Return the table of a day, or the newest. Raises NotFoundError with the command that makes it."""
    if day is None:
        days = [name for info in store.list(layout.instruments_prefix()) if (name := layout.day_of(info.key))]
        day = date.fromisoformat(max(days)) if days else None
    if day is not None and (table := read_instruments(store, day)) is not None:
        return table
    which = "any day" if day is None else str(day)
    dates = [] if day is None else ["--start-date", str(day), "--end-date", str(day)]
    command = shlex.join(["runner", "submit", "instruments", *dates, *places(given, "submit")])
    raise NotFoundError(f"{store.url} has no instrument table of {which} yet; make it: {command}")


def _listed(spec: RunSpec, table: InstrumentTable) -> Listed:
    exchanges = {exchange_of(venue) for venue in spec.venues}
    rows = tuple(expected.selected(spec, table.rows))
    groups = tuple(expected.selected_groups(spec, table.groups, rows))
    # A symbol without a key matches no selector but that of its venue.
    narrow = spec.instruments or spec.instrument_types
    unparsed = [each for each in table.unparsed if each.exchange in exchanges and not narrow]
    return Listed(str(table.day), rows, groups, unparsed)


def _named(table: InstrumentTable) -> tuple[Named, ...]:
    return (*table.rows, *table.groups)
