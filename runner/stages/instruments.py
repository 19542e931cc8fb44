"""Stage instruments: which instruments are listed on a day, by the catalogues of all our exchanges, as a table.

A table is a fact about a day once all its exchanges have exported that day; before, it is provisional and gives way to
what a later catalogue says. Each exchange is judged on its own, and a settled exchange's rows are never changed, unless
a run of the stage selects all: then what the live catalogues list is made anew.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Any, Protocol

from runner import layout
from runner.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    PreconditionError,
    RunnerError,
    SourceError,
    TransientError,
)
from runner.market.groups import Group
from runner.market.names import GROUPS
from runner.market.reference import contract_terms
from runner.market.symbols import VENUES, Availability, Instrument, Unparsed, is_instrument, parse_symbol
from runner.stages.commit import Mode
from runner.stages.instrument_file import InstrumentTable, object_metadata, read_table, table_bytes, told_of_exports
from runner.store import ABSENT, Store
from runner.tardis.catalogue import Catalogue, ListedSymbol, parse_exchange
from runner.task import Entry, Outcome, Task

if TYPE_CHECKING:
    from runner.stages.tools import Tools

__all__ = [
    "CatalogueSource",
    "Catalogues",
    "InstrumentTable",
    "day_instruments",
    "exported_until",
    "instrument_tables",
    "read_instruments",
    "run",
    "table_of",
]

_ATTEMPTS = 5

log = logging.getLogger(__name__)


class CatalogueSource(Protocol):
    """The part of the Tardis client that tables are made from."""

    def exchanges(self) -> list[dict[str, Any]]:
        """Return `GET /exchanges`."""
        ...

    def exchange(self, exchange: str, /) -> dict[str, Any]:
        """Return `GET /exchanges/:id`."""
        ...


def run(task: Task, data_type: str, tools: Tools) -> Entry:
    """Write the table of a day, or refresh what is provisional in it; where all is selected, make it anew."""
    before = tools.store.head(layout.instruments(task.day))
    table = table_of(tools.store, tools.catalogues, task.day, anew=tools.mode is Mode.REPLACE)
    after = tools.store.head(layout.instruments(task.day))
    facts = {"rows": len(table.rows), "groups": len(table.groups), "unparsed": len(table.unparsed)}
    provisional = any(until <= task.day for until in table.exported_until.values())
    return Entry(task.id, data_type, Outcome.DONE, {**facts, "provisional": provisional, "written": before != after})


def day_instruments(store: Store, tardis: CatalogueSource, day: date) -> InstrumentTable:
    """Return the day's table, as `instrument_tables` does for many days."""
    return next(table for _, table in instrument_tables(store, tardis, [day]))


def instrument_tables(
    store: Store, tardis: CatalogueSource, days: Iterable[date], needed: Collection[str] | None = None
) -> Iterator[tuple[date, InstrumentTable]]:
    """Yield (day, table) of days, in order, reading each exchange's catalogue at most once.

    A table that the store lacks is built and committed if still absent; whoever loses that race gets the winner's.
    One that was written before an exchange exported the day, or before the source listed an exchange of ours, is
    swapped for one with newer rows of that exchange. Exchanges that the source does not list are left out, and so are
    those that are not `needed` and cannot be read now, or are refused: the table says of which exchanges it was made,
    and whoever needs another adds it. Raises what `tardis` raises when a needed one (None: any) cannot be read, and
    ConfigError when two symbols of a needed one share a key.
    """
    catalogues = Catalogues(tardis, needed)
    for day in days:
        yield day, table_of(store, catalogues, day)


def read_instruments(store: Store, day: date) -> InstrumentTable | None:
    """Return the day's table as the store has it, without asking the source; None when there is none.

    Raises ConflictError when the object is no such table.
    """
    return _stored(store, day)[1]


def exported_until(store: Store, day: date) -> Mapping[str, date]:
    """Return the first day that each exchange had not exported when the day's table was written; none without one."""
    info = store.head(layout.instruments(day))
    return told_of_exports(info.metadata) if info else {}


class Catalogues:
    """The catalogues of our exchanges, each asked for and parsed once, whatever the threads that want it.

    Those of the exchanges `needed` (None: all) must be readable; `unread` has the others that were not.
    """

    def __init__(self, tardis: CatalogueSource, needed: Collection[str] | None = None) -> None:
        self._tardis, self._needed = tardis, needed
        self.unread: dict[str, RunnerError] = {}
        self._lock = threading.RLock()
        self._listed: tuple[str, ...] | None = None
        self._read: dict[str, _Exchange | None] = {}

    def listed(self) -> tuple[str, ...]:
        """Return those of our exchanges that the source lists with day files."""
        with self._lock:
            if self._listed is None:
                answer = self._tardis.exchanges()
                ids = {str(item.get("id")) for item in answer if item.get("supportsDatasets", True)}
                self._listed = tuple(venue.exchange for venue in VENUES if venue.exchange in ids)
            return self._listed

    def needs(self, exchange: str) -> bool:
        """Tell whether nothing can be done without an exchange."""
        return self._needed is None or exchange in self._needed

    def of(self, exchange: str) -> _Exchange | None:
        """Return what an exchange lists, None where the source lists it and cannot say: it refuses to, or fails.

        Raises what the source raises where it fails and the exchange is needed, and where it refuses one that is needed
        by name.
        """
        with self._lock:
            if exchange not in self._read:
                try:
                    self._read[exchange] = _Exchange(parse_exchange(self._tardis.exchange(exchange)))
                except (ConfigError, NotFoundError, SourceError) as e:
                    # Without one that was asked for, all of its files would be missing and nobody would be told.
                    if self._needed is not None and exchange in self._needed:
                        way_out = f"what {exchange} lists is not known without it: leave it out of --venues, or wait"
                        raise type(e)(f"{e}; {way_out}") from e
                    self.unread[exchange], self._read[exchange] = e, None
                except TransientError as e:
                    if self.needs(exchange):
                        raise
                    self.unread[exchange], self._read[exchange] = e, None
            return self._read[exchange]


class _Exchange:
    """What an exchange lists on any day, each symbol parsed once and not once a day: instruments are shared by days."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.name, self.exported_until = catalogue.exchange, catalogue.exported_days_until
        self._symbols = [s for s in catalogue.symbols if is_instrument(s.id, s.type)]
        self._grouped = [s for s in catalogue.symbols if s.id in GROUPS]
        self._parsed: dict[int, list[tuple[int, int, Instrument | Unparsed]]] = {}

    def listed(self, day: date) -> list[Instrument | Unparsed]:
        """Return the instruments listed on a day, and the symbols offered then that have no key."""
        number, terms = day.toordinal(), contract_terms(day)
        if terms not in self._parsed:
            self._parsed[terms] = [self._parse(symbol, day) for symbol in self._symbols]
        found = (found for first, last, found in self._parsed[terms] if first <= number < last)
        return _once(found)

    def groups(self, day: date) -> Iterator[Group]:
        """Yield the grouped files offered on a day."""
        for symbol in self._grouped:
            if symbol.offered_on(day):
                since, to = symbol.available_since, symbol.available_to
                yield Group(self.name, symbol.id, symbol.data_types, since, to)

    def _parse(self, symbol: ListedSymbol, day: date) -> tuple[int, int, Instrument | Unparsed]:
        """Return what a symbol is under the contract sizes of a day, with the ordinals [first, last) of its days."""
        availability = Availability(symbol.available_since, symbol.available_to, symbol.data_types)
        found = parse_symbol(self.name, symbol.id, symbol.type, availability=availability, day=day)
        of = symbol if isinstance(found, Unparsed) else found
        return of.listed_from.toordinal(), (of.listed_to or date.max).toordinal(), found


def table_of(store: Store, catalogues: Catalogues, day: date, *, anew: bool = False) -> InstrumentTable:
    """Return the table of a day, as `instrument_tables` does.

    `anew` takes everything from the live catalogues, settled or not; exchanges that the source lists no more, or no
    longer knows, keep their rows.
    """
    key = layout.instruments(day)
    for _ in range(_ATTEMPTS):
        generation, stored = _stored(store, day, anew=anew)
        table = _newest(stored, catalogues, day, anew=anew)
        if table == stored:
            return table
        try:
            store.put(key, table_bytes(table), if_generation=generation, metadata=object_metadata(table))
        except PreconditionError:
            continue
        return table
    raise TransientError(f"{key} in {store.url} changed {_ATTEMPTS} times while it was being written; run it again")


def _stored(store: Store, day: date, *, anew: bool = False) -> tuple[str, InstrumentTable | None]:
    """Return the table that is there, with its generation; no table where it is made `anew` and cannot be read."""
    key = layout.instruments(day)
    info = store.head(key)
    if info is None:
        return ABSENT, None
    try:
        return info.generation, read_table(store.get(key), f"{key} in {store.url}", day)
    except NotFoundError:
        return ABSENT, None
    except ConflictError as e:
        if not anew:
            raise ConflictError(f"{e} --store {store.url}") from e
        return info.generation, None


def _newest(stored: InstrumentTable | None, catalogues: Catalogues, day: date, *, anew: bool) -> InstrumentTable:
    """Return the table of each exchange's newest facts: the stored ones where settled, else the live catalogue's."""
    kept = dict(stored.exported_until) if stored and not anew else {}
    asked = [exchange for exchange in catalogues.listed() if not day < kept.get(exchange, date.min)]
    known = [e for e in map(catalogues.of, asked) if e and e.exported_until >= kept.get(e.name, date.min)]
    fresh = [exchange for exchange in known if _can_be_told(exchange, catalogues, day)]
    if stored is None:
        return _build(fresh, day)
    return stored.updated(_build(fresh, day)) if fresh else stored


def _build(exchanges: Sequence[_Exchange], day: date) -> InstrumentTable:
    """Return the table that exchanges give for a day, rows by key; the same catalogues give the same table."""
    found = [row for exchange in exchanges for row in exchange.listed(day)]
    rows = tuple(sorted((r for r in found if isinstance(r, Instrument)), key=lambda r: r.instrument_key))
    return InstrumentTable(
        day=day,
        rows=rows,
        exported_until={e.name: e.exported_until for e in sorted(exchanges, key=lambda e: e.name)},
        unparsed=tuple(sorted((r for r in found if isinstance(r, Unparsed)), key=lambda r: (r.exchange, r.symbol))),
        groups=tuple(sorted((g for e in exchanges for g in e.groups(day)), key=lambda g: g.instrument_key)),
    )


def _can_be_told(exchange: _Exchange, catalogues: Catalogues, day: date) -> bool:
    """Tell whether each key of an exchange is one symbol that day.

    Raises ConfigError where it is not and the exchange is needed; the others do without it.
    """
    rows = [row for row in exchange.listed(day) if isinstance(row, Instrument)]
    key, count = Counter(row.instrument_key for row in rows).most_common(1)[0] if rows else ("", 0)
    if count <= 1:
        return True
    names = " and ".join(f"{r.tardis_exchange} {r.tardis_symbol}" for r in rows if r.instrument_key == key)
    why = f"instruments of {day}: {names} share the key {key}; mend the symbol rules of that exchange"
    if catalogues.needs(exchange.name):
        raise ConfigError(why)
    log.warning("%s; the table is made without it", why)
    return False


def _once(found: Iterable[Instrument | Unparsed]) -> list[Instrument | Unparsed]:
    """Return each symbol once: one that was delisted and listed again that day is there from the first to the last."""
    by_symbol: dict[tuple[str, str], Instrument | Unparsed] = {}
    for each in found:
        symbol = each.tardis_symbol if isinstance(each, Instrument) else each.symbol
        known = by_symbol.setdefault((type(each).__name__, symbol), each)
        if known is not each and isinstance(each, Instrument) and isinstance(known, Instrument):
            by_symbol[type(each).__name__, symbol] = _joined(known, each)
    return list(by_symbol.values())


def _joined(one: Instrument, other: Instrument) -> Instrument:
    ends = (one.available_to, other.available_to)
    return replace(
        one,
        available_from=min(one.available_from, other.available_from),
        available_to=None if None in ends else max(end for end in ends if end is not None),
        data_types=tuple(dict.fromkeys((*one.data_types, *other.data_types))),
    )
