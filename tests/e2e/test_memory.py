"""A task that needs more memory than there is: three deaths, a cause, and the rest of its shard is done.

The converter's memory does not grow with a file, so a hook in the worker takes the memory while it reads that file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.errors import Exit
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
