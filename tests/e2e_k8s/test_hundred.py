"""One run of a hundred shards, six at a time, while pods are evicted and deleted: green, whole, and equal to a local
run's; what a person sees of it meanwhile; and that the key is nowhere."""

import json
import random
import re
import time
from collections import Counter

import pytest

from tests.e2e import invariants
from tests.e2e_k8s.cluster import CANARY, INDEX, api_requests, kubectl, turn, until
from tests.e2e_k8s.world import Held

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1200)]
EVICTED, DELETED = 5, 10
COUNTS = ("failure-count", "ignored-failure-count")
RANDOM = random.Random(7)


def shard_of(pod: str) -> str:
    return pod.rsplit("-", 2)[-2]


class Hundred:
    """The run and what was seen of it."""

    def __init__(self, world) -> None:
        self.world = world
        self.run = world.submit()
        self.evicted: set[str] = set()
        self.deleted: set[str] = set()
        self.seen_failures: dict[str, str] = {}
        self.early = world.status(self.run)
        self.plain_logs = ""
        self.verdict = self.logs = self.held = None
        self.waited = (0.0, 0.0)

    def evict_five(self) -> None:
        """Evict the pods of five shards, each of them at work: no body comes to its end meanwhile."""

        def done() -> bool:
            for pod in self.world.at_work(self.run):
                index = pod["metadata"]["labels"][INDEX]
                if len(self.evicted) < EVICTED and index not in self.evicted:
                    self.world.evict(pod["metadata"]["name"])
                    self.evicted.add(index)
            leaving = [pod for pod in self.world.pods(self.run) if "deletionTimestamp" in pod["metadata"]]
            return len(self.evicted) == EVICTED and not leaving

        until(done, "five pods are disrupted", 240)
        self.world.site.control("DELETE", "faults")

    def delete_ten(self) -> None:
        # A second or two a body, so that most pods are at work when they are hit.
        self.world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=3000)

        def done() -> bool:
            running = [p["metadata"]["name"] for p in self.world.at_work(self.run)]
            # No shard twice: six interruptions would be one too many for its task.
            hit = {*map(shard_of, self.deleted), *self.evicted}
            chosen = [name for name in running if shard_of(name) not in hit]
            for name in RANDOM.sample(chosen, min(2, len(chosen), DELETED - len(self.deleted))):
                kubectl("delete", "pod", name, "-n", self.world.namespace, "--wait=false")
                self.deleted.add(name)
            return len(self.deleted) >= DELETED

        until(done, "ten pods were deleted at work", 240)
        self.world.site.control("DELETE", "faults")

    def read_plain_logs(self) -> None:
        """Read with kubectl alone what one finished shard said."""

        def done() -> str:
            for pod in self.world.pods(self.run):
                if pod["status"]["phase"] == "Succeeded":
                    return kubectl("logs", pod["metadata"]["name"], "-n", self.world.namespace)
            return ""

        self.plain_logs = until(done, "a shard has ended well")


@pytest.fixture(scope="module")
def hundred(make_lasting_world) -> Hundred:
    world = make_lasting_world()
    with turn():
        world.site.fault(path="*.csv.gz", fault="slow", bytes_per_s=20)
        found = Hundred(world)
        found.evict_five()
        found.delete_ten()
        found.read_plain_logs()
        began = time.time()
        found.verdict = world.cli("wait", found.run, timeout_s=900)
        found.waited = (began, time.time())
        found.logs = world.cli("logs", found.run, "-o", "json")
        found.held = Held(world.store)
    return found


def test_a_hundred_shards_end_green_though_pods_were_evicted_and_deleted(hundred) -> None:
    assert hundred.verdict.returncode == 0, hundred.verdict.stderr
    status = hundred.world.status(hundred.run)
    assert (status["state"], status["tasks"]["done"], len(status["shards"])) == ("done", 120, 100)


def test_validate_finds_everything(hundred) -> None:
    done = hundred.world.cli("validate", "-o", "json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_store_equals_that_of_the_local_backend(hundred) -> None:
    assert invariants.contents(hundred.held) == hundred.world.clean


def test_nothing_is_lost_doubled_or_partial(hundred) -> None:
    assert hundred.world.violations(redone=EVICTED + DELETED) == []


def test_evictions_cost_no_try(hundred) -> None:
    """The pod after an evicted one counts the disruption as ignored; as tries only what failed by itself."""
    pods = hundred.world.pods(hundred.run)
    failed = Counter(pod["metadata"]["labels"][INDEX] for pod in pods if pod["status"]["phase"] == "Failed")
    counts = {
        index: [int(pod["metadata"]["annotations"][f"batch.kubernetes.io/job-index-{kind}"]) for kind in COUNTS]
        for pod in pods
        if (index := pod["metadata"]["labels"][INDEX]) in hundred.evicted and pod["status"]["phase"] == "Succeeded"
    }
    assert len(counts) == EVICTED
    assert counts == {index: [failed[index], 1] for index in hundred.evicted}


def test_following_costs_the_api_less_than_a_request_a_second(hundred) -> None:
    """As the API server's own audit log has it."""
    began, ended = hundred.waited
    requests = api_requests(f"system:serviceaccount:{hundred.world.namespace}:runner-submitter", began, ended)
    assert requests, "the audit log knows the submitter"
    assert len(requests) / (ended - began) <= 1, requests


def test_status_while_it_ran_told_it_as_running(hundred) -> None:
    assert hundred.early["state"] == "running"


def test_plain_kubectl_logs_show_start_progress_and_counts(hundred) -> None:
    assert re.search(r"start run=\S+ attempt=\S+ tasks=\d", hundred.plain_logs)
    assert re.search(r"progress task=\d+/\d+", hundred.plain_logs)
    assert re.search(r"end exit=0 done=\d+ failed=0 of \d+", hundred.plain_logs)


def test_logs_of_all_shards_come_from_pods_and_store(hundred) -> None:
    assert hundred.logs.returncode == 0, hundred.logs.stderr
    shards = {each["shard"] for each in json.loads(hundred.logs.stdout)["logs"]}
    assert shards == set(range(100))


def test_the_key_is_in_no_object_event_log_or_store(hundred) -> None:
    space = ("-n", hundred.world.namespace)
    everything = kubectl("get", "jobs,pods,events,configmaps", *space, "-o", "yaml")
    stored = b"".join(hundred.held.get(info.key) for info in hundred.held.list("_runs/") if "/plan." not in info.key)
    for text in (everything, hundred.logs.stdout, hundred.verdict.stderr, stored.decode(errors="replace")):
        assert text
        assert CANARY not in text


def test_the_same_request_again_has_nothing_to_do(hundred) -> None:
    done = hundred.world.cli("submit", "download", "-o", "json")
    assert done.returncode == 0, done.stderr
    assert hundred.world.run_ids() == (hundred.run,)
