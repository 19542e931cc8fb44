"""Many runs, each with one worker killed at a seeded point or moment. SOAK_RUNS sets how many, SOAK_SEED which."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import Exit
from tests.e2e.crash.points import POINTS, WORKER_POINTS
from tests.e2e.world import Poller, World

RUNS = int(os.environ.get("SOAK_RUNS", "40"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
LATEST_S = 2.0


def crash_of(seed: int) -> str:
    """Return the place where the run of a seed is hit: three in four at a point, else at a moment."""
    dice = random.Random(seed)
    if dice.random() < 0.25:
        return f"time:{dice.uniform(0.3, LATEST_S):.3f}"
    point = dice.choice(WORKER_POINTS)
    return f"{point}:{dice.randint(1, POINTS[point].hits)}"


@pytest.mark.slow
@pytest.mark.timeout(30 * RUNS + 60)
def test_runs_killed_once_anywhere_are_complete_in_the_end(make_world: Callable[..., World], tmp_path: Path) -> None:
    killed, looks = 0, 0
    for seed in range(SEED, SEED + RUNS):
        at = crash_of(seed)
        folder = tmp_path / str(seed)
        world = make_world(folder)
        world.crash(at)
        with Poller(world.store) as poller:
            _, verdict = world.run()
        name = f"seed {seed}, {at}: SOAK_SEED={seed} SOAK_RUNS=1 repeats it"
        assert verdict is Exit.DONE, name
        assert world.violations(redone=world.threads) == [], name
        assert poller.faults == [], name
        assert world.mark.exists() or at.startswith("time:"), f"{name}: nobody died"
        killed += world.mark.exists()
        looks += poller.looks
        world.server.close()
        shutil.rmtree(folder)

    assert killed >= RUNS * 3 // 4
    assert looks > RUNS
