"""`runner doctor` on the real cluster: what the submitter sees of it, and what is said of what lacks."""

import json
import os
import subprocess

import pytest

from tests.e2e_k8s.cluster import CANARY, SECRET, kubectl, until
from tests.e2e_k8s.world import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(300)]
# What the submitter's rights do not show, and what no cluster without addresses of its own tells.
UNSEEN = {"network", "account", "secret", "image", "egress"}
READ_LOGS = {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]}


def examined(world, *words: str) -> tuple[dict[str, dict[str, str]], subprocess.CompletedProcess[str]]:
    """Return what doctor says, by the names of its checks, and how it ended."""
    done = world.cli("doctor", "-n", world.namespace, "--values", "values.yaml", *words, "-o", "json")
    assert done.stdout, done.stderr
    assert CANARY not in done.stdout + done.stderr
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}, done


def verdicts(found: dict[str, dict[str, str]], *which: str) -> set[str]:
    return {name for name, check in found.items() if check["verdict"] in which}


def test_a_cluster_that_is_as_it_should_be_is_well_for_who_submits(make_world) -> None:
    world = make_world(**SMALL)
    found, done = examined(world)
    assert done.returncode == 0, done.stdout
    assert verdicts(found, "fail") == set()
    assert verdicts(found, "unknown") <= UNSEEN
    assert {"cluster", "version", "permissions", "namespace", "job", "store", "source", "clock"} <= verdicts(
        found, "ok"
    )
    assert f"system:serviceaccount:{world.namespace}:runner-submitter" in found["cluster"]["finding"]
    assert kubectl("get", "jobs", "-n", world.namespace, "-o", "name") == "", "it was only asked whether one is taken"
    assert [info.key for info in world.store.list("")] == []


def test_a_missing_secret_is_a_failure_for_who_may_look_and_the_command_mends_it(make_world) -> None:
    world = make_world(**SMALL)
    kubectl("delete", "secret", SECRET, "-n", world.namespace)
    admin = ("--kubeconfig", os.environ["KUBECONFIG"])
    found, done = examined(world, *admin)
    assert done.returncode == 3, done.stdout
    assert verdicts(found, "fail") == {"secret"}
    command = f"-n {world.namespace} create secret generic {SECRET} --from-file=key=FILE"
    assert found["secret"]["mend"].endswith(command)
    assert f"next: {found['secret']['mend']}" in done.stderr
    kubectl(*command.replace("FILE", "/dev/stdin").split(), given=CANARY)
    found, done = examined(world, *admin)
    assert (done.returncode, found["secret"]["verdict"]) == (0, "ok"), done.stdout


def test_a_right_that_is_missing_is_a_failure_with_the_commands_that_give_it(make_world) -> None:
    world = make_world(**SMALL)
    role = ("role", "runner-submitter", "-n", world.namespace)
    document = json.loads(kubectl("get", *role, "-o", "json"))
    fewer = [rule for rule in document["rules"] if rule != READ_LOGS]
    assert len(fewer) == len(document["rules"]) - 1
    kubectl("patch", *role, "--type=merge", "-p", json.dumps({"rules": fewer}))
    # The API server learns of it in a moment.
    until(lambda: examined(world)[1].returncode == 3, "the right is gone", 60)
    found, done = examined(world)
    assert verdicts(found, "fail") == {"permissions"}, done.stdout
    assert found["permissions"]["finding"] == f"may not in namespace {world.namespace}: get pods/log"
    mend = found["permissions"]["mend"]
    assert f"{world.namespace}/' manifests/rbac.yaml | kubectl " in mend
    assert mend.endswith(f"--role=runner-submitter --serviceaccount={world.namespace}:runner-submitter")
    assert f"next: {mend}" in done.stderr
    world.grant()
    until(lambda: examined(world)[1].returncode == 0, "the right is given back", 60)
