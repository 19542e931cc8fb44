"""A process killed at every point of its way, one after the other: the run completes as if nothing had happened."""

from __future__ import annotations

import pytest

from runner.errors import Exit
from tests.e2e.crash.points import POINTS, SUBMIT_POINTS, WORKER_POINTS, CrashPoint
from tests.e2e.world import Poller, World


def test_every_point_has_its_place() -> None:
    assert set(WORKER_POINTS) | set(SUBMIT_POINTS) == set(CrashPoint) == POINTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("point", WORKER_POINTS)
def test_a_worker_killed_at_a_point_loses_and_repeats_nothing(point: CrashPoint, world: World) -> None:
    world.crash(f"{point}:{min(2, POINTS[point].hits)}")

    with Poller(world.store) as poller:
        record, verdict = world.run()

    assert world.mark.exists(), "nobody died: the point was not hit"
    died = [a.attempt for a in world.attempts(record.id) if a.exit is None]
    assert len(died) <= 1
    assert verdict is Exit.DONE
    assert world.violations(redone=world.threads) == []
    assert poller.looks > 0
    assert poller.faults == []


@pytest.mark.slow
@pytest.mark.parametrize("point", SUBMIT_POINTS)
def test_a_submit_killed_at_a_point_is_taken_up_by_the_next(point: CrashPoint, world: World) -> None:
    world.crash(f"{point}:1")
    killed = world.cli("submit", "download")
    assert killed.returncode == -9, killed.stderr
    assert world.mark.exists()

    again = world.cli("submit", "download")

    assert again.returncode == 0, again.stderr
    assert len(world.run_ids()) == 1
    assert world.violations() == []
