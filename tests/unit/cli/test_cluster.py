"""The commands on a cluster's runs, as a user types them: a small API server and sandboxes over sockets, no worker."""

import io
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import PIPE
from unittest import mock

import pytest
import yaml
from kubernetes.config import kube_config

from runner import layout, ledger
from runner.cli import main
from runner.sandbox import gcs
from runner.sandbox.tardis import Options, serve
from runner.store import open_store
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
    """Run a command in this process: one of its own costs a second each time."""
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    before, level = root.handlers[:], root.level
    # The client reads this variable once, when it is imported.
    kubeconfig = mock.patch.object(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", env.get("KUBECONFIG", "/nowhere"))
    try:
        with mock.patch.dict(os.environ, env, clear=True), kubeconfig, redirect_stdout(out), redirect_stderr(err):
            code = main(words)
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


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


def test_a_retry_has_the_values_of_its_run_unless_flags_say_otherwise(
    env: dict[str, str], api: double.Api, tmp_path: Path
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("pod: {nodeSelector: {disk: local}, resources: {requests: {memory: 1Gi}, limits: {memory: 1Gi}}}")
    name = run(env, *SUBMIT, "--values", str(values), "-o", "name").stdout.strip()
    values.unlink()
    assert run(env, "cancel", name).returncode == 0
    again = run(env, "retry", name, "--memory", "3Gi", "-o", "name")
    assert again.returncode == 0, again.stderr
    spec = api.objects["jobs"][again.stdout.strip()]["spec"]["template"]["spec"]
    resources = spec["containers"][0]["resources"]
    assert spec["nodeSelector"] == {"disk": "local"}
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == ("3Gi", "3Gi")
    assert resources["limits"]["ephemeral-storage"] == "10Gi", "the chart's own stays"
    assert run(env, "cancel", again.stdout.strip()).returncode == 0
    anywhere = run(env, "retry", again.stdout.strip(), "--placement", "any", "-o", "name")
    spec = api.objects["jobs"][anywhere.stdout.strip()]["spec"]["template"]["spec"]
    assert "nodeSelector" not in spec
    assert spec["containers"][0]["resources"]["limits"]["memory"] == "3Gi"


@pytest.mark.parametrize("words", [("--memory", "much"), ("--memory", "4Gi", "--backend", "local")])
def test_memory_that_makes_no_sense_is_wrong_usage(env: dict[str, str], words: tuple[str, ...]) -> None:
    done = run(env, *SUBMIT, *words)
    assert done.returncode == 2
    assert "--memory" in done.stderr


def test_status_followed_ends_with_the_verdict_or_with_ctrl_c(env: dict[str, str], api: double.Api) -> None:
    name = run(env, *SUBMIT, "-o", "name").stdout.strip()
    words = [sys.executable, "-m", "runner", "status", name, "-w"]
    with subprocess.Popen(words, env=env, stdout=PIPE, stderr=PIPE, text=True) as watching:
        until(lambda: api.seen("WATCH *") == 3)
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert f"next: runner status {name} --watch" in said
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    with subprocess.Popen(words, env=env, stdout=PIPE, stderr=PIPE, text=True) as watching:
        until(lambda: api.seen("WATCH *") == 6)
        api.put("jobs", {**api.objects["jobs"][name], "status": {"conditions": [late]}})
        out, said = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert out.startswith(f"run {name}  failed")
    assert "why     deadline" in said
    assert f"next: runner retry {name}" in said
    assert run(env, "wait", name).returncode == 1


def test_logs_are_followed_to_the_runs_end(env: dict[str, str], api: double.Api) -> None:
    name = run(env, *SUBMIT, "-o", "name").stdout.strip()
    labels = {"batch.kubernetes.io/job-name": name, "batch.kubernetes.io/job-completion-index": "0"}
    metadata = {"name": f"{name}-0-x", "labels": labels, "creationTimestamp": "2024-08-08T00:00:00Z"}
    api.logs[f"{name}-0-x"] = "2024-08-08T00:00:01.000000000Z one\n"
    api.put("pods", {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}})
    words = [sys.executable, "-m", "runner", "logs", name, "-f", "-o", "json"]
    with subprocess.Popen(words, env=env, stdout=PIPE, stderr=PIPE, text=True) as logging:
        assert json.loads(logging.stdout.readline())["text"] == "one\n"
        api.logs[f"{name}-0-x"] += "2024-08-08T00:00:02.000000000Z two\n"
        over = {"type": "Failed", "status": "True", "reason": "FailedIndexes"}
        api.put("jobs", {**api.objects["jobs"][name], "status": {"failedIndexes": "0,1", "conditions": [over]}})
        out, said = logging.communicate(timeout=60)
    assert logging.returncode == 0, said
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["two\n"]


def test_a_run_that_cannot_be_asked_after_stops_no_list(env: dict[str, str], tmp_path: Path) -> None:
    name = run(env, *SUBMIT, "-o", "name").stdout.strip()
    listed = run({**env, "KUBECONFIG": str(tmp_path / "none")}, "list")
    assert listed.returncode == 0
    assert f"{name} is not asked after: no cluster is configured" in listed.stderr
    assert name in listed.stdout


def test_a_run_elsewhere_is_exit_2_and_given_up_only_by_name(env: dict[str, str], api: double.Api) -> None:
    name = run(env, *SUBMIT, "-o", "name").stdout.strip()
    with double.serve() as other:
        (Path(env["KUBECONFIG"]).parent / "other").mkdir()
        there = {**env, "KUBECONFIG": other.kubeconfig(Path(env["KUBECONFIG"]).parent / "other", {"token": "fake-2"})}
        for words in (("status", name), ("wait", name), ("cancel", name), SUBMIT):
            done = run(there, *words)
            assert done.returncode == 2, done.stderr
            assert len(done.stderr.strip().splitlines()[-1:]) == 1
            assert api.url in done.stderr
            assert other.url in done.stderr
        given_up = run(there, "cancel", name, "--abandon")
        assert given_up.returncode == 0, given_up.stderr
        assert other.objects["jobs"] == {}
    assert list(api.objects["jobs"]) == [name]


def begun_in_a_pod(env: dict[str, str], api: double.Api, name: str) -> None:
    """Rewrite a run's records as a pod of the cluster writes them, which names no context and sees another address."""
    api.about["/api/v1/namespaces/market"] = {"metadata": {"name": "market", "uid": "uid-market"}}
    inside = {"server": "https://10.96.0.1:443", "authorities": ["beef"], "context": None, "uid": "uid-market"}
    with mock.patch.dict(os.environ, env, clear=True):
        store = open_store(env["RUNNER_STORE"])
        for key, change in ((layout.run_record(name), {}), (layout.cluster(name), inside)):
            live, document = store.head(key), {**json.loads(store.get(key)), **change}
            if "spec" in document:
                document["spec"]["context"] = None
            store.put(key, ledger.canonical(document), if_generation=live.generation)


def test_a_run_that_a_pod_began_is_followed_and_retried_from_a_terminal(env: dict[str, str], api: double.Api) -> None:
    name = run(env, *SUBMIT, "-o", "name").stdout.strip()
    begun_in_a_pod(env, api, name)
    shown = run(env, "status", name)
    assert shown.returncode == 0, shown.stderr
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    api.put("jobs", {**api.objects["jobs"][name], "status": {"conditions": [late]}})
    ended = run(env, "wait", name)
    assert ended.returncode == 1
    api.remove("jobs", name)
    again = run(env, *next_of(ended)[1:])
    assert again.returncode == 0, again.stderr
    assert len(api.objects["jobs"]) == 1
    assert "in-cluster" not in shown.stdout + shown.stderr + ended.stderr + again.stderr


def test_a_run_that_a_pod_began_and_whose_job_is_gone_goes_on_from_a_terminal(
    env: dict[str, str], api: double.Api
) -> None:
    name = run(env, *SUBMIT, "-o", "name").stdout.strip()
    begun_in_a_pod(env, api, name)
    api.remove("jobs", name)
    again = run(env, *SUBMIT)
    assert again.returncode == 0, again.stderr
    assert list(api.objects["jobs"]) == [name]
    with double.serve() as other:
        (Path(env["KUBECONFIG"]).parent / "other").mkdir()
        there = {**env, "KUBECONFIG": other.kubeconfig(Path(env["KUBECONFIG"]).parent / "other", {"token": "fake-2"})}
        other.about["/api/v1/namespaces/market"] = {"metadata": {"name": "market", "uid": "uid-other"}}
        done = run(there, "status", name)
        assert (done.returncode, "https://10.96.0.1:443 (from a pod of it)" in done.stderr) == (2, True), done.stderr


def test_the_next_command_can_be_pasted_whatever_led_to_it(env: dict[str, str], api: double.Api) -> None:
    """A kubeconfig, a store and a source by flags, a run file: each command takes those of them that it knows."""
    file = Path(env["KUBECONFIG"]).parent / "run file.yaml"
    file.write_text("shards: 2\n")
    words = ("--kubeconfig", env["KUBECONFIG"], "--store", env["RUNNER_STORE"], "-f", str(file))
    source = ("--tardis-url", env["RUNNER_TARDIS_URL"], "--tardis-api-url", env["RUNNER_TARDIS_API_URL"])
    bare = {k: v for k, v in env.items() if not k.startswith(("RUNNER_", "KUBECONFIG"))}
    made = run(bare, *SUBMIT, *words, *source)
    assert made.returncode == 0, made.stderr
    command = next_of(made)
    assert command[:2] == ["runner", "status"]
    name = command[2]
    api.put("jobs", {**api.objects["jobs"][name], "spec": {**api.objects["jobs"][name]["spec"], "suspend": True}})
    shown = run(bare, *[word for word in command[1:] if word != "--watch"])
    assert shown.returncode == 0, shown.stderr
    late = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    api.put("jobs", {**api.objects["jobs"][name], "status": {"conditions": [late]}})
    failed = run(bare, "wait", name, *words)
    again = run(bare, *next_of(failed)[1:], *source)
    assert again.returncode == 0, again.stderr
    assert len(api.objects["jobs"]) == 2


def next_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    return shlex.split(next(line for line in done.stderr.splitlines() if line.startswith("next: "))[6:])


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.02)


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
