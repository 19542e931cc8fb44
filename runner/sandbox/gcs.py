"""The sandbox GCS: buckets behind the JSON API on a loopback port, with control.

>>> with serve(Options(buckets=("ours",))) as server:
...     server.stats()["total"]["requests"]
0

Point Google's client at it with `STORAGE_EMULATOR_HOST`. Not here: XML, compose and rewrite, versions, notifications.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runner.errors import SpecError
from runner.sandbox.clock import Clock
from runner.sandbox.faults import OF_STORES, Faults
from runner.sandbox.gcs_api import PAGE, Api
from runner.sandbox.gcs_objects import Objects
from runner.sandbox.gcs_uploads import Uploads
from runner.sandbox.server import App, Control, Port

_EARLY = frozenset({"status", "reset", "deny_after"})


@dataclass(frozen=True, slots=True)
class Options:
    """What a sandbox GCS serves: buckets that exist from the start, in memory or in the directory `data`.

    A page of a list has at most `page_size` objects. Port 0 is any free one.
    """

    buckets: tuple[str, ...] = ()
    data: Path | None = None
    host: str = "127.0.0.1"
    port: int = 0
    page_size: int = PAGE


class Server:
    """A running sandbox GCS; a context manager that leaves no thread and no socket."""

    def __init__(self, options: Options) -> None:
        if options.page_size < 1:
            raise SpecError(f"sandbox: page-size is {options.page_size}; give a whole number from 1")
        clock = Clock()
        objects = Objects(clock, options.data, options.buckets)
        uploads = Uploads(objects)
        faults = Faults(OF_STORES)
        api = Api(objects, uploads, options.page_size, faults.denies)
        self._state = Control(clock, faults=faults, on_reset=(uploads.reset,))
        app = App(
            self._state,
            api.answer,
            api.label,
            lambda peer, _claimed: peer,
            early=_EARLY,
            part=uploads.part,
            commits=api.commits,
        )
        self._port = Port(options.host, options.port, app)
        self._host = options.host
        self._closed = threading.Event()
        self._port.start()

    @property
    def port(self) -> int:
        """Return the port."""
        return self._port.number

    @property
    def url(self) -> str:
        """Return `http://host:port`, the value of STORAGE_EMULATOR_HOST."""
        return f"http://{self._host}:{self.port}"

    @property
    def control(self) -> str:
        """Return the base of the control requests."""
        return f"{self.url}/__sandbox"

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
        """End every connection and thread; again is nothing."""
        if not self._closed.is_set():
            self._closed.set()
            self._port.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(options: Options) -> Server:
    """Start a sandbox GCS and return it running; close it, or use it in a `with`."""
    return Server(options)
