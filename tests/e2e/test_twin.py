"""Two workers at one shard: a frozen one wakes when its twin has done everything."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from subprocess import Popen

import pytest

from runner.errors import Exit
from tests.e2e.crash.points import CrashPoint
from tests.e2e.invariants import path_of
from tests.e2e.world import Poller, World, until


@pytest.mark.slow
def test_a_worker_that_wakes_after_its_twin_finds_all_done_and_ends_well(world: World) -> None:
    record = world.submit().record
    assert record is not None
    first = world.plan(record)[0][0]
    held = path_of(first, "trades")
    world.hold(held)

    with Poller(world.store) as poller, world.worker(record, 0, "frozen") as frozen:
        until(world.is_held, "a body is held")
        os.kill(frozen.pid, signal.SIGSTOP)
        with world.worker(record, 0, "twin") as twin:
            assert twin.wait(60) == 0, twin.communicate()
        world.server.clear_faults()
        os.kill(frozen.pid, signal.SIGCONT)
        assert frozen.wait(60) == 0, frozen.communicate()
        assert world.carry_out(record) is Exit.DONE

    assert world.bodies[held] == 2
    assert world.violations(shared=[held]) == []
    assert poller.faults == []


FROZEN_AT = [
    CrashPoint.PLAN_GET_AFTER,
    CrashPoint.PROGRESS_INSIDE,
    CrashPoint.BODY_AFTER,
    CrashPoint.CANDLE_FIRST_INSIDE,
    CrashPoint.CANDLES_BETWEEN,
    CrashPoint.TICKS_BEFORE,
    CrashPoint.TICKS_INSIDE,
    CrashPoint.TICKS_COMMITTED,
    CrashPoint.LEDGER_INSIDE,
]


def is_frozen(process: Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"


@pytest.mark.slow
@pytest.mark.parametrize("point", FROZEN_AT)
def test_a_worker_frozen_at_a_point_yields_to_its_twin(point: CrashPoint, world: World) -> None:
    record = world.submit().record
    assert record is not None
    world.crash(f"{point}:1")
    world.variables["CRASH_HOW"] = "STOP"

    with Poller(world.store) as poller, world.worker(record, 0, "frozen") as frozen:
        until(lambda: is_frozen(frozen), f"a worker is frozen at {point}")
        with world.worker(record, 0, "twin") as twin:
            assert twin.wait(60) == 0, twin.communicate()
        os.kill(frozen.pid, signal.SIGCONT)
        assert frozen.wait(60) == 0, frozen.communicate()
        assert world.carry_out(record) is Exit.DONE

    twice = [path for path, count in world.bodies.items() if count > 1]
    assert len(twice) <= 1
    assert world.violations(shared=twice) == []
    assert poller.faults == []
