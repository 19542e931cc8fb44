"""What doctor says of what the pods of a run meet: account, Secret, image, the way out."""

from pathlib import Path

import pytest

from tests.unit.backends.kubernetes.api import Fault
from tests.unit.doctor.world import IMAGE, MARKET, World, node

SECRET = f"{MARKET}/secrets/tardis-api-key"


def test_a_secret_that_is_not_there_comes_with_the_command_that_makes_it(world: World) -> None:
    del world.api.about[SECRET]
    check = world.checks()["secret"]
    assert check.verdict == "fail"
    assert check.mend.endswith(" -n market create secret generic tardis-api-key --from-file=key=FILE")


@pytest.mark.parametrize("data", [{"other": "ZmFrZS1rZXktMQ=="}, {"key": ""}, None])
def test_a_secret_without_its_entry_is_a_failure_and_is_never_shown(world: World, data: dict[str, str] | None) -> None:
    world.api.about[SECRET] = {"data": data}
    check = world.checks()["secret"]
    assert check.verdict == "fail"
    assert "nothing under key" in check.finding
    assert "ZmFrZS1rZXktMQ" not in repr(check)


def test_pods_without_a_key_are_warned_of(world: World) -> None:
    world.pod = {"tardisKey": None}
    world.node(node("10.0.0.2", ExternalIP="203.0.113.7"), node("10.0.0.3", ExternalIP="203.0.113.8"))
    found = world.checks()
    assert found["secret"].verdict == "warn"
    assert found["egress"].verdict == "ok", "addresses matter only to a key"


def test_an_account_is_looked_for_by_the_name_that_pods_have(world: World) -> None:
    world.pod = {"serviceAccountName": "nobody"}
    check = world.checks()["account"]
    assert check.verdict == "fail"
    assert check.mend.endswith(" -n market create serviceaccount nobody")
    world.pod = {"serviceAccountName": None}
    assert world.checks()["account"].verdict == "warn"


@pytest.mark.parametrize(
    ("image", "verdict", "words"),
    [
        (IMAGE, "ok", "2 of 2 nodes"),
        ("library-like:1", "ok", "1 of 2 nodes"),
        ("127.0.0.1:1/runner:0.2.0", "unknown", "only they know"),
        ("runner", "warn", "names no version"),
        ("host:5000/runner:latest", "warn", "names no version"),
        ("", "fail", "none is configured"),
    ],
)
def test_an_image_is_known_where_a_node_has_it(world: World, image: str, verdict: str, words: str) -> None:
    world.pod = {"image": image}
    world.node(node("10.0.0.2", IMAGE, "docker.io/library/library-like:1"), node("10.0.0.3"))
    check = world.checks()["image"]
    assert check.verdict == verdict
    assert words in check.finding


def test_pods_that_leave_by_many_addresses_cannot_share_a_key(world: World) -> None:
    world.node(node("10.0.0.2", ExternalIP="203.0.113.7"), node("10.0.0.3", ExternalIP="203.0.113.8"))
    check = world.checks()["egress"]
    assert check.verdict == "fail"
    assert "2 addresses" in check.finding
    assert "scripts/gke up" in check.mend
    world.node(node("10.0.0.2", ExternalIP="203.0.113.7"))
    assert world.checks()["egress"].verdict == "warn"


def test_nodes_behind_a_gateway_do_not_tell_its_addresses(world: World) -> None:
    world.node(node("10.0.0.2"), node("10.0.0.3"))
    assert "by a gateway" in world.checks()["egress"].finding
    world.node()
    check = world.checks()["egress"]
    assert check.verdict == "unknown"
    assert "no node yet" in check.finding


def test_the_job_itself_is_tried_and_not_made(world: World) -> None:
    assert world.checks()["job"].verdict == "ok"
    assert world.api.objects["jobs"] == {}
    quota = 'jobs.batch "a" is forbidden: exceeded quota: few, requested: count/jobs.batch=1, used: 1, limited: 1'
    world.api.faults.append(Fault("POST */jobs", 403, quota))
    check = world.checks()["job"]
    assert check.verdict == "fail"
    assert "exceeded quota" in check.finding


def test_a_store_that_no_pod_sees_is_a_failure_of_the_job(world: World, tmp_path: Path) -> None:
    check = world.checks(store=f"file://{tmp_path}")["job"]
    assert check.verdict == "fail"
    assert "no pod sees it" in check.finding
