"""What the cluster itself suffers while runs go on: control planes that start anew, nodes that are lost and come back.

Tests marked `alone` have the cluster for themselves, whoever else tests on it.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import invariants
from tests.e2e.invariants import path_of
from tests.e2e_k8s.cluster import (
    CANARY,
    FRAIL,
    INDEX,
    ROOT,
    STEADY,
    control,
    docker,
    kubectl,
    kubectl_json,
    lines,
    restart_control_plane,
    sandbox,
    served,
    until,
)
from tests.e2e_k8s.world import GENERATED, SMALL, Held

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]
# No body comes to its end until the fault is taken away, and none is given up for being slow.
STANDSTILL = {"path": "*.csv.gz", "fault": "slow", "bytes_per_s": 10}
PATIENT = {"tardis": {"minBytesPerSecond": 0}}
SIX = {**SMALL, **PATIENT, "shards": 6, "parallelism": 6}
# Shards as many on the one node as on the other.
EVENLY = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "worker"}},
    # Else the control plane is a place as well, and always has the fewest.
    "nodeTaintsPolicy": "Honor",
}


@pytest.fixture
def mended() -> Iterator[None]:
    """Have a node that is lost, and its way, back for the tests that follow: by the command that users have for it."""
    yield
    subprocess.run([ROOT / "scripts/kind", "up"], check=True, capture_output=True, timeout=300)
    ready = kubectl_json("get", "node", FRAIL)["status"]["conditions"]
    assert {each["type"]: each["status"] for each in ready}["Ready"] == "True"


def at_work_on_both(world) -> tuple[str, dict[int, str]]:
    """Submit six shards and return the run and, once all are at work, the pods on the node to be lost, by shard."""
    world.pod = {"topologySpreadConstraints": [EVENLY]}
    world.site.fault(**STANDSTILL)
    run = world.submit()
    found = until(lambda: len(pods := world.at_work(run)) == SIX["shards"] and pods, "six pods are at work")
    return run, {
        int(pod["metadata"]["labels"][INDEX]): pod["metadata"]["uid"]
        for pod in found
        if pod["spec"]["nodeName"] == FRAIL
    }


@pytest.mark.alone
def test_a_node_that_is_killed_is_named_and_its_shards_are_done_elsewhere(make_world, mended) -> None:
    world = make_world(**SIX)
    run, lost = at_work_on_both(world)
    docker("kill", FRAIL)
    cause = world.explained(run, "node", 180)
    assert FRAIL in cause["message"]
    assert cause["next"].endswith(f"kubectl delete node {FRAIL}")
    # Pod after pod is given up.
    until(lambda: set(world.explained(run, "node")["shards"]) == set(lost), "all that were on it are named")
    kubectl("delete", "node", FRAIL)
    world.site.control("DELETE", "faults")
    done = world.cli("wait", run)
    assert done.returncode == 0, done.stderr
    ended = [pod for pod in world.pods(run) if pod["status"]["phase"] == "Succeeded"]
    assert {int(pod["metadata"]["labels"][INDEX]) for pod in ended} == set(range(SIX["shards"]))
    assert {pod["spec"]["nodeName"] for pod in ended} == {STEADY}
    assert world.violations(redone=len(lost)) == []


@pytest.mark.alone
def test_a_worker_that_was_frozen_wakes_beside_what_its_twin_wrote_and_changes_nothing(make_world, mended) -> None:
    world = make_world(**SIX)
    run, frozen = at_work_on_both(world)
    docker("pause", FRAIL)
    try:
        kubectl("delete", "node", FRAIL)
        world.site.control("DELETE", "faults")
        done = world.cli("wait", run)
        assert done.returncode == 0, done.stderr
    finally:
        docker("unpause", FRAIL)

    def told() -> bool:
        return set(frozen.values()) <= {each.attempt for each in world.attempts(run) if each.exit is not None}

    until(told, "those that were frozen have written their ledgers")
    for shard, uid in frozen.items():
        mine, other = [], []
        for attempt in world.attempts(run):
            if attempt.shard == shard:
                (mine if attempt.attempt == uid else other).extend(attempt.entries)
        twins = {entry.task_id: entry.facts for entry in other}
        assert mine, f"shard {shard}: what was frozen did its task to the end"
        for entry in mine:
            assert (entry.outcome, entry.facts["written"]) == ("done", False)
            assert twins[entry.task_id]["written"] is True
            assert entry.facts["digest"] == twins[entry.task_id]["digest"]
    both = frozenset(path_of(task, "trades") for shard in frozen for task in world.plan(run)[shard])
    assert world.violations(shared=both) == []


def test_a_permission_that_is_withdrawn_ends_the_run_by_name_and_given_back_it_goes_on(make_world) -> None:
    world = make_world(**SMALL, storeRefusalSeconds=3)
    world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=2000)
    run = world.submit()
    until(lambda: any(world.store.list("raw_tick_data/")), "a task is done")
    world.site.bucket("POST", "faults", {"path": "/upload/*", "fault": "deny_after"})
    lacking = "needs roles/storage.objectUser on gs://sandbox"

    def refused() -> list[str]:
        states = [pod["status"].get("containerStatuses", [{}])[0].get("state", {}) for pod in world.pods(run)]
        return [end["message"] for state in states if (end := state.get("terminated")) and end["exitCode"] == 77]

    try:
        messages = until(refused, "a worker says that it is refused")
        assert all(lacking in message for message in messages), messages
        done = world.cli("wait", run)
        assert (done.returncode, lacking in done.stderr) == (4, True), done.stderr
    finally:
        world.site.bucket("DELETE", "faults")
    kept = {info.key: info.generation for info in world.store.list("raw_tick_data/")}
    world.site.control("DELETE", "faults")
    status = world.status(run)
    assert (status["state"], kept != {}) == ("failed", True), status
    again = world.cli("submit", "download", "--wait")
    assert again.returncode == 0, again.stderr
    now = {info.key: info.generation for info in world.store.list("raw_tick_data/")}
    assert kept.items() < now.items(), "what was done stays as it was"
    # What a worker wrote last, no ledger could tell of: the store alone knows it.
    assert world.cli("validate").returncode == 0
    assert invariants.contents(Held(world.store)) == {k: v for k, v in world.clean.items() if "/day-2024-08-01/" in k}
    assert sum(world.site.bodies.values()) <= len(now) + SMALL["parallelism"]


@contextmanager
def neighbour(file: str) -> Iterator[None]:
    """Use the key from this machine, again and again: what comes by a node's port comes from that node's address."""
    left = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(file, headers={"Authorization": f"Bearer {CANARY}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()

    def go_on() -> None:
        while not left.wait(1):
            ask()

    ask()
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def test_a_key_kept_busy_at_one_of_two_addresses_ends_the_run_by_name_and_left_alone_they_take_turns(
    make_world,
) -> None:
    ranges = {name: kubectl_json("get", "node", name)["spec"]["podCIDR"] for name in (STEADY, FRAIL)}
    egress = ",".join(f"{cidr}={name}" for name, cidr in ranges.items())
    world = make_world(**{**SIX, "startDate": "2024-08-02", "endDate": "2024-08-02"})
    world.pod = {"topologySpreadConstraints": [EVENLY]}
    generate = {"generate.json": json.dumps(GENERATED)}
    words = ("--generate", "/files/generate.json", "--egress", egress, "--lock-ttl", "20")
    with served(sandbox("tardis", *words, files=generate)) as found:
        tardis = found["tardis"]
        world.job["tardis"] = {"url": f"{tardis.inside}/v1", "apiUrl": f"{tardis.outside}/v1", "lockLimitSeconds": 45}
        with neighbour(f"{tardis.outside}/v1/binance/trades/2024/08/02/BTCUSDT.csv.gz"):
            run = world.submit()
            done = world.cli("wait", run)
        assert done.returncode == 4, done.stdout + done.stderr
        assert "egress must be one address for all users of this key" in done.stderr
        again = world.cli("submit", "download", "--wait")
        assert again.returncode == 0, again.stdout + again.stderr
        seen = control(tardis.outside, "GET", "stats")
    assert set(ranges) <= set(json.dumps(seen).replace('"', " ").split()), "both nodes have used the key"
    assert world.violations() == []


def test_in_tokyo_the_same_run_leaves_the_same(make_world) -> None:
    days = {"startDate": "2024-08-03", "endDate": "2024-08-04"}
    world = make_world(**{**SMALL, **days})
    named = world.cli("render", "download", "-o", "name")
    world.zone = "Asia/Tokyo"
    assert world.cli("render", "download", "-o", "name").stdout == named.stdout
    run = world.submit("--wait")
    assert run == named.stdout.strip()
    assert {task.day.isoformat() for tasks in world.plan(run) for task in tasks} == set(days.values())
    assert world.violations() == []
    theirs = [world.cli(*words, "-o", "json").stdout for words in (("status", run), ("list",), ("validate",))]
    world.zone = "UTC"
    ours = [world.cli(*words, "-o", "json").stdout for words in (("status", run), ("list",), ("validate",))]
    assert theirs == ours


@pytest.mark.alone
def test_a_control_plane_that_restarts_is_waited_for_and_no_end_of_a_log_is_lost(make_world) -> None:
    world = make_world(**{**SMALL, "endDate": "2024-08-02", "shards": 9})
    # Some seconds a body: pods end while nobody answers.
    world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=1500)
    run = world.submit()
    until(lambda: world.running(run), "pods run")
    with world.command("status", run, "-w") as watching, world.command("logs", run, "-f") as logging:
        with lines(logging) as told:
            until(lambda: any(" start run=" in line for line in told), "a pod's log is followed")
            assert f"run {run}  running" in watching.stderr.readline()
            restart_control_plane()
            until(lambda: kubectl("get", "--raw", "/readyz", check=False) == "ok", "the API is back")
            world.site.control("DELETE", "faults")
            out, err = watching.communicate(timeout=240)
        assert (watching.returncode, logging.returncode) == (0, 0), out + err
    ends = [re.search(r"shard=(\d+)", line)[1] for line in told if "end exit=0" in line]
    assert sorted(ends) == [str(shard) for shard in range(9)], "each end once, also of pods that were new"
    assert world.status(run)["state"] == "done"
    assert world.violations() == []
