"""What the sandbox offers: told by `exchanges/{exchange}.json` in its directory, or derived from the day files there.

Derived: a symbol is available from its first day file to the day after its last one; those that reach the newest
day of their exchange are still listed (availableTo = exportedUntil). Generated days count as day files. Directories
are read anew when they change, so files may appear while the server runs.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from runner.errors import SpecError
from runner.sandbox.clock import Clock
from runner.sandbox.kinds import symbol_type
from runner.sandbox.merged import GROUPS

_SUFFIX = ".csv.gz"
# Symbols may be in any script, but none is a path or hidden.
_NAME = re.compile(r"^[^./\\\x00][^/\\\x00]*$")
_TIMES = ("availableSince", "availableTo")
_DAY = timedelta(days=1)
# A day is exported in the morning after it.
_EXPORT_DELAY = timedelta(hours=6)
# A directory changed so recently may change again within one tick of its modification time.
_RACY_NS = 2_000_000_000


@dataclass(slots=True)
class _Span:
    data_types: set[str] = field(default_factory=set)
    first: date = date.max
    last: date = date.min

    def add(self, data_types: tuple[str, ...], first: date, last: date) -> None:
        self.data_types.update(data_types)
        self.first, self.last = min(self.first, first), max(self.last, last)


@dataclass(frozen=True, slots=True)
class Offered:
    """One symbol of an exchange; days [since, until), compared whole."""

    symbol: str
    data_types: tuple[str, ...]
    since: datetime
    until: datetime


# Data type, day, names in the directory of both.
_Found = tuple[str, date, tuple[str, ...]]


class Listings:
    """Directory listings, kept for as long as the directory stays as it was."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, tuple[str, ...]]] = {}

    def names(self, path: Path) -> tuple[str, ...]:
        """Return the sorted names in a directory, nothing when there is none."""
        key = str(path)
        try:
            # Unlike the modification time, nobody can set this one back.
            changed_ns = os.stat(key).st_ctime_ns  # noqa: PTH116 -- thousands of times a request
            known = self._known.get(key)
            if known is not None and known[0] == changed_ns:
                return known[1]
            is_settled = time.time_ns() - changed_ns > _RACY_NS
            names = tuple(sorted(os.listdir(key)))  # noqa: PTH208 -- names are wanted, not paths
        except (FileNotFoundError, NotADirectoryError):
            return ()
        if is_settled:
            self._known[key] = (changed_ns, names)
        return names


@dataclass(frozen=True, slots=True)
class Days:
    """Generated days [first, last] of one exchange's symbols and data types, as the catalogue must know them."""

    exchange: str
    symbols: tuple[str, ...]
    data_types: tuple[str, ...]
    first: date
    last: date


class Catalogue:
    """Exchange documents as the API gives them."""

    def __init__(self, data: Path | None, generated: tuple[Days, ...], clock: Clock) -> None:
        if data is not None and not data.is_dir():
            raise SpecError(f"sandbox data {data}: no such directory; give one with {{exchange}}/{{data_type}}/… below")
        self.data = data
        self._generated = generated
        self._clock = clock
        self._listings = Listings()
        self._derivations: dict[str, tuple[tuple[_Found, ...], dict[str, Any]]] = {}
        self._offers: dict[str, tuple[dict[str, Any], dict[str, Offered]]] = {}
        self._documents: dict[Path, tuple[int, dict[str, Any]]] = {}

    def exchanges(self) -> list[str]:
        """Return the exchanges that this sandbox has anything of."""
        found = {days.exchange for days in self._generated}
        if self.data is not None:
            found.update(name for name in self._listings.names(self.data) if (self.data / name).is_dir())
            found.update(
                n.removesuffix(".json") for n in self._listings.names(self.data / "exchanges") if n.endswith(".json")
            )
        return sorted(name for name in found - {"exchanges", "instruments"} if _NAME.match(name))

    def exchange(self, exchange: str) -> dict[str, Any]:
        """Return the document of an exchange of `exchanges()`."""
        document = self._given(exchange) or self._derived(exchange)
        return _cap(document, self._clock.now()) if self._clock.is_set else document

    def offered(self, exchange: str) -> dict[str, Offered]:
        """Return what an exchange offers, by symbol as listed and in upper case."""
        document = self.exchange(exchange)
        known = self._offers.get(exchange)
        if known is None or known[0] is not document:
            known = self._offers[exchange] = (document, _offers(document))
        return known[1]

    def file(self, exchange: str, data_type: str, day: date, symbol: str) -> Path | None:
        """Return the path of a day file that exists."""
        if self.data is None or not all(map(_NAME.match, (exchange, data_type, symbol))):
            return None
        path = self.data / exchange / data_type / f"{day:%Y/%m/%d}" / f"{symbol}{_SUFFIX}"
        return path if path.is_file() else None

    def member_files(self, exchange: str, data_type: str, day: date, group: str) -> list[Path]:
        """Return the day files of a group's members."""
        kind, _ = GROUPS[group]
        members = (name for name in sorted(self.offered(exchange)) if symbol_type(exchange, name) == kind)
        files = (self.file(exchange, data_type, day, name) for name in members if name not in GROUPS)
        return list(dict.fromkeys(path for path in files if path is not None))

    def has_hole(self, exchange: str, data_type: str, day: date, symbol: str) -> bool:
        """Say whether a day without a file is one that should have it.

        With a derived catalogue every offered day should; with a given one only those between two that do, for a
        catalogue usually promises more than a directory of samples holds.
        """
        if self._given(exchange) is None:
            return True
        days = [found for _, found, names in self._days(exchange, [data_type]) if f"{symbol}{_SUFFIX}" in names]
        return bool(days) and min(days) <= day <= max(days)

    def _given(self, exchange: str) -> dict[str, Any] | None:
        path = self.data / "exchanges" / f"{exchange}.json" if self.data and _NAME.match(exchange) else None
        if path is None or not path.is_file():
            return None
        document = self._read(path)
        spans = self._spans(exchange, ())
        return _with_generated(document, exchange, spans) if spans else document

    def _read(self, path: Path) -> dict[str, Any]:
        stat = path.stat()
        known = self._documents.get(path)
        if known is not None and known[0] == stat.st_ctime_ns:
            return known[1]
        try:
            document: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError as error:
            raise SpecError(f"catalogue {path}: not JSON ({error}); mend or remove it") from error
        if not _is_catalogue(document):
            raise SpecError(f"catalogue {path}: not an exchange's document; give the answer of /v1/exchanges/:exchange")
        if time.time_ns() - stat.st_ctime_ns > _RACY_NS:
            self._documents[path] = (stat.st_ctime_ns, document)
        return document

    def _derived(self, exchange: str) -> dict[str, Any]:
        found = tuple(self._days(exchange, None))
        known = self._derivations.get(exchange)
        if known is None or known[0] != found:
            known = self._derivations[exchange] = (found, self._derive(exchange, found))
        return known[1]

    def _derive(self, exchange: str, found: tuple[_Found, ...]) -> dict[str, Any]:
        spans = self._spans(exchange, found)
        first = min((span.first for span in spans.values()), default=date(1970, 1, 1))
        until = max((span.last for span in spans.values()), default=first - _DAY) + _DAY
        symbols = [_symbol(exchange, symbol, span, until) for symbol, span in sorted(spans.items())]
        return {
            **summary(exchange),
            "availableSince": text(first),
            "availableSymbols": [_raw(exchange, each) for each in symbols],
            "incidentReports": [],
            "channelDetails": [],
            "datasets": {
                "formats": ["csv"],
                "exportedFrom": text(first),
                "exportedUntil": text(until),
                "stats": {"trades": 0, "bookChanges": 0},
                "symbols": symbols,
            },
        }

    def _spans(self, exchange: str, found: tuple[_Found, ...]) -> dict[str, _Span]:
        spans: dict[str, _Span] = {}
        for days in self._generated:
            for symbol in days.symbols if days.exchange == exchange else ():
                spans.setdefault(symbol, _Span()).add(days.data_types, days.first, days.last)
        for data_type, day, names in found:
            for name in names:
                if name.endswith(_SUFFIX):
                    spans.setdefault(name.removesuffix(_SUFFIX), _Span()).add((data_type,), day, day)
        return spans

    def _days(self, exchange: str, data_types: list[str] | None) -> Iterator[_Found]:
        """Yield (data type, day, names of files) for every day directory."""
        if self.data is None or not _NAME.match(exchange):
            return
        names = self._listings.names
        for data_type in data_types or names(self.data / exchange):
            root = self.data / exchange / data_type
            for year in names(root):
                for month in names(root / year):
                    for day in names(root / year / month):
                        found = read_day(year, month, day)
                        if found is not None:
                            yield data_type, found, names(root / year / month / day)


def _offers(document: Mapping[str, Any]) -> dict[str, Offered]:
    datasets = document.get("datasets") or {}
    until = instant(datasets.get("exportedUntil")) or datetime.max.replace(tzinfo=UTC)
    offers = {
        item["id"]: Offered(
            item["id"],
            tuple(item.get("dataTypes", ())),
            instant(item.get("availableSince")) or datetime.min.replace(tzinfo=UTC),
            min(until, instant(item.get("availableTo")) or until),
        )
        for item in datasets.get("symbols", ())
    }
    # Clients ask in upper case, also for what a venue writes with small letters (Deribit's strike 0d5).
    return {symbol.upper(): offered for symbol, offered in offers.items()} | offers


def read_day(year: str, month: str, day: str) -> date | None:
    """Return the date of three path segments, None when they are not one in the form 2024, 08, 09."""
    if (len(year), len(month), len(day)) != (4, 2, 2) or not (year + month + day).isascii():
        return None
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def text(day: date) -> str:
    """Return midnight of a day as the API writes it."""
    return f"{day:%Y-%m-%d}T00:00:00.000Z" if day.year > 999 else f"{day.year:04}-{day:%m-%d}T00:00:00.000Z"  # noqa: PLR2004 -- strftime does not pad


def instant(value: str | None) -> datetime | None:
    """Return an API time as an aware UTC datetime, None for none."""
    if not value:
        return None
    found = datetime.fromisoformat(value)
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


@cache
def _shipped() -> Mapping[str, dict[str, Any]]:
    document = json.loads(files("runner.sandbox").joinpath("data/exchanges.json").read_bytes())
    return {item["id"]: item for item in document}


def known_exchanges() -> list[str]:
    """Return the ids of every exchange the source knows, also those this sandbox has nothing of."""
    return list(_shipped())


def summary(exchange: str) -> dict[str, Any]:
    """Return what the source says of an exchange in its list of them."""
    plain = {"id": exchange, "name": exchange, "enabled": True, "supportsDatasets": True, "availableChannels": []}
    return {**plain, **_shipped().get(exchange, {})}


def _symbol(exchange: str, symbol: str, span: _Span, until: date) -> dict[str, Any]:
    return {
        "id": symbol,
        "type": symbol_type(exchange, symbol),
        "dataTypes": sorted(span.data_types),
        "availableSince": text(span.first),
        "availableTo": text(min(until, span.last + _DAY)),
    }


def _raw(exchange: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a symbol as the raw feed names it, without data types."""
    symbol = item["id"].lower() if exchange.startswith("binance") else item["id"]
    return {**{name: value for name, value in item.items() if name != "dataTypes"}, "id": symbol}


def _is_catalogue(document: Any) -> bool:
    """Say whether a given document has the shape that requests rely on."""
    try:
        datasets = document.get("datasets", {})
        symbols = datasets.get("symbols", [])
        times = [datasets.get("exportedUntil"), *(item.get(name) for item in symbols for name in _TIMES)]
        return all(isinstance(item["id"], str) for item in symbols) and not [t for t in times if t and not instant(t)]
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _with_generated(document: dict[str, Any], exchange: str, spans: Mapping[str, _Span]) -> dict[str, Any]:
    """Add generated symbols that a given document does not list; what it does list stays as it says."""
    datasets = document.get("datasets", {})
    symbols = datasets.get("symbols", [])
    listed = {item["id"] for item in symbols}
    added = [_symbol(exchange, name, span, date.max) for name, span in spans.items() if name not in listed]
    return {**document, "datasets": {**datasets, "symbols": [*symbols, *added]}}


def _cap(document: dict[str, Any], now: datetime) -> dict[str, Any]:
    """Return a document as it was at `now`: nothing exported later, and no symbol that begins later."""
    datasets = document.get("datasets") or {}
    cap = (now - _EXPORT_DELAY).replace(hour=0, minute=0, second=0, microsecond=0)
    until = instant(datasets.get("exportedUntil"))
    if until is None or until <= cap:
        return document
    symbols = [
        {**item, "availableTo": text(cap)} if (instant(item.get("availableTo")) or until) > cap else item
        for item in datasets.get("symbols", ())
        if (instant(item.get("availableSince")) or cap) <= cap
    ]
    return {**document, "datasets": {**datasets, "exportedUntil": text(cap), "symbols": symbols}}
