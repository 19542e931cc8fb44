"""A worker that is told to stop says what it did and what it was at, in time."""

from __future__ import annotations

import os
import signal
import time

import pytest

from runner.errors import Exit
from tests.e2e.invariants import path_of
from tests.e2e.world import World, until


@pytest.mark.slow
def test_a_worker_told_to_stop_leaves_its_ledger_within_ten_seconds(world: World) -> None:
    record = world.submit().record
    assert record is not None
    first, second = world.plan(record)[0]
    world.hold(path_of(second, "trades"))

    with world.worker(record, 0, "preempted") as worker:
        until(world.is_held, "a body is held")
        told = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(15) == 143, worker.communicate()
        assert time.monotonic() - told < 11

    (attempt,) = world.attempts(record.id)
    assert attempt.exit == 143
    assert attempt.preempted
    assert attempt.in_flight == (second.id,)
    assert {(e.task_id, e.data_type, e.outcome.value) for e in attempt.entries} == {
        (first.id, "trades", "done"),
        (first.id, "quotes", "done"),
    }
    world.server.clear_faults()
    assert world.carry_out(record) is Exit.DONE
    assert world.violations(redone=1) == []


@pytest.mark.slow
def test_preemptions_again_and_again_do_not_end_a_run(world: World) -> None:
    """A worker whose machine goes away is started again without limit, as long as there is something done."""
    world.job["retry"] = {"limit": 0}
    record = world.submit().record
    assert record is not None
    told: list[int] = []

    def preempt() -> bool:
        """Send SIGTERM, from within the supervisor's loop, to each new worker that has begun, four times."""
        begun = {a.attempt for a in world.attempts(record.id) if a.exit is None}
        fresh = [pid for pid in world.workers() if pid not in told] if begun and len(told) < 4 else []
        for pid in fresh[:1]:
            os.kill(pid, signal.SIGTERM)
            told.append(pid)
        return False

    assert world.carry_out(record, preempt) is Exit.DONE
    assert told
    assert world.violations(redone=len(told) * world.threads) == []
