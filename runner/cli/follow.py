"""Carrying a run out, or watching one, with its progress in view."""

from __future__ import annotations

import time
from collections.abc import Callable

from runner.backends.sight import Sight
from runner.cli import here
from runner.cli.given import Given
from runner.cli.steps import leading
from runner.errors import Exit
from runner.report.live import View
from runner.run_record import RunRecord
from runner.runs import Carrier, RunStatus, Watch, ending, verdict
from runner.runs import follow as follow_run
from runner.spec import RunSpec
from runner.store import Store

_REST = 3
"""So many times as long as a look at a run took, nobody looks again."""


def carry_out(carrier: Carrier, record: RunRecord, spec: RunSpec, store: Store, given: Given) -> tuple[Exit, RunStatus]:
    """Bring a run to its end, showing how far it is; what Ctrl-C does is the carrier's. Return verdict and status."""
    watch = Watch(store, record)
    with here.stoppable() as stop, here.view(leading(given)) as view:
        here.start_logging(spec)
        code = carrier.carry_out(record, spec, stop.is_set, shown(watch, view))
    return code, watch.status(carrier.settle(record))


def follow(
    carrier: Carrier, record: RunRecord, store: Store, given: Given, *, timeout_s: float = float("inf")
) -> tuple[Exit, RunStatus]:
    """Watch a run, whoever carries it out, until nobody does. Return verdict and status; Ctrl-C ends the watching."""
    watch, deadline = Watch(store, record), time.monotonic() + timeout_s
    with here.stoppable() as stop, here.view(leading(given)) as view:
        ended = follow_run(carrier, record, lambda: stop.is_set() or time.monotonic() >= deadline, shown(watch, view))
    status = watch.status(carrier.settle(record))
    if not ended:
        return Exit.INTERRUPTED if stop.is_set() else Exit.TIMED_OUT, status
    return verdict_of(store, record), status


def verdict_of(store: Store, record: RunRecord) -> Exit:
    """Return what a run deserves; one that nobody ended has not succeeded."""
    return verdict(store, record) if ending(store, record.id) else Exit.FAILED


def shown(watch: Watch, view: View, clock: Callable[[], float] = time.monotonic) -> Callable[[Sight], None]:
    """Return a look that shows how far a run is, when it is time to.

    No more than a quarter of the time goes into looking: at a run of thousands of shards one look takes seconds.
    """
    next_s = 0.0

    def look(seen: Sight) -> None:
        nonlocal next_s
        if (now := clock()) >= next_s and view.due(now):
            view.show(watch.status(seen), now)
            ended = clock()
            next_s = ended + _REST * (ended - now)

    return look
