"""Answers made to fill a worker's memory: refused in a line, and the worker stays as small as without them."""

from __future__ import annotations

import pytest

from runner.errors import Exit
from tests.e2e.world import World

TRADES = ("download/{}/BINANCE:SPOT_PAIR:{}-USDT", "/v1/binance/trades/{}/{}USDT.csv.gz")
KINDS = {
    ("2024-08-08", "BTC"): "gzip_bomb",
    ("2024-08-09", "BTC"): "long_line",
    ("2024-08-08", "ETH"): "blank_lines",
    ("2024-08-09", "ETH"): "many_columns",
}
MB = 1024 * 1024


def peak_bytes(world: World, run: str) -> int:
    return max(attempt.counts.peak_bytes for attempt in world.attempts(run))


@pytest.mark.slow
def test_bombs_fail_their_tasks_alone_in_bounded_memory(world: World) -> None:
    world.job.update(shards=1, parallelism=1, tardis={"attempts": 2})
    bad = {day_key: TRADES[1].format(day_key[0].replace("-", "/"), day_key[1]) for day_key in KINDS}
    for day_key, kind in KINDS.items():
        world.server.add_faults({"path": bad[day_key], "fault": "corrupt", "kind": kind})

    bombed, verdict = world.run()

    assert verdict is Exit.INCOMPLETE
    failed = [(TRADES[0].format(*day_key), "trades") for day_key in KINDS]
    assert world.violations(shared=bad.values(), failed=failed) == []
    (attempt,) = world.attempts(bombed.id)
    errors = [str(entry.facts["error"]) for entry in attempt.entries if entry.outcome == "failed"]
    assert len(errors) == len(KINDS)
    assert not [error for error in errors if not error.startswith("binance trades ") or "\n" in error]

    world.server.clear_faults()
    world.job.update(select="all")
    clean, verdict = world.run()
    assert verdict is Exit.DONE
    assert peak_bytes(world, bombed.id) < peak_bytes(world, clean.id) + 100 * MB
