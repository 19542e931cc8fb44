"""Instrument tables for eyes and programs: what is listed on a day, all of one instrument, what two days differ in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from runner.market.groups import Group
from runner.market.symbols import Instrument, Unparsed
from runner.report.tables import table

Named = Instrument | Group

_COLUMNS = tuple(field.name for field in fields(Instrument) if field.name != "source")
_OF_GROUPS = ("instrument_key", "tardis_exchange", "tardis_symbol", "data_types", "available_from", "available_to")


@dataclass(frozen=True, slots=True)
class Listed:
    """What a selection finds in a day's table: instruments, grouped files, and symbols that have no key."""

    day: str
    rows: Sequence[Instrument]
    groups: Sequence[Group]
    unparsed: Sequence[Unparsed]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a key: `listed`, `delisted`, or `changed` in one column from a value to another."""

    key: str
    what: str
    column: str = ""
    before: object = None
    after: object = None


def columns(named: Named) -> dict[str, object]:
    """Return every column of an instrument or group, as it stands in the table; times and lists as text would be."""
    names = _COLUMNS if isinstance(named, Instrument) else _OF_GROUPS
    return {name: _plain(getattr(named, name)) for name in names}


def document(found: Listed) -> dict[str, Any]:
    """Return a listing; its instruments have the columns of instruments.parquet."""
    return {
        "kind": "InstrumentList",
        "day": found.day,
        "instruments": [columns(row) for row in found.rows],
        "groups": [columns(group) for group in found.groups],
        "unparsed": [
            {"exchange": each.exchange, "symbol": each.symbol, "type": each.symbol_type, "reason": each.reason}
            for each in found.unparsed
        ],
    }


def screen(found: Listed) -> str:
    """Return a listing as a table of instruments, then one of groups and one of symbols without a key, if any."""
    parts = []
    if found.rows:
        head = ("INSTRUMENT", "TARDIS SYMBOL", "FIRST DAY", "UNTIL", "DATA TYPES")
        parts.append(table(head, (_row(row, row.listed_from, row.listed_to) for row in found.rows)))
    if found.groups:
        head = ("GROUPED FILE", "TARDIS SYMBOL", "FIRST DAY", "UNTIL", "DATA TYPES")
        parts.append(table(head, (_row(g, g.available_from.date(), g.available_to) for g in found.groups)))
    if found.unparsed:
        rows = ((f"{each.exchange} {each.symbol}", each.symbol_type, each.reason) for each in found.unparsed)
        parts.append(table(("WITHOUT A KEY", "TYPE", "REASON"), rows))
    return "\n\n".join(parts)


def details(named: Named) -> dict[str, object]:
    """Return every column, the whole days of the listing (the end exclusive), and what amounts are counted in."""
    if isinstance(named, Group):
        return columns(named)
    days = {"listed_from": str(named.listed_from), "listed_to": named.listed_to and str(named.listed_to)}
    return {**columns(named), **days, "amounts_are_in": units(named)}


def units(row: Instrument) -> str:
    """Return what an instrument's amounts count.

    >>> from datetime import UTC
    >>> from runner.market.symbols import Availability, parse_symbol
    >>> listed = Availability(datetime(2020, 1, 1, tzinfo=UTC))
    >>> day = datetime(2024, 8, 8).date()
    >>> for exchange, symbol in (("okex-swap", "BTC-USDT-SWAP"), ("deribit", "BTC-PERPETUAL")):
    ...     print(units(parse_symbol(exchange, symbol, "perpetual", availability=listed, day=day)))
    contracts of 0.01 BTC
    USD
    """
    if row.amount_unit == "base":
        return row.base_asset
    if row.amount_unit == "quote":
        return row.quote_asset
    asset = row.quote_asset if row.inverse else row.base_asset
    return f"contracts of {'unknown size in' if row.contract_size is None else f'{row.contract_size:g}'} {asset}"


def details_screen(named: Named) -> str:
    """Return every column of an instrument or group, one a line."""
    rows = ((name, _cell(value)) for name, value in details(named).items())
    return table(("COLUMN", "VALUE"), rows)


def changes(before: Sequence[Named], after: Sequence[Named]) -> Iterator[Change]:
    """Yield what differs between two days, by key, then column."""
    old, new = ({named.instrument_key: columns(named) for named in side} for side in (before, after))
    for key in sorted({*old, *new}):
        if key not in old:
            yield Change(key, "listed")
        elif key not in new:
            yield Change(key, "delisted")
        else:
            yield from _differences(key, old[key], new[key])


def changes_document(first: str, last: str, found: Sequence[Change]) -> dict[str, Any]:
    """Return what differs between two days."""
    changed = (each for each in found if each.what == "changed")
    return {
        "kind": "InstrumentChanges",
        "days": [first, last],
        "listed": [each.key for each in found if each.what == "listed"],
        "delisted": [each.key for each in found if each.what == "delisted"],
        "changed": [{"key": e.key, "column": e.column, "before": e.before, "after": e.after} for e in changed],
    }


def changes_screen(found: Sequence[Change]) -> str:
    """Return what differs between two days, one a line."""
    cells = ((e.key, e.what, e.column, *_both(e)) for e in found)
    return table(("INSTRUMENT", "WHAT", "COLUMN", "BEFORE", "AFTER"), cells) if found else ""


def _both(change: Change) -> tuple[str, str]:
    return (_cell(change.before), _cell(change.after)) if change.what == "changed" else ("", "")


def _differences(key: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[Change]:
    for column in old:
        if old[column] != new[column]:
            yield Change(key, "changed", column, old[column], new[column])


def _row(named: Named, since: object, to: object) -> tuple[object, ...]:
    until = "-" if to is None else to.date() if isinstance(to, datetime) else to
    return (named.instrument_key, named.tardis_symbol, str(since), str(until), " ".join(named.data_types))


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
