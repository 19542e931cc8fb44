"""Who a worker is, told by its environment alone; what is wrong there is told by the variable's name."""

import os
from pathlib import Path

import pytest

from runner.errors import RunnerError, SpecError
from runner.spec import RunSpec
from runner.worker.identity import identity

SPEC = RunSpec(store="file:///tmp/nowhere", start_date="2024-08-08", shards=3)
ENV = {"RUNNER_RUN": "download-3f9a1c20", "RUNNER_SPEC": SPEC.to_json(), "JOB_COMPLETION_INDEX": "2"}


def test_three_variables_are_enough() -> None:
    me = identity(ENV)
    assert (me.run, me.shard, me.spec, me.key) == ("download-3f9a1c20", 2, SPEC, None)
    assert (me.workers, me.parent, me.scratch) == (1, 0, None)
    assert me.attempt
    assert me.attempt != identity(ENV).attempt


def test_the_rest_is_taken_where_given(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("fake-key-1\n")
    more = {"RUNNER_ATTEMPT": "a1", "RUNNER_WORKERS": "4", "RUNNER_PARENT": "17", "RUNNER_SCRATCH": str(tmp_path)}
    me = identity(ENV | more | {"TARDIS_API_KEY_FILE": str(key)})
    assert (me.attempt, me.workers, me.parent, me.scratch, me.key) == ("a1", 4, 17, tmp_path, "fake-key-1")


@pytest.mark.parametrize("name", ENV)
def test_what_is_missing_is_named(name: str) -> None:
    for env in ({k: v for k, v in ENV.items() if k != name}, ENV | {name: ""}):
        with pytest.raises(SpecError, match=f"{name} is not set.*runner submit"):
            identity(env)


@pytest.mark.parametrize("name", ["JOB_COMPLETION_INDEX", "RUNNER_WORKERS", "RUNNER_PARENT", "RUNNER_THREADS"])
@pytest.mark.parametrize("text", ["-1", "1.5", "two", "0x2", " 1", "\u0661", "1e3", "\u00b2"])
def test_numbers_are_whole_and_not_negative(name: str, text: str) -> None:
    with pytest.raises(SpecError, match=f"{name} is"):
        identity(ENV | {name: text})


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", '{"shards": 0}', '{"eat": 1}', '{"startDate": "2026-02-30"}', "\x00", '{"shards": 1e400}'],
)
def test_a_bad_spec_is_one_line_and_exit_64(text: str) -> None:
    with pytest.raises(RunnerError) as refusal:
        identity(ENV | {"RUNNER_SPEC": text})
    assert refusal.value.worker_exit == 64
    assert "RUNNER_SPEC" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_threads_share_the_machines_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert identity(ENV).threads == cores
    assert identity(ENV | {"RUNNER_WORKERS": "0"}).threads == cores
    assert identity(ENV | {"RUNNER_WORKERS": str(cores * 5)}).threads == 1


def test_a_pod_has_the_threads_it_was_given_whatever_the_machine() -> None:
    cores = len(os.sched_getaffinity(0))
    assert identity(ENV | {"RUNNER_THREADS": str(cores + 3)}).threads == cores + 3
    assert identity(ENV | {"RUNNER_THREADS": "0"}).threads == cores
