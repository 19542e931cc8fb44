"""A sandbox at work: its ports from the start to the end, what it has seen, the faults it is told to commit."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from runner.sandbox.server import App, Control, Port


class Running:
    """The life of a server, whatever it serves; a context manager that leaves no thread and no socket."""

    def __init__(self, host: str, control: Control) -> None:
        self._host = host
        self._state = control
        self._ports: list[Port] = []
        self._closed = threading.Event()
        self._ends = ExitStack()

    def _listen(self, number: int, app: App) -> Port:
        """Take a port; `_start` begins to accept. What was taken before is given back when this one cannot be had."""
        try:
            port = Port(self._host, number, app)
        except BaseException:
            self.close()
            raise
        self._ends.callback(port.close)
        self._ports.append(port)
        return port

    def _start(self) -> None:
        for port in self._ports:
            port.start()

    @property
    def port(self) -> int:
        """Return the port of control and of all that clients ask for first."""
        return self._ports[-1].number

    @property
    def origin(self) -> str:
        """Return `http://host:port`."""
        return f"http://{self._host}:{self.port}"

    @property
    def control(self) -> str:
        """Return the base of the control requests."""
        return f"{self.origin}/__sandbox"

    def stats(self) -> dict[str, Any]:
        """Return what `GET /__sandbox/stats` does."""
        return self._state.stats.document()

    def add_faults(self, *faults: Mapping[str, Any]) -> None:
        """Do what `POST /__sandbox/faults` does."""
        self._state.faults.add([dict(fault) for fault in faults])

    def clear_faults(self) -> None:
        """Do what `DELETE /__sandbox/faults` does."""
        self._state.faults.clear()

    def close(self) -> None:
        """End every connection and thread, then what else was begun; again is nothing."""
        self._closed.set()
        self._ends.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
