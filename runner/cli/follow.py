"""Carrying a run out, or watching one, with its progress in view."""

from __future__ import annotations

import time

from runner.backends.local import Look
from runner.cli import here
from runner.errors import Exit
from runner.ledger import RunRecord
from runner.runs import RunState, RunStatus, Watch, ending, verdict
from runner.spec import RunSpec
from runner.store import Store

_LOOK_S = 0.5


def carry_out(record: RunRecord, spec: RunSpec, store: Store) -> tuple[Exit, RunStatus]:
    """Bring a run to its end on this machine, showing how far it is; Ctrl-C drains it. Return verdict and status."""
    watch = Watch(store, record)
    with here.stoppable() as stop, here.view() as view:
        here.start_logging(spec)

        def look(_: Look) -> None:
            if view.due(now := time.monotonic()):
                view.show(watch.status(alive=True), now)

        code = here.local(store).carry_out(record, spec, stop.is_set, look)
    return code, _last(watch, store)


def follow(record: RunRecord, store: Store) -> tuple[Exit, RunStatus]:
    """Watch a run, whoever carries it out, until nobody does. Return verdict and status; Ctrl-C ends the watching."""
    watch, local = Watch(store, record), here.local(store)
    with here.stoppable() as stop, here.view() as view:
        while (status := watch.status(alive=local.alive(record.id))).state is RunState.RUNNING:
            if view.due(now := time.monotonic()):
                view.show(status, now)
            if stop.wait(_LOOK_S):
                return Exit.INTERRUPTED, status
    return verdict_of(store, record), status


def verdict_of(store: Store, record: RunRecord) -> Exit:
    """Return what a run deserves; one that nobody ended has not succeeded."""
    return verdict(store, record) if ending(store, record.id) else Exit.FAILED


def _last(watch: Watch, store: Store) -> RunStatus:
    status = watch.status(alive=False)
    return watch.status(alive=here.local(store).alive(status.id)) if status.state is RunState.STOPPED else status
