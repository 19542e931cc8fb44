"""What commands need of this machine and this store: the handles, the runs by name, the terminal."""

from __future__ import annotations

import difflib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runner import logs, run_record
from runner.cli import given
from runner.cli.output import say
from runner.errors import NotFoundError, SpecError
from runner.report.live import Lines, Picture, View
from runner.report.run import Places, nowhere
from runner.run_record import RunRecord
from runner.runs import tardis_of
from runner.spec import RunSpec
from runner.store import Store, open_store
from runner.tardis.client import Tardis

_NAMED = 3
_DUMB = ("", "dumb", "unknown")


def open_spec_store(spec: RunSpec) -> Store:
    """Return the store of a spec."""
    return open_store(spec.store)


def open_tardis(spec: RunSpec) -> Tardis:
    """Return a client for planning, with the key of the environment."""
    return tardis_of(spec, given.key())


def find_run(store: Store, name: str | None) -> RunRecord:
    """Return a run by its id, the only beginning of one, or the newest run when no name is given.

    Raises NotFoundError, with the nearest id.
    """
    if name is None and (newest := run_record.newest_run(store)):
        return run_record.get_run(store, newest)
    return run_record.get_run(store, find_id(store, name))


def find_id(store: Store, name: str | None) -> str:
    """Return the id of a run by the only beginning of it. Raises NotFoundError, with the nearest id."""
    if name == "":
        raise SpecError("RUN is empty; give a run's id: runner list")
    ids = sorted(run_record.run_ids(store, name or ""))
    if name in ids or len(ids) == 1:
        return name if name in ids else ids[0]
    if ids:
        some = ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")
        raise SpecError(f"run {name}: {len(ids)} runs begin so ({some}); give more of the id")
    if name is None:
        raise NotFoundError(f"no runs in {store.url} yet; runner submit starts one")
    near = difflib.get_close_matches(name, run_record.run_ids(store), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise NotFoundError(f"no run {name} in {store.url}{hint}; see them all: runner list")


def view(places: Places = nowhere) -> View:
    """Return how to show progress: a picture on a terminal that can draw, else lines.

    `places` are the options of the commands that are named in it.
    """
    can_draw = (
        sys.stderr.isatty()
        and os.environ.get("TERM", "") not in _DUMB
        and (sys.stderr.encoding or "").lower().startswith("utf")
    )
    return Picture(places=places) if can_draw else Lines(say, places)


class Stop(threading.Event):
    """Set once the process is told to stop; `by` is the signal."""

    by: int = signal.SIGINT


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Yield an event that the first Ctrl-C or SIGTERM sets; a second Ctrl-C interrupts as usual."""
    stop = Stop()

    def ask(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.by = number
        # In a thread of its own: the main one may hold the event's lock at this instant.
        threading.Thread(target=stop.set, daemon=True).start()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, action in before.items():
            signal.signal(number, action)


def start_logging(spec: RunSpec) -> None:
    """Send the log of this command to stderr, whatever stands there now."""
    key = given.key()
    logs.setup(spec.log_format, spec.log_level, sys.stderr, secrets=[key] if key else [])
