"""Each command on a real cluster as a user has it: followed, interrupted, cancelled, cleaned; why nothing moves."""

import json
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.e2e.invariants import path_of
from tests.e2e_k8s.cluster import CANARY, SECRET, apply, kubectl, kubectl_json, lines, until
from tests.e2e_k8s.world import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]
EXPLAINED_S = 100  # of them 60 for a machine that has more to do


def plain(world, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command without the values that the world gives: what it has it takes from the run."""
    return subprocess.run(
        [sys.executable, "-m", "runner", *words],
        cwd=world.folder,
        env=world.env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def jobs(world) -> str:
    return kubectl("get", "jobs", "-n", world.namespace, "-o", "name")


def slow(world, bytes_per_s: int = 500) -> None:
    world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=bytes_per_s)


def test_a_dry_run_is_checked_strictly_by_the_cluster_and_makes_nothing(make_world) -> None:
    world = make_world(**SMALL)
    ours = world.cli("submit", "download", "--dry-run", "client")
    theirs = world.cli("submit", "download", "--dry-run=server")
    assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr + theirs.stderr
    there = yaml.safe_load(theirs.stdout)
    assert there["metadata"]["name"] == yaml.safe_load(ours.stdout)["metadata"]["name"]
    assert there["spec"]["podReplacementPolicy"] == "Failed"
    assert there["metadata"]["uid"], "the cluster filled it in"
    world.pod = {"scratch": {"sizelimit": "1Gi"}}
    refused = world.cli("submit", "download", "--dry-run=server")
    assert refused.returncode == 1
    assert 'unknown field "spec.template.spec.volumes[0].emptyDir.sizelimit"' in refused.stderr
    assert jobs(world) == ""
    assert world.run_ids() == ()


def test_a_run_is_followed_left_cancelled_submitted_again_and_cleaned(make_world) -> None:
    world = make_world(**SMALL)
    slow(world, 300)
    run = world.submit()
    assert world.cli("wait", run, "--timeout", "1").returncode == 6
    with world.command("status", run, "-w") as watching, world.command("logs", run, "-f") as logging:
        with lines(logging) as told:
            until(lambda: any(" start run=" in line for line in told), "a pod's log is followed")
            watching.send_signal(signal.SIGINT)
            _, said = watching.communicate(timeout=60)
            assert watching.returncode == 130, said
            assert f"next: runner status {run} --watch" in said
            listed = world.cli("list")
            assert re.search(rf"{run} +running", listed.stdout)
            cancelled = world.cli("cancel", run)
            assert cancelled.returncode == 0, cancelled.stderr
            assert f"next: runner retry {run}" in cancelled.stderr
        assert logging.returncode == 0, "the following ends with the run"
    assert any("end exit=143" in line for line in told), "how the pods drained was told too"
    assert jobs(world) == ""
    world.site.control("DELETE", "faults")
    again = world.cli("submit", "download", "--wait")
    assert again.returncode == 0, again.stderr
    next_run = f"{run}-r1"
    followed = world.cli("status", next_run, "--watch")
    assert (followed.returncode, world.cli("wait", next_run).returncode) == (0, 0)
    kubectl("delete", "job", next_run, "-n", world.namespace)
    gone = world.cli("logs", next_run, "-o", "json")
    # Of what the first run had not done: as many as there were tasks left, at most three.
    assert {each["shard"] for each in json.loads(gone.stdout)["logs"]} == set(range(len(world.plan(next_run))))
    one = world.cli("logs", next_run, "--shard", "0")
    assert set(re.findall(r"shard=(\d+)", one.stdout)) == {"0"}
    asked = world.cli("clean", next_run)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    data = {info.key for info in world.store.list("raw_tick_data/")}
    assert world.cli("clean", next_run, "--yes").returncode == 0
    assert world.run_ids() == (run,)
    assert {info.key for info in world.store.list("raw_tick_data/")} == data
    assert data


def test_logs_of_the_failed_are_theirs_alone(make_world) -> None:
    world = make_world(**SMALL)
    world.site.fault(path="*/trades/2024/08/01/ETHUSDT*", fault="corrupt", kind="gzip_trailer")
    done = world.cli("submit", "download", "--wait", "-o", "json")
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    (failure,) = document["failures"]
    shown = json.loads(world.cli("logs", document["id"], "--failed", "-o", "json").stdout)
    assert {each["shard"] for each in shown["logs"]} == {failure["shard"]}
    assert "ETH-USDT trades failed" in "".join(each["text"] for each in shown["logs"])


def quota(world) -> None:
    metadata = {"name": "one", "namespace": world.namespace}
    apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "1"}}})
    hard = ("get", "resourcequota", "one", "-n", world.namespace)
    until(lambda: kubectl_json(*hard).get("status", {}).get("hard"), "the quota counts")


def without_key(world) -> None:
    kubectl("delete", "secret", SECRET, "-n", world.namespace)
    metadata = {"name": SECRET, "namespace": world.namespace}
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"other": CANARY}})


# What is done to the namespace, what the pods are given, which cause that is, and a word of it.
TROUBLES = {
    "key": (without_key, {}, "secret", "references non-existent secret key: key"),
    "quota": (quota, {}, "quota", "exceeded quota: one"),
    "standard": (
        None,
        {"containerSecurityContext": {"allowPrivilegeEscalation": True}},
        "admission",
        "violates PodSecurity",
    ),
    "nodes": (None, {"nodeSelector": {"disk": "none"}}, "unschedulable", "node affinity/selector"),
    "deadline": (None, {"activeDeadlineSeconds": 4}, "deadline", "activeDeadlineSeconds (4)"),
    "suspended": (None, {"suspend": True}, "suspended", "until a queue admits it"),
    "tries": (None, {}, "back-off", "ended with exit 75 and starts again "),
}


def test_what_does_not_move_is_told_with_the_next_command_within_a_minute(make_world) -> None:
    """All at once, each in its own namespace."""
    worlds, found = {}, {}
    for name, (prepare, pod, _, _) in TROUBLES.items():
        worlds[name] = world = make_world(**SMALL)
        world.pod = pod
        if prepare:
            prepare(world)
    slow(world, 200)
    refused = ("--tardis-url", "http://127.0.0.1:9/v1")
    runs = {name: each.submit(*(refused if name == "tries" else ())) for name, each in worlds.items()}

    def explain(name: str) -> None:
        kind = TROUBLES[name][2]

        def told() -> list[dict]:
            return [cause for cause in worlds[name].status(runs[name])["causes"] if cause["kind"] == kind]

        found[name] = until(told, f"{name} is told as {kind}", EXPLAINED_S, 1)[0]

    with ThreadPoolExecutor(len(TROUBLES)) as pool:
        list(pool.map(explain, TROUBLES))
    for name, (_, _, _, word) in TROUBLES.items():
        assert word in found[name]["message"]
        assert re.match(r"(kubectl|runner) ", found[name]["next"])
    ended = worlds["deadline"].cli("wait", runs["deadline"])
    assert ended.returncode == 1
    assert "why     deadline: the Job ran longer" in ended.stderr, "also to who comes after the end"
    resume = found["suspended"]["next"].replace("'", "").split()
    kubectl(*resume[1:])
    world.site.control("DELETE", "faults")
    assert worlds["suspended"].cli("wait", runs["suspended"]).returncode == 0


def test_a_run_goes_on_with_its_own_values_and_more_memory_by_the_printed_command(make_world) -> None:
    world = make_world(**SMALL)
    memory = {"memory": "40Mi", "ephemeral-storage": "200Mi"}
    world.pod = {"resources": {"requests": {"cpu": "100m", **memory}, "limits": memory}}
    run = world.submit()

    def killed() -> list[dict]:
        return [cause for cause in world.status(run)["causes"] if cause["kind"] == "out of memory"]

    cause = until(killed, "a pod was killed for memory", EXPLAINED_S, 1)[0]
    assert cause["message"].startswith("killed for memory at its limit of 40Mi")
    assert cause["next"] == f"runner wait {run}; runner retry {run} --memory 80Mi"
    assert world.cli("cancel", run).returncode == 0
    again = plain(world, "retry", run, "--memory", "400Mi", "--wait", "-o", "name")
    assert again.returncode == 0, again.stderr
    spec = world.job_object(again.stdout.strip())["spec"]["template"]["spec"]
    limits = spec["containers"][0]["resources"]["limits"]
    assert (limits["memory"], limits["ephemeral-storage"]) == ("400Mi", "200Mi")
    assert spec["serviceAccountName"] == "runner-worker", "as the values of the first run say"
    # Workers so short of memory die anywhere: any file may have been served to one of them.
    asked_again = frozenset(path_of(task, "trades") for tasks in world.plan(run) for task in tasks)
    assert world.violations(shared=asked_again) == []


def test_who_looks_elsewhere_writes_no_end(make_world) -> None:
    world, other = make_world(**SMALL), make_world(**SMALL)
    slow(world)
    run = world.submit()
    until(lambda: world.running(run), "pods run")
    (world.folder / "kubeconfig.other").write_text((other.folder / "kubeconfig").read_text())
    elsewhere = ("-n", other.namespace, "--kubeconfig", str(world.folder / "kubeconfig.other"))
    for command in (("status", run), ("wait", run), ("cancel", run)):
        done = plain(world, *command, *elsewhere)
        assert done.returncode == 2, done.stderr
        assert f"namespace {world.namespace} of " in done.stderr
        assert f"namespace {other.namespace} of " in done.stderr
    names = {info.key.rsplit("/", 1)[-1] for info in world.store.list(f"_runs/{run}/")}
    assert not names & {"end.json", "cancel.json"}
    world.site.control("DELETE", "faults")
    assert world.cli("wait", run).returncode == 0


def test_the_commands_that_are_printed_are_allowed_to_who_submits(make_world) -> None:
    world = make_world(**SMALL, image="registry.invalid/runner:none")
    run = world.submit()
    until(lambda: world.pods(run), "pods are there")
    who = f"--as=system:serviceaccount:{world.namespace}:runner-submitter"
    labels = f"batch.kubernetes.io/job-name={run},batch.kubernetes.io/job-completion-index=0"
    describe = ("describe", "pod", "-l", labels, "-n", world.namespace, who)
    assert "Image:" in kubectl(*describe)
    # None of our own requests gets a pod; this is what the right to it is for.
    less = '[{"op": "replace", "path": "/rules/1/verbs", "value": ["list", "watch"]}]'
    kubectl("patch", "role", "runner-submitter", "-n", world.namespace, "--type=json", "-p", less)
    until(lambda: "Image:" not in kubectl(*describe, check=False), "describing a pod needs to get it", 20)
    assert world.cli("cancel", run).returncode == 0


def test_a_run_of_yesterdays_kubeconfig_is_found_by_the_present_one(make_world) -> None:
    """The name of a context is each kubeconfig's own."""
    world = make_world(**SMALL)
    run = world.submit()
    path = world.folder / "kubeconfig"
    document = yaml.safe_load(path.read_text())
    document["current-context"] = document["contexts"][0]["name"] = "renamed"
    path.write_text(yaml.safe_dump(document))
    assert world.cli("wait", run).returncode == 0
