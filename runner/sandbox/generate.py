"""Generated days: the specification, and the files made from it on first demand, kept on disk.

Grouped files are made as well: of the day files of their members, generated or in the directory.

A specification is a JSON object or a list of them:
`{"exchange": "binance", "symbols": ["BTCUSDT"], "data_types": ["trades"], "days": ["2024-08-01", "2024-08-31"],
"rows_per_day": 200000, "seed": 7}`; `days` is the first and the last one (one date is one day). Same specification,
same bytes. Length and checksum are sent before the first byte, so a day is written whole before it is served.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from runner.errors import SpecError
from runner.sandbox.catalogue import Days
from runner.sandbox.chain import Option, chain_chunks, members
from runner.sandbox.kinds import symbol_type
from runner.sandbox.merged import GROUPS, merged_chunks
from runner.sandbox.rows import VERSION, WRITERS, day_chunks
from runner.sandbox.walk import Day

MemberFiles = Callable[[str, str, date, str], Sequence[Path]]
"""Finds the day files of a group's members in the directory: exchange, data type, day, group."""

_CHAIN = "options_chain"
_OPTIONS = "OPTIONS"
# What the source has of single options.
_OPTION_FILES = frozenset({"trades", "incremental_book_L2", "quotes", "book_snapshot_5", "book_snapshot_25"})
_REQUIRED = frozenset({"exchange", "symbols", "days"})
_FIELDS = _REQUIRED | {"data_types", "rows_per_day", "seed"}
_DATA_TYPES = ("trades", "quotes", "book_snapshot_5")
_ROWS_PER_DAY = 200_000
_DAYS_LISTED_MAX = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """Symbols of a specification that are alike; `offered` is what the catalogue must know of them.

    `members` are those whose rows a grouped file has.
    """

    offered: Days
    rows_per_day: int
    seed: int
    members: tuple[str, ...] = ()


class Generated:
    """Day files made on first demand."""

    def __init__(
        self, entries: tuple[Entry, ...], cache: Path, closing: threading.Event, files: MemberFiles | None = None
    ) -> None:
        self._entries = entries
        self._files = files
        self._cache = cache
        self._closing = closing
        self._mutex = threading.Lock()
        self._busy: dict[Path, threading.Lock] = {}

    def path(self, exchange: str, data_type: str, day: date, symbol: str) -> Path | None:
        """Return the file of a generated day, making it if need be; None when this day is not generated."""
        for entry in self._entries:
            offered = entry.offered
            is_here = offered.exchange == exchange and symbol in offered.symbols and data_type in offered.data_types
            if is_here and offered.first <= day <= offered.last:
                return self._entry_file(entry, Day(exchange, symbol, data_type, day, entry.rows_per_day, entry.seed))
        if self._files is not None and symbol in GROUPS and (paths := self._files(exchange, data_type, day, symbol)):
            return self._merged(paths)
        return None

    def _entry_file(self, entry: Entry, day: Day) -> Path:
        if day.symbol not in GROUPS:
            return self._made(f"{day}", lambda: day_chunks(day))
        if day.data_type == _CHAIN:
            return self._made(f"{day} {entry.members}", lambda: chain_chunks(day, entry.members))
        # What members have no files of, their group has as many rows of as one symbol of another type.
        rows = max(1, day.rows // max(1, len(entry.members)))
        own = [self.path(day.exchange, day.data_type, day.day, name) for name in entry.members]
        made = (replace(day, symbol=name, rows=rows) for name in entry.members)
        return self._merged([file or self._entry_file(entry, one) for file, one in zip(own, made, strict=True)])

    def _merged(self, paths: Sequence[Path]) -> Path:
        name = " ".join(f"{path} {path.stat().st_ctime_ns} {path.stat().st_size}" for path in paths)
        return self._made(name, lambda: merged_chunks(paths))

    def _made(self, identity: str, chunks: Callable[[], Iterator[bytes]]) -> Path:
        name = hashlib.sha256(f"{VERSION} {identity}".encode()).hexdigest()[:32]
        path = self._cache / f"{name}.csv.gz"
        with self._mutex:
            busy = self._busy.setdefault(path, threading.Lock())
        with busy:
            if not path.exists():
                self._cache.mkdir(parents=True, exist_ok=True)
                # Another process may share the cache.
                scratch = path.with_name(f"{name}.{os.getpid()}.part")
                try:
                    with scratch.open("wb") as file:
                        for chunk in chunks():
                            file.write(chunk)
                            if self._closing.is_set():
                                raise BrokenPipeError(f"sandbox closed while it generated {identity[:120]}")
                    scratch.replace(path)
                finally:
                    scratch.unlink(missing_ok=True)
        return path


def read_spec(source: Path | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> tuple[Entry, ...]:
    """Return the entries of a specification; raise SpecError that names what is wrong."""
    if source is None:
        return ()
    document: Any = source
    if isinstance(source, Path):
        try:
            document = json.loads(source.read_bytes())
        except OSError as error:
            raise SpecError(f"generate {source}: {error.strerror}; give a readable JSON file") from error
        except ValueError as error:
            raise SpecError(f"generate {source}: not JSON ({error}); mend it") from error
    items = [document] if isinstance(document, Mapping) else document
    if not isinstance(items, Sequence) or isinstance(items, str) or not all(isinstance(i, Mapping) for i in items):
        raise SpecError("generate: not an object or a list of them; see the fields exchange, symbols, days")
    return tuple(entry for item in items for entry in _read(item))


def _read(item: Mapping[str, Any]) -> Iterator[Entry]:
    unknown, absent = sorted(item.keys() - _FIELDS), sorted(_REQUIRED - item.keys())
    if unknown or absent:
        fault = f"unknown field {unknown[0]}" if unknown else f"no {absent[0]}"
        raise SpecError(f"generate: {fault}; the fields are {', '.join(sorted(_FIELDS))}")
    data_types = _texts(item, "data_types", list(_DATA_TYPES))
    strange = [name for name in data_types if name not in WRITERS and name != _CHAIN]
    if strange:
        raise SpecError(f"generate: cannot generate {strange[0]!r}; give some of {', '.join((*WRITERS, _CHAIN))}")
    exchange = item["exchange"]
    if not isinstance(exchange, str) or not exchange:
        raise SpecError(f"generate: exchange is {exchange!r}; give one id such as binance")
    first, last = _days(item["days"])
    offered = Days(exchange, _texts(item, "symbols", []), data_types, first, last)
    yield from _entries(Entry(offered, _whole(item, "rows_per_day", _ROWS_PER_DAY), _whole(item, "seed", 0)))


def _entries(asked: Entry) -> Iterator[Entry]:
    """Yield an entry's symbols with their own files, its groups, and options for the group that names none.

    An options chain is a grouped file: with options alone it comes with their group.
    """
    offered = asked.offered
    single = tuple(symbol for symbol in offered.symbols if symbol not in GROUPS)
    types = tuple(name for name in offered.data_types if name != _CHAIN)
    yield replace(asked, offered=replace(offered, symbols=single, data_types=types))
    options = tuple(symbol for symbol in single if symbol_type(offered.exchange, symbol) == GROUPS[_OPTIONS][0])
    groups = [symbol for symbol in offered.symbols if symbol in GROUPS]
    if options and _CHAIN in offered.data_types and _OPTIONS not in groups:
        groups.append(_OPTIONS)
    for group in groups:
        kind, grouped = GROUPS[group]
        found = tuple(symbol for symbol in single if symbol_type(offered.exchange, symbol) == kind)
        if group == _OPTIONS and not found:
            found = members(offered.exchange, offered.first, offered.last)
            yield from _listed(asked, found, tuple(name for name in types if name in _OPTION_FILES))
        here = tuple(name for name in offered.data_types if name in grouped)
        yield replace(asked, offered=replace(offered, symbols=(group,), data_types=here), members=found)


def _listed(asked: Entry, options: Sequence[str], types: tuple[str, ...]) -> Iterator[Entry]:
    """Yield an entry of each option that lives on the days asked for, to its expiry."""
    for symbol in options:
        option = Option.read(symbol)
        last = asked.offered.last if option is None else min(asked.offered.last, option.expiry)
        offered = replace(asked.offered, symbols=(symbol,), data_types=types, last=last)
        yield replace(asked, offered=offered)


def _texts(item: Mapping[str, Any], name: str, default: list[str]) -> tuple[str, ...]:
    values = item.get(name, default)
    if not isinstance(values, list | tuple) or not values or not all(isinstance(v, str) and v for v in values):
        raise SpecError(f"generate: {name} is {values!r}; give a list of names")
    return tuple(values)


def _whole(item: Mapping[str, Any], name: str, default: int) -> int:
    value = item.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SpecError(f"generate: {name} is {value!r}; give a whole number from 0")
    return value


def _days(values: Any) -> tuple[date, date]:
    texts = values if isinstance(values, list | tuple) else [values]
    try:
        days = [date.fromisoformat(text) for text in texts]
    except (TypeError, ValueError) as error:
        raise SpecError(f"generate: days is {values!r}; give the first and the last day as 2024-08-01") from error
    if not 1 <= len(days) <= _DAYS_LISTED_MAX or days[0] > days[-1]:
        raise SpecError(f"generate: days is {values!r}; give the first day and the last, in this order")
    return days[0], days[-1]
