"""Instrument tables: which instruments are listed on a day, by the catalogues of all our exchanges, in the store.

A table is a fact about a day once all its exchanges have exported that day; before, it is provisional and gives way to
what a later catalogue says. Each exchange is judged on its own, and a settled exchange's rows are never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from runner import layout
from runner.errors import ConfigError, ConflictError, NotFoundError, PreconditionError, SourceError
from runner.market.groups import Group
from runner.market.names import GROUPS
from runner.market.symbols import VENUES, Availability, Instrument, Unparsed, is_instrument, parse_symbol
from runner.stages.instrument_file import InstrumentTable, object_metadata, read_table, table_bytes
from runner.store import ABSENT, Store
from runner.tardis.catalogue import Catalogue, parse_exchange

__all__ = [
    "CatalogueSource",
    "InstrumentTable",
    "build_table",
    "day_instruments",
    "instrument_tables",
    "read_instruments",
]

_ATTEMPTS = 5


class CatalogueSource(Protocol):
    """The part of the Tardis client that tables are made from."""

    def exchanges(self) -> list[dict[str, Any]]:
        """Return `GET /exchanges`."""
        ...

    def exchange(self, exchange: str, /) -> dict[str, Any]:
        """Return `GET /exchanges/:id`."""
        ...


def day_instruments(store: Store, tardis: CatalogueSource, day: date) -> InstrumentTable:
    """Return the day's table, as `instrument_tables` does for many days."""
    return next(table for _, table in instrument_tables(store, tardis, [day]))


def instrument_tables(
    store: Store, tardis: CatalogueSource, days: Iterable[date]
) -> Iterator[tuple[date, InstrumentTable]]:
    """Yield (day, table) of days, in order, reading each exchange's catalogue at most once.

    A table that the store lacks is built and committed if still absent; whoever loses that race gets the winner's.
    One that was written before an exchange exported the day, or before the source listed an exchange of ours, is
    swapped for one with newer rows of that exchange. Exchanges that the source does not list or does not know are left
    out. Raises what `tardis` raises when the source cannot be read, so that no partial table is ever committed, and
    ConfigError when two symbols share a key.
    """
    catalogues = _Catalogues(tardis)
    for day in days:
        yield day, _settle(store, catalogues, day)


def read_instruments(store: Store, day: date) -> InstrumentTable | None:
    """Return the day's table as the store has it, without asking the source; None when there is none.

    Raises ConflictError when the object is no such table.
    """
    return _stored(store, day)[1]


def build_table(catalogues: Iterable[Catalogue], day: date) -> InstrumentTable:
    """Return the table that catalogues give for a day, rows by key; the same catalogues give the same table.

    Raises ConfigError when two symbols listed that day share a key.
    """
    catalogues = tuple(catalogues)
    found = [row for catalogue in catalogues for row in _listed(catalogue, day)]
    rows = tuple(sorted((r for r in found if isinstance(r, Instrument)), key=lambda r: r.instrument_key))
    _refuse_collisions(rows, day)
    return InstrumentTable(
        day=day,
        rows=rows,
        exported_until={c.exchange: c.exported_days_until for c in sorted(catalogues, key=lambda c: c.exchange)},
        unparsed=tuple(sorted((r for r in found if isinstance(r, Unparsed)), key=lambda r: (r.exchange, r.symbol))),
        groups=tuple(sorted((g for c in catalogues for g in _groups(c, day)), key=lambda g: g.instrument_key)),
    )


@dataclass
class _Catalogues:
    """The catalogues of our exchanges, each asked for and parsed once."""

    tardis: CatalogueSource

    def __post_init__(self) -> None:
        self._listed: tuple[str, ...] | None = None
        self._parsed: dict[str, Catalogue | None] = {}

    def listed(self) -> tuple[str, ...]:
        """Return those of our exchanges that the source lists with day files."""
        if self._listed is None:
            answer = self.tardis.exchanges()
            ids = {item.get("id") for item in answer if item.get("supportsDatasets", True)}
            self._listed = tuple(venue.exchange for venue in VENUES if venue.exchange in ids)
        return self._listed

    def of(self, exchange: str) -> Catalogue | None:
        """Return an exchange's catalogue, None where the source lists it but does not know it."""
        if exchange not in self._parsed:
            try:
                self._parsed[exchange] = parse_exchange(self.tardis.exchange(exchange))
            except (ConfigError, NotFoundError, SourceError):
                self._parsed[exchange] = None
        return self._parsed[exchange]


def _settle(store: Store, catalogues: _Catalogues, day: date) -> InstrumentTable:
    key = layout.instruments(day)
    for _ in range(_ATTEMPTS):
        generation, stored = _stored(store, day)
        table = _newest(stored, catalogues, day)
        if table == stored:
            return table
        try:
            store.put(key, table_bytes(table), if_generation=generation, metadata=object_metadata(table))
        except PreconditionError:
            continue
        return table
    raise ConflictError(f"{key} in {store.url} changed {_ATTEMPTS} times while it was being written; run it again")


def _stored(store: Store, day: date) -> tuple[str, InstrumentTable | None]:
    key = layout.instruments(day)
    info = store.head(key)
    if info is None:
        return ABSENT, None
    try:
        return info.generation, read_table(store.get(key), f"{key} in {store.url}")
    except NotFoundError:
        return ABSENT, None


def _newest(stored: InstrumentTable | None, catalogues: _Catalogues, day: date) -> InstrumentTable:
    """Return the table of each exchange's newest facts: the stored ones where settled, else the live catalogue's."""
    kept = dict(stored.exported_until) if stored else {}
    asked = [exchange for exchange in catalogues.listed() if not day < kept.get(exchange, date.min)]
    fresh = [c for c in map(catalogues.of, asked) if c and c.exported_days_until >= kept.get(c.exchange, date.min)]
    if stored is None:
        return build_table(fresh, day)
    return stored.updated(build_table(fresh, day)) if fresh else stored


def _listed(catalogue: Catalogue, day: date) -> Iterator[Instrument | Unparsed]:
    for symbol in catalogue.symbols:
        if not symbol.offered_on(day) or not is_instrument(symbol.id, symbol.type):
            continue
        availability = Availability(symbol.available_since, symbol.available_to, symbol.data_types)
        found = parse_symbol(catalogue.exchange, symbol.id, symbol.type, availability=availability, day=day)
        if isinstance(found, Unparsed) or found.listed_on(day):
            yield found


def _groups(catalogue: Catalogue, day: date) -> Iterator[Group]:
    for symbol in catalogue.symbols:
        if symbol.id in GROUPS and symbol.offered_on(day):
            since, to = symbol.available_since, symbol.available_to
            yield Group(catalogue.exchange, symbol.id, symbol.data_types, since, to)


def _refuse_collisions(rows: Iterable[Instrument], day: date) -> None:
    rows = tuple(rows)
    key, count = Counter(row.instrument_key for row in rows).most_common(1)[0] if rows else ("", 0)
    if count > 1:
        names = " and ".join(f"{r.tardis_exchange} {r.tardis_symbol}" for r in rows if r.instrument_key == key)
        raise ConfigError(f"instruments of {day}: {names} share the key {key}; mend the symbol rules of that exchange")
