"""What cannot start is explained with its cause and the next command; what fails for good fails alone."""

import json

import pytest

from tests.e2e.invariants import path_of
from tests.e2e_k8s.cluster import SECRET, SMALL, kubectl, restart_control_plane, until

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(300)]
EXPLAINED_S = 60


def explained(world, run: str, kind: str) -> dict:
    """Return the cause of this kind once `status` names it, within a minute."""

    def found() -> dict | None:
        return next((cause for cause in world.status(run)["causes"] if cause["kind"] == kind), None)

    return until(found, f"status names the cause {kind}", EXPLAINED_S, 2)


def cancelled(world, run: str) -> None:
    done = world.cli("cancel", run)
    assert done.returncode == 0, done.stderr
    assert world.status(run)["state"] == "cancelled"
    assert kubectl("get", "jobs", "-n", world.namespace, "-o", "name") == ""


def test_a_wrong_image_is_explained(make_world) -> None:
    world = make_world(**SMALL, image="registry.invalid/runner:none")
    cause = explained(world, run := world.submit(), "image")
    assert "registry.invalid/runner:none" in cause["message"]
    assert "--image" in cause["next"]
    cancelled(world, run)


def test_a_missing_secret_is_explained_and_its_making_lets_the_run_go_on(make_world) -> None:
    world = make_world(**SMALL)
    kubectl("delete", "secret", SECRET, "-n", world.namespace)
    cause = explained(world, run := world.submit(), "secret")
    assert f'secret "{SECRET}" not found' in cause["message"]
    assert f"create secret generic {SECRET}" in cause["next"]
    world.make_secret()
    assert world.cli("wait", run).returncode == 0
    assert world.violations() == []


def test_impossible_memory_is_explained(make_world) -> None:
    world = make_world(**SMALL)
    huge = {"cpu": "100m", "memory": "900Gi", "ephemeral-storage": "200Mi"}
    world.pod = {"resources": {"requests": huge, "limits": {"memory": "900Gi", "ephemeral-storage": "200Mi"}}}
    cause = explained(world, run := world.submit(), "unschedulable")
    assert "Insufficient memory" in cause["message"]
    cancelled(world, run)


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
    again = world.cli("retry", run, "--wait", "-o", "json")
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    assert document["tasks"] == {"total": 1, "done": 1, "failed": 0}
    assert [t.id for tasks in world.plan(document["id"]) for t in tasks] == [task.id]
    served = world.site.bodies
    assert {path for path, count in served.items() if count > 1} == asked_again


def test_the_same_request_in_each_of_its_states(make_world) -> None:
    world = make_world(**SMALL)
    world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=500)
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
    world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=500)
    run = world.submit()
    until(lambda: world.running(run), "pods run")
    with world.command("wait", run) as waiting:
        kubectl("delete", "job", run, "-n", world.namespace, "--wait=false")
        out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 1, out + err
    world.site.control("DELETE", "faults")
    assert world.cli("submit", "download", "--wait").returncode == 0
    assert world.run_ids() == (run, f"{run}-r1")


def test_a_missing_right_is_named_with_the_rule_to_add(make_world) -> None:
    world = make_world(**SMALL)
    kubectl("delete", "rolebinding", "runner-submitter", "-n", world.namespace)
    done = world.cli("submit", "download")
    assert done.returncode == 4
    assert 'apiGroups: ["batch"], resources: ["jobs"], verbs: ["create"]' in done.stderr


def test_workers_may_do_nothing_on_the_cluster(make_world) -> None:
    world = make_world(**SMALL)
    who = f"--as=system:serviceaccount:{world.namespace}:runner-worker"
    for what in (("get", "pods"), ("list", "secrets"), ("create", "jobs"), ("get", "configmaps")):
        assert kubectl("auth", "can-i", *what, who, "-n", world.namespace, check=False).strip() == "no"


def test_out_of_memory_is_named_and_the_shard_goes_on_without_its_task(make_world) -> None:
    world = make_world(**{**SMALL, "shards": 1, "parallelism": 1})
    memory = {"memory": "60Mi", "ephemeral-storage": "200Mi"}
    world.pod = {"resources": {"requests": {"cpu": "100m", **memory}, "limits": memory}}
    cause = explained(world, run := world.submit(), "out of memory")
    assert "60Mi" in cause["message"]
    cancelled(world, run)


def test_a_control_plane_that_restarts_is_waited_for(make_world) -> None:
    world = make_world(**{**SMALL, "endDate": "2024-08-03", "shards": 20})
    world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=2000)
    run = world.submit()
    until(lambda: world.running(run), "pods run")
    with world.command("status", run, "-w") as watching:
        restart_control_plane()
        out, err = watching.communicate(timeout=240)
    assert watching.returncode == 0, out + err
    assert world.violations() == []


def test_rendered_objects_alone_make_a_run(make_world) -> None:
    world = make_world(**SMALL)
    rendered = world.cli("render", "download")
    assert rendered.returncode == 0, rendered.stderr
    kubectl("apply", "-n", world.namespace, "-f", "-", given=rendered.stdout)
    run = world.cli("render", "download", "-o", "name").stdout.strip()
    until(lambda: world.run_ids() == (run,), "the worker of shard 0 has planned")
    assert world.cli("wait", run).returncode == 0
    assert world.violations() == []
