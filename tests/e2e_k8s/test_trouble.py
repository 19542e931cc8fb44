"""What cannot start is explained with its cause and the next command; what fails for good fails alone."""

import json
import re

import pytest

from runner.ledger import DEATHS_FAILED
from tests.e2e.invariants import path_of
from tests.e2e_k8s.cluster import IMAGE, ROOT, SECRET, apply, kubectl, until
from tests.e2e_k8s.world import SMALL, variables

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
# Bytes a second: no body comes to its end until the fault is taken away.
STANDSTILL = 20


def cancelled(world, run: str) -> None:
    done = world.cli("cancel", run)
    assert done.returncode == 0, done.stderr
    assert world.status(run)["state"] == "cancelled"
    assert kubectl("get", "jobs", "-n", world.namespace, "-o", "name") == ""


def test_a_wrong_image_is_explained(make_world) -> None:
    world = make_world(**SMALL, image="registry.invalid/runner:none")
    cause = world.explained(run := world.submit(), "image")
    assert "registry.invalid/runner:none" in cause["message"]
    assert cause["next"] == f"runner cancel {run} && runner retry {run} --image IMAGE"
    cancelled(world, run)
    done = world.cli("retry", run, "--image", IMAGE, "--wait")
    assert done.returncode == 0, done.stderr
    assert world.violations() == []


def test_a_missing_secret_is_explained_and_its_making_lets_the_run_go_on(make_world) -> None:
    world = make_world(**SMALL)
    kubectl("delete", "secret", SECRET, "-n", world.namespace)
    cause = world.explained(run := world.submit(), "secret")
    assert f'secret "{SECRET}" not found' in cause["message"]
    assert f"create secret generic {SECRET}" in cause["next"]
    world.make_secret()
    assert world.cli("wait", run).returncode == 0
    assert world.violations() == []


def test_impossible_memory_is_explained(make_world) -> None:
    world = make_world(**SMALL)
    huge = {"cpu": "100m", "memory": "900Gi", "ephemeral-storage": "200Mi"}
    world.pod = {"resources": {"requests": huge, "limits": {"memory": "900Gi", "ephemeral-storage": "200Mi"}}}
    cause = world.explained(run := world.submit(), "unschedulable")
    assert "Insufficient memory" in cause["message"]
    assert f"runner cancel {run} && runner retry {run} --memory SIZE" in cause["next"]
    cancelled(world, run)
    done = world.cli("retry", run, "--memory", "400Mi", "--wait")
    assert done.returncode == 0, done.stderr
    assert world.violations() == []


def test_a_poisoned_shard_fails_alone_and_retry_runs_exactly_the_rest(make_world) -> None:
    world = make_world(**{**SMALL, "shards": 10})
    world.site.fault(path="*/trades/2024/08/01/ETHUSDT*", fault="corrupt", kind="gzip_trailer")
    run = world.submit()
    done = world.cli("wait", run)
    assert done.returncode == 3, done.stderr
    bad = [(n, t) for n, tasks in enumerate(world.plan(run)) for t in tasks if "ETH-USDT" in t.key]
    ((shard, task),) = bad
    job = world.job_object(run)
    assert (job["status"]["failedIndexes"], job["status"]["succeeded"]) == (str(shard), 9)
    status = world.status(run)
    assert [(f["shard"], f["task"]) for f in status["failures"]] == [(shard, task.id)]
    assert f"runner retry {run}" in done.stderr
    assert f"batch.kubernetes.io/job-name={run},batch.kubernetes.io/job-completion-index={shard}" in done.stderr
    asked_again = frozenset({path_of(task, "trades")})
    assert world.violations(failed=frozenset({(task.id, "trades")}), shared=asked_again) == []
    world.site.control("DELETE", "faults")
    same = world.cli("submit", "download")
    assert (same.returncode, world.run_ids()) == (3, (run,)), same.stderr
    assert f"runner retry {run}" in same.stderr
    again = world.cli("retry", run, "--wait", "-o", "json")
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert document["tasks"] == {"total": 1, "done": 1, "failed": 0, "pending": 0}
    assert [t.id for tasks in world.plan(document["id"]) for t in tasks] == [task.id]
    served = world.site.bodies
    assert {path for path, count in served.items() if count > 1} == asked_again


def test_the_same_request_in_each_of_its_states(make_world) -> None:
    world = make_world(**SMALL)
    world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=STANDSTILL)
    with world.command("submit", "download", "-o", "name") as one, world.command("submit", "-o", "name") as other:
        ends = [process.communicate(timeout=120) for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), ends
    (run,) = world.run_ids()
    assert [out.strip() for out, _ in ends] == [run, run]
    again = world.cli("submit", "download", "--shards", "2")
    assert again.returncode == 0
    assert f"attached to {run} with its own 3 shards" in again.stderr
    cancelled(world, run)
    world.site.control("DELETE", "faults")
    assert world.cli("submit", "download", "--wait").returncode == 0
    assert world.run_ids() == (run, f"{run}-r1")
    assert world.cli("submit", "download").returncode == 0
    assert world.run_ids() == (run, f"{run}-r1")
    assert world.violations(redone=9) == []


def test_a_deleted_job_is_told_from_the_store_and_followed_by_the_next_pass(make_world) -> None:
    world = make_world(**SMALL)
    world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=STANDSTILL)
    run = world.submit()
    until(lambda: len(world.at_work(run)) == SMALL["parallelism"], "pods are at work")
    with world.command("wait", run) as waiting:
        kubectl("delete", "job", run, "-n", world.namespace, "--wait=false")
        out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 1, out + err
    world.site.control("DELETE", "faults")
    assert world.cli("submit", "download", "--wait").returncode == 0
    assert world.run_ids() == (run, f"{run}-r1")
    assert world.violations(redone=SMALL["parallelism"]) == []


def test_a_missing_right_is_named_with_the_rule_to_add(make_world) -> None:
    world = make_world(**SMALL)
    kubectl("delete", "rolebinding", "runner-submitter", "-n", world.namespace)
    done = world.cli("submit", "download")
    assert done.returncode == 4
    assert 'apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]' in done.stderr
    world.grant()
    assert world.cli("submit", "download", "--wait").returncode == 0
    assert len(world.run_ids()) == 1
    assert world.violations() == []


def test_workers_may_do_nothing_on_the_cluster(make_world) -> None:
    world = make_world(**SMALL)
    who = f"--as=system:serviceaccount:{world.namespace}:runner-worker"
    for what in (("get", "pods"), ("list", "secrets"), ("create", "jobs"), ("get", "configmaps")):
        assert kubectl("auth", "can-i", *what, who, "-n", world.namespace, check=False).strip() == "no"


def test_out_of_memory_is_named_with_its_peak_and_the_shard_goes_on_without_the_task(make_world) -> None:
    """A hook in the worker takes the memory; who kills it, and says so, is the kernel."""
    world = make_world(**{**SMALL, "shards": 1, "parallelism": 1})
    hook = {"sitecustomize.py": (ROOT / "tests/e2e/crash/sitecustomize.py").read_text()}
    apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "hook", "namespace": world.namespace},
            "data": hook,
        }
    )
    world.pod = {
        "volumes": [{"name": "hook", "configMap": {"name": "hook"}}],
        "volumeMounts": [{"name": "hook", "mountPath": "/hook", "readOnly": True}],
        # The container's own group is the one with the limit: the hook's note of who enters goes to a file.
        "env": [*world.values["pod"]["env"], *variables(PYTHONPATH="/hook", GREEDY="ETHUSDT:600", CGROUP="/scratch")],
    }
    cause = world.explained(run := world.submit(), "out of memory", 180)
    assert re.fullmatch(r"killed for memory at its limit of 400Mi, having told of \d+ MiB", cause["message"])
    assert f"runner retry {run} --memory 800Mi" in cause["next"]
    done = world.cli("wait", run)
    assert done.returncode == 3, done.stderr
    (tasks,) = world.plan(run)
    (task,) = (task for task in tasks if "ETH-USDT" in task.key)
    attempts = world.attempts(run)
    assert [attempt.exit for attempt in attempts] == [None, None, None, 65]
    assert attempts[2].in_flight == (task.id,), "the third time it was not alone"
    status = world.status(run)
    assert status["tasks"] == {"total": 10, "done": 9, "failed": 1, "pending": 0}
    (failure,) = status["failures"]
    assert failure["task"] == task.id
    assert re.search(r"killed 3 times at it, peak memory [1-9]\d+ MiB", failure["error"])
    failed = frozenset({(task.id, "trades")})
    assert world.violations(redone=DEATHS_FAILED, failed=failed) == []


def test_rendered_objects_alone_make_a_run(make_world) -> None:
    world = make_world(**SMALL)
    rendered = world.cli("render", "download")
    assert rendered.returncode == 0, rendered.stderr
    kubectl("apply", "-n", world.namespace, "-f", "-", given=rendered.stdout)
    run = world.cli("render", "download", "-o", "name").stdout.strip()
    until(lambda: world.run_ids() == (run,), "the worker of shard 0 has planned")
    assert world.cli("wait", run).returncode == 0
    assert world.violations() == []
