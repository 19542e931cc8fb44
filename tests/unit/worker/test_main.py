"""The worker as a process: environment in, exit code and one line out."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from runner import layout, ledger, plan, run_record

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "GCS_"))}


def work(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner", "worker"],
        env=CLEAN | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def env(world) -> dict[str, str]:
    spec = world.spec()
    return {
        "RUNNER_RUN": plan.run_id(spec.stage, world_request(world, spec)),
        "RUNNER_SPEC": spec.to_json(),
        "JOB_COMPLETION_INDEX": "0",
        "RUNNER_ATTEMPT": "a1",
        "TARDIS_API_KEY": "fake-key-1",
    }


def world_request(world, spec) -> dict:
    from runner.runs.request import request_of

    return request_of(spec, world.store.url, (spec.start_date, spec.start_date))


def test_a_scratch_directory_that_cannot_be_made_is_told_and_may_be_tried_again(env) -> None:
    done = work(env | {"RUNNER_SCRATCH": "/nowhere/at/all"})
    assert done.returncode == 75
    assert "/nowhere/at/all" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"RUNNER_SPEC": "{"}, "RUNNER_SPEC"),
        ({"RUNNER_SPEC": '{"shards": 0}'}, "shards"),
        ({"JOB_COMPLETION_INDEX": "-1"}, "JOB_COMPLETION_INDEX"),
        ({"RUNNER_RUN": ""}, "RUNNER_RUN"),
    ],
)
def test_a_bad_environment_is_exit_64_and_one_line(env, change, word: str) -> None:
    done = work(env | change)
    assert done.returncode == 64
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert word in done.stderr


def test_shard_0_plans_where_nobody_did_and_does_its_work(env, world) -> None:
    done = work(env)
    assert done.returncode == 0, done.stderr
    record = run_record.get_run(world.store, env["RUNNER_RUN"])
    (attempt,) = ledger.read_attempts(world.store, record.id)
    assert (attempt.attempt, attempt.exit, len(attempt.entries)) == ("a1", 0, 1)
    assert "shard=0" in done.stderr
    assert "fake-key-1" not in done.stderr
    kept = world.store.get(layout.log(record.id, 0, "a1")).decode()
    assert kept in done.stderr
    assert "exit=0" in kept


def test_another_request_under_the_run_is_exit_78(env) -> None:
    done = work(env | {"RUNNER_RUN": "download-00000000"})
    assert done.returncode == 78
    assert "download-00000000 is another request" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_of_another_store_is_exit_78(env, world) -> None:
    record = world.submit(world.spec()).record
    world.store.delete(layout.run_record(record.id))
    moved = replace(record, request={**record.request, "store": "file:///elsewhere"})
    run_record.write_run(world.store, moved)
    done = work(env)
    assert done.returncode == 78
    assert "file:///elsewhere" in done.stderr
    assert world.store.url in done.stderr


def test_scratch_is_left_empty(env, world) -> None:
    assert work(env | {"RUNNER_SCRATCH": str(world.scratch)}).returncode == 0
    assert list(world.scratch.iterdir()) == []
