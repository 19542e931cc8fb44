"""What doctor says of a cluster: a small API server over a socket, healthy until a test spoils it."""

import subprocess
from pathlib import Path

import pytest
import yaml

from runner.doctor import cluster
from tests.unit.backends.kubernetes.api import Fault
from tests.unit.doctor.world import MARKET, World

ROOT = Path(__file__).resolve().parents[3]
EVERYTHING = {
    *(("jobs", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *(("pods", verb) for verb in ("get", "list", "watch")),
    ("pods/log", "get"),
    *(("events", verb) for verb in ("list", "watch")),
    ("namespaces", "get"),
}


def allow(world: World, *more: tuple[str, str]) -> None:
    world.api.allowed = {(verb, resource) for resource, verb in (*EVERYTHING, *more)}


def test_a_healthy_cluster_is_ok_in_everything_that_can_be_known(world: World) -> None:
    found = world.checks()
    assert {name: check.verdict for name, check in found.items() if check.verdict != "ok"} == {"egress": "warn"}
    assert world.api.url in found["cluster"].finding
    assert "as ci" in found["cluster"].finding
    assert "v1.35.4" in found["version"].finding


def test_what_is_asked_for_is_what_the_manifest_grants() -> None:
    documents = yaml.safe_load_all((ROOT / "manifests" / "rbac.yaml").read_text(encoding="utf-8"))
    (role,) = [each for each in documents if each["kind"] == "Role" and each["metadata"]["name"] == "runner-submitter"]
    granted = {
        (group, resource): tuple(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    assert dict(cluster.NEEDED) == granted


def test_the_submitters_own_rights_leave_unknown_what_they_do_not_show(world: World) -> None:
    allow(world)
    found = world.checks()
    assert (found["permissions"].verdict, found["namespace"].verdict) == ("ok", "ok")
    for name in ("network", "account", "secret", "image", "egress"):
        assert found[name].verdict == "unknown", found[name]


@pytest.mark.parametrize(
    ("user", "whom"),
    [("ci@example.com", "--user=ci@example.com"), ("system:serviceaccount:tools:ci", "--serviceaccount=tools:ci")],
)
def test_missing_rights_are_all_named_with_the_commands_that_give_them(world: World, user: str, whom: str) -> None:
    world.api.user = user
    world.api.allowed = {(verb, resource) for resource, verb in EVERYTHING} - {("create", "jobs"), ("get", "pods/log")}
    check = world.checks()["permissions"]
    assert check.verdict == "fail"
    assert check.finding == "may not in namespace market: create jobs; get pods/log"
    sed, _, rest = check.mend.partition(" | ")
    manifest = subprocess.run(["sh", "-c", sed], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    places = [each["metadata"].get("namespace", each["metadata"]["name"]) for each in yaml.safe_load_all(manifest)]
    assert set(places) == {"market"}
    assert " apply -f - && kubectl " in rest
    assert rest.endswith(f"--role=runner-submitter {whom}")


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("v1.37.0", "ok"), ("v1.34.1-gke.100", "ok"), ("v1.33.9", "warn"), ("v1.28.3", "fail"), ("odd", "unknown")],
)
def test_versions_are_judged_by_what_a_job_needs(world: World, version: str, verdict: str) -> None:
    world.api.about["/version"] = {"gitVersion": version}
    assert world.checks()["version"].verdict == verdict


@pytest.mark.parametrize("fault", [Fault("GET /version", 0), Fault("GET /version", 503)])
def test_a_cluster_that_does_not_answer_leaves_the_rest_unknown(world: World, fault: Fault) -> None:
    world.api.faults.append(fault)
    found = world.checks()
    assert found["cluster"].verdict == "fail"
    rest = (*cluster.NAMES[1:], "account", "secret", "image", "egress", "job")
    assert {found[name].verdict for name in rest} == {"unknown"}
    assert found["store"].verdict == "ok", "what is no part of the cluster is looked at all the same"


def test_a_login_that_is_refused_is_said_once(world: World) -> None:
    world.api.tokens = {"another"}
    found = world.checks()
    assert found["cluster"].verdict == "fail"
    assert "does not know who we are" in found["cluster"].finding
    assert found["permissions"].verdict == "unknown"


def test_no_cluster_configured_is_a_failed_check_and_no_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from runner.backends.kubernetes.client import Client

    missing = str(world.folder / "nowhere")
    monkeypatch.setattr(world, "connect", lambda: Client(kubeconfig=missing))
    found = world.checks()
    assert found["cluster"].verdict == "fail"
    assert found["permissions"].verdict == "unknown"
    assert found["clock"].verdict == "ok"


@pytest.mark.parametrize(
    ("labels", "verdict"),
    [
        ({"pod-security.kubernetes.io/enforce": "baseline"}, "warn"),
        ({}, "warn"),
        ({"pod-security.kubernetes.io/enforce": "restricted"}, "ok"),
    ],
)
def test_a_namespace_is_judged_by_the_standard_it_enforces(world: World, labels: dict[str, str], verdict: str) -> None:
    world.api.about[MARKET] = {"metadata": {"name": "market", "labels": labels}}
    check = world.checks()["namespace"]
    assert check.verdict == verdict
    assert verdict == "ok" or "label --overwrite namespace market" in check.mend


def test_a_namespace_that_is_not_there_or_goes_is_a_failure(world: World) -> None:
    world.api.about[MARKET] = {"metadata": {"name": "market"}, "status": {"phase": "Terminating"}}
    assert world.checks()["namespace"].verdict == "fail"
    del world.api.about[MARKET]
    check = world.checks()["namespace"]
    assert check.verdict == "fail"
    assert "create namespace market" in check.mend


@pytest.mark.parametrize(
    ("names", "verdict"),
    [(["calico-node"], "ok"), (["anetd", "kube-flannel-ds"], "ok"), (["kube-flannel-ds"], "warn"), (["x"], "unknown")],
)
def test_network_policies_are_enforced_or_not_by_the_plugin_there_is(
    world: World, names: list[str], verdict: str
) -> None:
    items = [{"metadata": {"name": name}} for name in names]
    world.api.about["/apis/apps/v1/daemonsets"] = {"items": items}
    assert world.checks()["network"].verdict == verdict


def test_a_clock_that_is_off_is_told_by_the_cluster(world: World) -> None:
    world.api.ahead_s = 30.0
    check = world.checks()["clock"]
    assert check.verdict == "warn"
    assert "behind the cluster" in check.finding
    world.api.ahead_s = -400.0
    check = world.checks()["clock"]
    assert check.verdict == "fail"
    assert "ahead of the cluster" in check.finding
    assert check.mend == "timedatectl set-ntp true"
