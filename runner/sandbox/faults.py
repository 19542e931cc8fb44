"""Faults: what a server is told to do wrong, on which paths, how often. `wire` carries them out on the socket."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from runner.errors import SpecError
from runner.sandbox.corrupt import CORRUPTIONS

FRAMINGS = ("content-length", "chunked", "close")

_COMMON = {"path", "fault", "count", "probability", "seed"}
# The fields each fault takes beside the common ones.
_FIELDS: Mapping[str, frozenset[str]] = {
    "status": frozenset({"code", "headers", "body"}),
    "reset": frozenset({"at"}),
    "stall": frozenset({"at"}),
    "slow": frozenset({"bytes_per_s"}),
    "hold": frozenset({"at"}),
    "cut": frozenset({"at", "framing"}),
    "corrupt": frozenset({"kind"}),
    "redirect": frozenset(),
    "commit_then_503": frozenset({"code", "headers", "body"}),
    "deny_after": frozenset({"after", "body"}),
}
OF_SOURCES = frozenset({"status", "reset", "stall", "slow", "hold", "cut", "corrupt", "redirect"})
"""The faults of a server that only gives."""

OF_STORES = frozenset({"status", "reset", "stall", "slow", "hold", "cut", "commit_then_503", "deny_after"})
"""The faults of a server that also takes."""

NAMES = frozenset(_FIELDS)
# These spoil the body of a 200; the others replace any answer.
_OF_BODIES = frozenset({"stall", "slow", "hold", "cut", "corrupt", "redirect"})


@dataclass(slots=True, eq=False)
class Fault:
    """One fault; `cleared` is set when it is taken away while it still acts on somebody."""

    path: str
    fault: str
    code: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    at: float | None = None
    framing: str = "content-length"
    bytes_per_s: float = 1024.0
    kind: str = "gzip_trailer"
    after: int = 0
    count: int | None = None
    probability: float = 1.0
    seed: int = 0
    hits: int = 0
    passed: int = 0
    cleared: threading.Event = field(default_factory=threading.Event)
    dice: random.Random = field(default_factory=random.Random)

    def strikes(self, path: str, *, has_body: bool) -> bool:
        """Decide whether this fault takes a request, and count it if so."""
        if self.is_spent or (self.fault in _OF_BODIES and not has_body) or not fnmatchcase(path, self.path):
            return False
        if self.probability < 1 and self.dice.random() >= self.probability:
            return False
        if self.passed < self.after:
            self.passed += 1
            return False
        self.hits += 1
        return True

    @property
    def is_spent(self) -> bool:
        """Whether it has struck as often as it may."""
        return self.count is not None and self.hits >= self.count

    @property
    def is_due(self) -> bool:
        """Whether the next request on its path is struck, its dice apart."""
        return not self.is_spent and self.passed >= self.after

    def document(self) -> dict[str, Any]:
        """Return the fault as it was given, with its hits."""
        names = ["path", "fault", *sorted(_FIELDS[self.fault]), "count", "probability", "seed", "hits"]
        return {name: getattr(self, name) for name in names}


class Faults:
    """The faults of one server, newest first; `known` are the names that it can carry out."""

    def __init__(self, known: frozenset[str] = OF_SOURCES) -> None:
        self._known = known
        self._mutex = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, document: Any) -> None:
        """Put a list of faults before those already there; raise SpecError and add none if one is wrong."""
        items = document if isinstance(document, list) else [document]
        faults = [_read(item, self._known) for item in items]
        with self._mutex:
            self._faults[:0] = faults

    def take(self, path: str, *, has_body: bool, names: Collection[str] = _FIELDS) -> Fault | None:
        """Return the first fault of these names that strikes a request; `has_body` tells whether its answer has one."""
        with self._mutex:
            mine = (fault for fault in self._faults if fault.fault in names)
            return next((fault for fault in mine if fault.strikes(path, has_body=has_body)), None)

    def denies(self, path: str) -> bool:
        """Tell whether a permission has been withdrawn by now from all that a path stands for; strikes nothing."""
        with self._mutex:
            return any(f.fault == "deny_after" and f.is_due and fnmatchcase(path, f.path) for f in self._faults)

    def clear(self) -> None:
        """Take all faults away; a held body goes on, a slow one speeds up, a stalled one ends."""
        with self._mutex:
            for fault in self._faults:
                fault.cleared.set()
            self._faults.clear()

    def document(self) -> list[dict[str, Any]]:
        """Return the faults in force."""
        with self._mutex:
            return [fault.document() for fault in self._faults]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_headers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(text, str | int) and "\n" not in str(text) for text in value.values()
    )


_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "path": (lambda value: isinstance(value, str) and value != "", "a glob on the path"),
    "code": (lambda value: _is_whole(value) and 200 <= value <= 599, "a status from 200 to 599"),  # noqa: PLR2004 -- HTTP
    "headers": (_are_headers, "an object of header names and values"),
    "body": (lambda value: isinstance(value, str | dict | list), "text, or a JSON value to send"),
    "at": (lambda value: _is_number(value) and 0 <= value <= 1, "a share of the body from 0 to 1"),
    "framing": (lambda value: value in FRAMINGS, f"one of {', '.join(FRAMINGS)}"),
    "bytes_per_s": (lambda value: _is_number(value) and value > 0, "a positive number"),
    "kind": (lambda value: value in CORRUPTIONS, f"one of {', '.join(CORRUPTIONS)}"),
    "after": (lambda value: _is_whole(value) and value >= 0, "how many requests are let through first"),
    "count": (lambda value: value is None or (_is_whole(value) and value > 0), "a whole number from 1, or null"),
    "probability": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
    "seed": (_is_whole, "a whole number"),
}


def _read(item: Any, known_names: frozenset[str]) -> Fault:
    if not isinstance(item, dict):
        raise SpecError(f"fault {item!r}: not an object; give e.g. {{'path': '*/trades/*', 'fault': 'reset'}}")
    name = item.get("fault")
    if not isinstance(name, str) or name not in known_names:
        known = ", ".join(known for known in _FIELDS if known in known_names)
        raise SpecError(f"unknown fault {name!r}; this server knows {known}")
    unknown = sorted(map(str, item.keys() - _COMMON - _FIELDS[name]))
    if unknown:
        known = ", ".join(sorted(_COMMON | _FIELDS[name]))
        raise SpecError(f"fault {name}: unknown field {', '.join(unknown)}; it takes {known}")
    if "path" not in item:
        raise SpecError(f"fault {name}: no path; give a glob such as */trades/2024/08/08/*, or *")
    for key in item.keys() - {"fault"}:
        check, wanted = _CHECKS[key]
        if not check(item[key]):
            raise SpecError(f"fault {name}: {key} is {item[key]!r}; give {wanted}")
    return Fault(**item, dice=random.Random(item.get("seed", 0)))  # noqa: S311 -- repeatable, not secret
