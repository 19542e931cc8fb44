"""The commands on a cluster's runs, as a user types them: a small API server and sandboxes over sockets, no worker."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from runner.sandbox import gcs
from runner.sandbox.tardis import Options, serve
from tests.unit.backends.kubernetes import api as double
from tests.unit.backends.kubernetes.api import Fault

GENERATED = {
    "exchange": "binance",
    "symbols": ["BTCUSDT", "ETHUSDT"],
    "data_types": ["trades"],
    "days": ["2024-08-01", "2024-08-02"],
    "rows_per_day": 60,
    "seed": 7,
}
REQUEST = ("download", "--venues", "binance", "--data-types", "trades", "--start-date", "2024-08-01")
SUBMIT = ("submit", *REQUEST, "--backend", "kubernetes", "--image", "runner:test")


@pytest.fixture
def api() -> Iterator[double.Api]:
    with double.serve() as server:
        yield server


@pytest.fixture
def env(api: double.Api, tmp_path: Path) -> Iterator[dict[str, str]]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "GCS_"))}
    buckets = gcs.Options(buckets=("sandbox",))
    with serve(Options(generate=GENERATED, cache=tmp_path / "generated")) as source, gcs.serve(buckets) as bucket:
        yield {
            **ours,
            "KUBECONFIG": api.kubeconfig(tmp_path, {"token": "fake-token-1"}),
            "STORAGE_EMULATOR_HOST": bucket.url,
            "RUNNER_STORE": "gs://sandbox/here",
            "RUNNER_TARDIS_URL": source.url,
            "RUNNER_TARDIS_API_URL": source.api_url,
            "TARDIS_API_KEY": "fake-key-1",
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }


def run(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_run_lives_on_the_cluster_from_submit_to_clean(env: dict[str, str], api: double.Api) -> None:
    made = run(env, *SUBMIT, "-o", "name")
    name = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    assert f"context here ({api.url}) · namespace market · image runner:test" in made.stderr
    assert list(api.objects["jobs"]) == [name]

    again = run(env, *SUBMIT, "--shards", "1")
    assert again.returncode == 0
    assert f"attached to {name} with its own 2 shards" in again.stderr

    api.put("jobs", {**api.objects["jobs"][name], "spec": {**api.objects["jobs"][name]["spec"], "suspend": True}})
    shown = run(env, "status", name)
    assert shown.returncode == 0
    assert "why     suspended" in shown.stdout
    assert f"kubectl -n market patch job {name}" in shown.stdout
    assert json.loads(run(env, "status", name, "-o", "json").stdout)["causes"][0]["kind"] == "suspended"

    waited = run(env, "wait", name, "--timeout", "0.1")
    assert waited.returncode == 6

    assert run(env, "cancel", name).returncode == 0
    assert api.objects["jobs"] == {}
    assert "cancelled" in run(env, "list").stdout

    retried = run(env, "retry", name, "-o", "name")
    assert retried.returncode == 0, retried.stderr
    (job,) = api.objects["jobs"].values()
    assert job["metadata"]["name"] == retried.stdout.strip()
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == "runner:test"

    assert run(env, "clean", name, "--yes").returncode == 0


def test_a_dry_run_prints_the_job_and_records_nothing(env: dict[str, str], api: double.Api) -> None:
    ours = yaml.safe_load(run(env, *SUBMIT, "--dry-run", "client").stdout)
    theirs = yaml.safe_load(run(env, *SUBMIT, "--dry-run", "server").stdout)
    # The cluster's own names where and on which cluster it is, the other is for any.
    assert ours["spec"]["podFailurePolicy"] == theirs["spec"]["podFailurePolicy"]
    assert (ours["metadata"].get("namespace"), theirs["metadata"]["namespace"]) == (None, "market")
    assert theirs["dry"] is True
    assert api.objects["jobs"] == {}
    assert run(env, "list", "-o", "name").stdout == ""
    local = run(env, "submit", *REQUEST, "--dry-run", "client")
    assert local.returncode == 2
    assert "--backend kubernetes" in local.stderr


def test_a_run_of_another_backend_is_not_taken_over(env: dict[str, str], api: double.Api) -> None:
    name = run(env, *SUBMIT, "-o", "name").stdout.strip()
    taken = run(env, "submit", *REQUEST)
    assert taken.returncode == 2
    assert f"run {name} began on the kubernetes backend" in taken.stderr


def test_a_right_that_is_missing_is_exit_4_with_the_rule(env: dict[str, str], api: double.Api) -> None:
    api.faults.append(Fault("POST *", 403, "forbidden"))
    refused = run(env, *SUBMIT)
    assert refused.returncode == 4
    assert 'resources: ["jobs"], verbs: ["create"]' in refused.stderr


def test_no_cluster_at_all_is_said_before_anything_is_recorded(env: dict[str, str], tmp_path: Path) -> None:
    lost = run({**env, "KUBECONFIG": str(tmp_path / "none")}, *SUBMIT)
    assert lost.returncode == 1
    assert "no cluster is configured" in lost.stderr
    assert run(env, "list", "-o", "name").stdout == ""
