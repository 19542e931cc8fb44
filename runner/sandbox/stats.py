"""What a sandbox has seen, per path: the figures that tests assert. Keys are kept as hashes only."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Figures:
    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    bytes: int = 0
    bodies_completed: int = 0
    in_flight: int = 0
    concurrency_max: int = 0
    keys: set[str] = field(default_factory=set)
    egress: set[str] = field(default_factory=set)

    def document(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "bytes": self.bytes,
            "bodies_completed": self.bodies_completed,
            "in_flight": self.in_flight,
            "concurrency_max": self.concurrency_max,
            "keys": sorted(self.keys),
            "egress": sorted(self.egress),
        }


class Stats:
    """Counters of one server; `open` counts a request and returns the ticket that counts its answer."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._total = _Figures()
        self._paths: dict[str, _Figures] = {}

    def open(self, path: str, key: str | None, address: str) -> Ticket:
        """Count a request that has arrived."""
        hashed = hashlib.sha256(key.encode()).hexdigest()[:12] if key else None
        with self._mutex:
            figures = (self._total, self._paths.setdefault(path, _Figures()))
            for each in figures:
                each.requests += 1
                each.in_flight += 1
                each.concurrency_max = max(each.concurrency_max, each.in_flight)
                each.egress.add(address)
                each.keys.update([hashed] if hashed else [])
        return Ticket(self._mutex, figures)

    def document(self) -> dict[str, Any]:
        """Return `{"total": …, "paths": {path: …}}`."""
        with self._mutex:
            paths = {path: figures.document() for path, figures in sorted(self._paths.items())}
            return {"total": self._total.document(), "paths": paths}

    def reset(self) -> None:
        """Start from nothing; what is in flight is counted nowhere any more."""
        with self._mutex:
            self._total, self._paths = _Figures(), {}


class Ticket:
    """The counting of one answer.

    An answer is counted as ended just before its last bytes leave: whoever has read them sees it in the figures.
    """

    def __init__(self, mutex: threading.Lock, figures: tuple[_Figures, ...]) -> None:
        self._mutex = mutex
        self._figures = figures
        self._is_open = True

    def answer(self, status: int) -> None:
        """Count the status of the answer."""
        with self._mutex:
            for each in self._figures:
                each.statuses[status] += 1

    def sent(self, count: int) -> None:
        """Count bytes of the body."""
        with self._mutex:
            for each in self._figures:
                each.bytes += count

    def close(self, *, completed: bool = False) -> None:
        """Count the end of the answer, once."""
        with self._mutex:
            if not self._is_open:
                return
            self._is_open = False
            for each in self._figures:
                each.in_flight -= 1
                each.bodies_completed += completed

    def retract(self) -> None:
        """Take back a completed body whose last bytes did not get out."""
        with self._mutex:
            for each in self._figures:
                each.bodies_completed -= 1
