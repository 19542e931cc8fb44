"""A pipeline as a user starts it: killed for good at what it was doing, started twice at once, stopped, asked again."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from datetime import date

import pytest

from runner import layout, run_record
from runner.runs import ending
from tests.e2e.world import DAYS, World, until

DAY = DAYS[0]
PIPELINE = ("pipeline", "--day", DAY)
STAGES = {"pipeline": 1, "instruments": 1, "availability": 2, "download": 1, "candles": 1, "validate": 2}
PATIENCE_S = 280.0


@pytest.fixture
def day(world: World) -> World:
    world.job = {"venues": ["BINANCE"], "dataTypes": ["trades"], "shards": 1, "parallelism": 1}
    return world


def run(world: World, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, which takes a worker's start for each step."""
    with world.command(*words) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wrong(world: World) -> list[str]:
    """Return what is lost, done twice or left behind after the pipeline of the day."""
    ids = list(run_record.run_ids(world.store))
    stages = Counter(run.split("-")[0] for run in ids)
    bodies = {path: count for path, count in world.bodies.items() if count != 1}
    key = layout.completeness(date.fromisoformat(DAY), "BINANCE")
    return [
        *([f"runs: {stages}"] if stages != STAGES else []),
        *(f"not ended: {run}" for run in ids if ending(world.store, run) is None),
        *(f"served {count} times: {path}" for path, count in bodies.items()),
        *([f"not there: {key}"] if world.store.head(key) is None else []),
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", ["record_before:4", "ending_before:8"])
def test_killed_it_is_taken_up_by_the_next(day: World, point: str) -> None:
    day.crash(point)
    killed = run(day, *PIPELINE)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert day.mark.exists()

    again = run(day, *PIPELINE)

    assert again.returncode == 0, again.stderr
    assert wrong(day) == []
    third = run(day, *PIPELINE)
    assert third.returncode == 0
    assert "nothing to do" in third.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twice_at_once_and_one_told_to_stop_every_run_is_done_once(day: World) -> None:
    with day.command(*PIPELINE) as one, day.command(*PIPELINE, "-o", "name") as other:
        until(lambda: any(run.startswith("download") for run in day.run_ids()), "a download")
        one.send_signal(signal.SIGTERM)
        assert one.wait(100) == 143
        out, err = other.communicate(timeout=PATIENCE_S)

    assert other.returncode == 0, err
    assert out.split() == [name for name in day.run_ids() if name.startswith("pipeline")]
    assert [line for line in wrong(day) if not line.startswith("served")] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_day_with_a_gap_says_what_to_do_and_the_other_commands_know_it(day: World) -> None:
    day.job["tardis"] = {"attempts": 1}
    day.server.add_faults({"path": "*/2024/08/08/ETHUSDT*", "fault": "corrupt", "kind": "gzip_trailer"})

    failed = run(day, "pipeline", "--day", DAY)

    assert failed.returncode == 3
    last = failed.stderr.splitlines()[-1]
    assert last.startswith(f"{DAY} BINANCE trades BINANCE:SPOT_PAIR:ETH-USDT: failed in download-")
    assert "runner retry download-" in last
    assert f"pipeline day={DAY} verdict=incomplete venues=BINANCE" in failed.stderr
    (name,) = run(day, "list", "--stage", "pipeline", "-o", "name").stdout.split()
    assert run(day, "wait", name).returncode == 3
    assert f"next: runner pipeline --day {DAY}" in run(day, "status", name).stderr
    assert "gate day=2024-08-08 venue=BINANCE refused" in run(day, "logs", name).stdout
    refused = run(day, "retry", name)
    assert (refused.returncode, f"runner pipeline --day {DAY}" in refused.stderr) == (2, True)
    day.server.clear_faults()
    mended = run(day, "pipeline", "--day", DAY, "-o", "name")
    assert (mended.returncode, mended.stdout.strip()) == (0, f"{name}-r1")
    assert run(day, "clean", name, "--yes").returncode == 0
