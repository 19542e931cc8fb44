"""The sandbox GCS: buckets behind the JSON API on a loopback port, with control.

>>> with serve(Options(buckets=("ours",))) as server:
...     server.stats()["total"]["requests"]
0

Point Google's client at it with `STORAGE_EMULATOR_HOST`. Not here: XML, compose and rewrite, versions, notifications.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.errors import SpecError
from runner.sandbox.clock import Clock
from runner.sandbox.faults import OF_STORES, Faults
from runner.sandbox.gcs_api import PAGE, Api
from runner.sandbox.gcs_objects import Objects
from runner.sandbox.gcs_uploads import Uploads
from runner.sandbox.running import Running
from runner.sandbox.server import App, Control

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


class Server(Running):
    """A running sandbox GCS."""

    def __init__(self, options: Options) -> None:
        if options.page_size < 1:
            raise SpecError(f"sandbox: page-size is {options.page_size}; give a whole number from 1")
        clock = Clock()
        objects = Objects(clock, options.data, options.buckets)
        uploads = Uploads(objects)
        faults = Faults(OF_STORES)
        api = Api(objects, uploads, options.page_size, faults.denies)
        super().__init__(options.host, Control(clock, faults=faults, on_reset=(uploads.reset,)))
        app = App(
            self._state,
            api.answer,
            api.label,
            lambda peer, _claimed: peer,
            early=_EARLY,
            part=uploads.part,
            commits=api.commits,
        )
        self._listen(options.port, app)
        self._start()

    @property
    def url(self) -> str:
        """Return the value of STORAGE_EMULATOR_HOST."""
        return self.origin


def serve(options: Options) -> Server:
    """Start a sandbox GCS and return it running; close it, or use it in a `with`."""
    return Server(options)
