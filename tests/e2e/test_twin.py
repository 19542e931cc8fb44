"""Two workers at one shard: a frozen one wakes when its twin has done everything."""

from __future__ import annotations

import os
import signal

import pytest

from runner.errors import Exit
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


@pytest.mark.slow
def test_a_worker_frozen_between_candles_and_ticks_yields_to_its_twin(world: World) -> None:
    record = world.submit().record
    assert record is not None
    first = world.plan(record)[0][0]
    candle = world.folder / "store/processed_candles/by_date" / f"day-{first.day}" / "timeframe-15s"

    with world.worker(record, 0, "frozen") as frozen:
        until(lambda: list(candle.glob("*.parquet")), "the first candles are there")
        os.kill(frozen.pid, signal.SIGSTOP)
        with world.worker(record, 0, "twin") as twin:
            assert twin.wait(60) == 0, twin.communicate()
        os.kill(frozen.pid, signal.SIGCONT)
        assert frozen.wait(60) == 0, frozen.communicate()
        assert world.carry_out(record) is Exit.DONE

    assert world.violations(shared=[path_of(first, "trades"), path_of(first, "quotes")]) == []
