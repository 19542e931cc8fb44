"""Generated days: the specification, and the files made from it on first demand, kept on disk.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from runner.errors import SpecError
from runner.sandbox.catalogue import Days
from runner.sandbox.rows import VERSION, WRITERS, day_chunks
from runner.sandbox.walk import Day

_REQUIRED = frozenset({"exchange", "symbols", "days"})
_FIELDS = _REQUIRED | {"data_types", "rows_per_day", "seed"}
_DATA_TYPES = ("trades", "quotes", "book_snapshot_5")
_ROWS_PER_DAY = 200_000
_DAYS_LISTED_MAX = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a specification; `offered` is what the catalogue must know of it."""

    offered: Days
    rows_per_day: int
    seed: int


class Generated:
    """Day files made on first demand."""

    def __init__(self, entries: tuple[Entry, ...], cache: Path, closing: threading.Event) -> None:
        self._entries = entries
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
                return self._made(Day(exchange, symbol, data_type, day, entry.rows_per_day, entry.seed))
        return None

    def _made(self, day: Day) -> Path:
        name = hashlib.sha256(f"{VERSION} {day}".encode()).hexdigest()[:32]
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
                        for chunk in day_chunks(day):
                            file.write(chunk)
                            if self._closing.is_set():
                                raise BrokenPipeError(f"sandbox closed while it generated {day}")
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
    return tuple(_read(item) for item in items)


def _read(item: Mapping[str, Any]) -> Entry:
    unknown, absent = sorted(item.keys() - _FIELDS), sorted(_REQUIRED - item.keys())
    if unknown or absent:
        fault = f"unknown field {unknown[0]}" if unknown else f"no {absent[0]}"
        raise SpecError(f"generate: {fault}; the fields are {', '.join(sorted(_FIELDS))}")
    data_types = _texts(item, "data_types", list(_DATA_TYPES))
    strange = [name for name in data_types if name not in WRITERS]
    if strange:
        raise SpecError(f"generate: cannot generate {strange[0]!r}; give some of {', '.join(WRITERS)}")
    exchange = item["exchange"]
    if not isinstance(exchange, str) or not exchange:
        raise SpecError(f"generate: exchange is {exchange!r}; give one id such as binance")
    first, last = _days(item["days"])
    offered = Days(exchange, _texts(item, "symbols", []), data_types, first, last)
    return Entry(offered, _whole(item, "rows_per_day", _ROWS_PER_DAY), _whole(item, "seed", 0))


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
