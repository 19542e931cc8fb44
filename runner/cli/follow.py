"""Carrying a run out, or watching one, with its progress in view."""

from __future__ import annotations

import time

from runner.backends.local import Look
from runner.cli import here
from runner.cli.output import say
from runner.errors import Exit
from runner.ledger import RunRecord
from runner.report import run as report
from runner.runs import RunState, RunStatus, Watch, ending, verdict
from runner.spec import RunSpec
from runner.store import Store
from runner.task import Stage

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


def tell_end(code: Exit, status: RunStatus) -> None:
    """Say on stderr how a run ended and what there is to do next."""
    for text in report.failures(status):
        say(text)
    if (step := next_step(code, status)) is not None:
        say(f"next: {step}")


def next_step(code: Exit, status: RunStatus) -> str | None:
    """Return the command that takes a run further, or None when there is nothing to do."""
    if status.state is RunState.RUNNING:
        return f"runner status {status.id} -w"
    if code is Exit.DONE:
        return "runner validate with the same options" if status.id.startswith(f"{Stage.DOWNLOAD}-") else None
    if status.state in (RunState.STOPPED, RunState.CANCELLED):
        return "the same submit again goes on where this run stopped"
    if code is Exit.NOT_ALLOWED:
        return "correct the key (TARDIS_API_KEY or TARDIS_API_KEY_FILE), then the same submit again"
    return f"runner retry {status.id}"


def _last(watch: Watch, store: Store) -> RunStatus:
    status = watch.status(alive=False)
    return watch.status(alive=here.local(store).alive(status.id)) if status.state is RunState.STOPPED else status
