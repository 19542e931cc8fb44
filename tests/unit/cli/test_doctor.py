"""`runner doctor` as a user types it: what is printed, in which form, and the exit code."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.unit.backends.kubernetes import api as double
from tests.unit.cli.test_cluster import env, run  # noqa: F401 - a fixture
from tests.unit.doctor.world import MARKET, RESTRICTED, node

KEY = "fake-key-1"


@pytest.fixture
def api() -> Iterator[double.Api]:
    with double.serve() as server:
        server.about |= {
            MARKET: {"metadata": {"name": "market", "labels": RESTRICTED}},
            f"{MARKET}/secrets/tardis-api-key": {"data": {"key": "ZmFrZS1rZXktMQ=="}},
            "/api/v1/nodes": {"items": [node("10.0.0.2", "runner:1")]},
            "/apis/apps/v1/daemonsets": {"items": []},
        }
        yield server


CLUSTER = ("doctor", "--backend", "kubernetes", "--venues", "binance", "--image", "runner:1")


def test_all_that_can_be_known_is_well_and_exit_is_0(env: dict[str, str]) -> None:  # noqa: F811
    done = run(env, *CLUSTER)
    assert done.returncode == 0, done.stdout
    verdicts = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:] if line[0] != " "}
    assert verdicts == {
        "cluster": "ok",
        "version": "ok",
        "permissions": "ok",
        "namespace": "ok",
        "network": "unknown",
        "account": "warn",
        "secret": "ok",
        "image": "ok",
        "egress": "unknown",
        "job": "ok",
        "store": "ok",
        "source": "ok",
        "key": "ok",
        "clock": "ok",
    }
    assert KEY not in done.stdout + done.stderr
    assert "ZmFrZS1" not in done.stdout + done.stderr


def test_a_failure_is_exit_3_with_the_first_command_that_mends(env: dict[str, str], api: double.Api) -> None:  # noqa: F811
    del api.about[f"{MARKET}/secrets/tardis-api-key"]
    done = run(env, *CLUSTER)
    assert done.returncode == 3
    assert "create secret generic tardis-api-key --from-file=key=FILE" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("next: kubectl ")


def test_json_and_yaml_say_the_same_and_names_are_what_is_not_well(env: dict[str, str]) -> None:  # noqa: F811
    document = json.loads(run(env, *CLUSTER, "-o", "json").stdout)
    assert document["kind"] == "Examination"
    assert {*document["checks"][0]} == {"name", "verdict", "finding", "mend"}
    by_name = {check["name"]: check["verdict"] for check in document["checks"]}
    printed = yaml.safe_load(run(env, *CLUSTER, "-o", "yaml").stdout)
    assert {check["name"]: check["verdict"] for check in printed["checks"]} == by_name
    names = run(env, *CLUSTER, "-o", "name").stdout.split()
    assert names == [name for name, verdict in by_name.items() if verdict != "ok"]


def test_values_say_which_secret_and_account(env: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    values = tmp_path / "values.yaml"
    values.write_text("pod: {serviceAccountName: someone, tardisKey: {secretName: other}}\n")
    done = run(env, *CLUSTER, "--values", str(values))
    assert done.returncode == 3
    assert "no service account someone" in done.stdout
    assert "no Secret other" in done.stdout


def test_without_a_cluster_or_a_store_it_says_what_to_set(env: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    bare = {name: value for name, value in env.items() if name not in ("RUNNER_STORE", "KUBECONFIG")}
    done = run(bare, "doctor", "--venues", "binance")
    assert done.returncode == 3
    assert [line.split()[0] for line in done.stdout.splitlines()[1:] if line[0] != " "] == [
        "store",
        "source",
        "key",
        "egress",
        "clock",
    ]
    assert "next: give --store URL, or set RUNNER_STORE" in done.stderr
    lost = run({**bare, "KUBECONFIG": str(tmp_path / "none")}, *CLUSTER, "--store", str(tmp_path))
    assert lost.returncode == 3
    assert "no cluster is configured" in lost.stdout


def test_a_key_that_a_server_repeats_is_hidden(env: dict[str, str], api: double.Api) -> None:  # noqa: F811
    api.faults.append(double.Fault("GET /version", 500, f"you said {KEY}"))
    done = run(env, *CLUSTER)
    assert done.returncode == 3
    assert KEY not in done.stdout + done.stderr
    assert "[hidden]" in done.stdout
