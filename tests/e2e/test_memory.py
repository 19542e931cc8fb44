"""A task that needs more memory than there is: three deaths, a cause, and the rest of its shard is done.

The converter's memory does not grow with a file, so a hook in the worker takes the memory while it reads that file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import Exit
from tests.e2e import invariants
from tests.e2e.world import World, until

GROUPS = Path("/sys/fs/cgroup/memory")
LIMIT_MIB, GREED_MIB = 400, 600
GREEDY = "trades/2024/08/08/ETHUSDT"
TASK = "download/2024-08-08/BINANCE:SPOT_PAIR:ETH-USDT"


@pytest.fixture
def limit() -> Iterator[dict[str, str]]:
    """Yield the variables that put workers below a limit of memory: a control group's, where one can be made."""
    group = GROUPS / f"runner-e2e-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(f"{LIMIT_MIB}M")
    except OSError:
        yield {}
        return
    yield {"CGROUP": str(group)}
    until(lambda: not (group / "cgroup.procs").read_text().split(), "the group is empty")
    group.rmdir()


@pytest.mark.slow
def test_a_task_that_kills_its_worker_fails_after_three_deaths_and_the_rest_is_done(
    world: World, limit: dict[str, str]
) -> None:
    world.job.update(shards=1, parallelism=1)
    world.variables.update(limit, GREEDY=f"{GREEDY}:{GREED_MIB}")

    record, verdict = world.run()

    assert verdict is Exit.INCOMPLETE
    attempts = world.attempts(record.id)
    assert [attempt.exit for attempt in attempts] == [None, None, None, 65]
    assert all(TASK in attempt.in_flight for attempt in attempts[:3])
    assert attempts[2].in_flight == (TASK,), "the third time it was not alone"
    assert world.violations(redone=3 * world.threads, failed=[(TASK, "trades"), (TASK, "quotes")]) == []
    (entry,) = [e for e in attempts[3].entries if (e.task_id, e.data_type) == (TASK, "trades")]
    assert "killed 3 times" in str(entry.facts["error"])
    assert "peak memory" in str(entry.facts["error"])
    assert f"runner retry {record.id}" in str(entry.facts["error"])
    if limit:
        assert "oom_kill 3" in (Path(limit["CGROUP"]) / "memory.oom_control").read_text()


@pytest.mark.slow
def test_a_shard_that_dies_of_every_task_is_given_up_with_a_cause_for_each(world: World) -> None:
    world.job.update(shards=1, parallelism=1)
    world.variables["GREEDY"] = "trades:1"

    ended = world.cli("submit", "download")

    assert ended.returncode == 3, ended.stderr
    (run,) = world.run_ids()
    causes = [line for line in ended.stderr.splitlines() if "killed 3 times" in line or "given up" in line]
    assert all(any(key in cause for cause in causes) for key in ("BTC-USDT", "ETH-USDT"))
    failures = json.loads(world.cli("status", run, "-o", "json").stdout)["failures"]
    assert len(failures) == 8
    assert all(failure["error"] for failure in failures)
    again = world.cli("submit", "download")
    assert again.returncode == 3, again.stderr
    assert f"runner retry {run}" in again.stderr

    del world.variables["GREEDY"]
    retried = world.cli("retry", run)

    assert retried.returncode == 0, retried.stderr
    assert invariants.contents(world.store) == world.clean
