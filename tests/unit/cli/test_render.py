"""`runner render` as a process: offline, the same bytes every time, no secret, and the id that the worker works out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from runner import ledger, run_record
from runner.runs.request import draft
from runner.spec import RunSpec
from runner.task import Outcome

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("RUNNER_", "TARDIS_", "GCS_"))}
REQUEST = (
    "--start-date",
    "2024-08-01",
    "--venues",
    "binance",
    "--store",
    "gs://bucket/prefix",
    "--image",
    "runner:dev",
)


def run(cwd: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runner", *words],
        cwd=cwd,
        env={**CLEAN, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def render(cwd: Path, *words: str, **env: str) -> str:
    done = run(cwd, "render", *words, **env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def variables(text: str) -> dict:
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def test_nobody_is_asked_and_equal_requests_are_equal_bytes(tmp_path: Path) -> None:
    nowhere = {"RUNNER_TARDIS_URL": "http://127.0.0.1:1", "RUNNER_TARDIS_API_URL": "http://127.0.0.1:1"}
    nowhere |= {"KUBECONFIG": str(tmp_path / "none"), "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none")}
    first = render(tmp_path, *REQUEST, **nowhere)
    assert yaml.safe_load(first)["kind"] == "Job"
    assert render(tmp_path, *REQUEST, **nowhere) == first
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_the_environment_is_nowhere(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("fake-key-canary")
    for env in ({"TARDIS_API_KEY": "fake-key-canary"}, {"TARDIS_API_KEY_FILE": str(tmp_path / "key")}):
        assert "canary" not in render(tmp_path, *REQUEST, **env)


def test_a_dry_run_at_the_client_prints_the_same(tmp_path: Path) -> None:
    words = (*REQUEST, "-n", "somewhere", "--shards", "3")
    submitted = run(tmp_path, "submit", *words, "--backend", "kubernetes", "--dry-run=client")
    assert submitted.returncode == 0, submitted.stderr
    assert submitted.stdout == render(tmp_path, *words)


def test_a_file_of_values_may_say_the_run_too(tmp_path: Path) -> None:
    """The same file that helm is given, what helm alone understands with it."""
    (tmp_path / "values.yaml").write_text(
        "run: {enabled: true, startDate: 2024-08-01, venues: [BINANCE], store: 'gs://bucket/prefix', shards: 3}\n"
        "pod: {image: 'runner:dev'}\ninstall: {enabled: false}\n"
    )
    said = ("--values", "values.yaml", "-n", "somewhere")
    assert render(tmp_path, *said) == render(tmp_path, *REQUEST, "-n", "somewhere", "--shards", "3")
    submitted = run(tmp_path, "submit", *said, "--backend", "kubernetes", "--dry-run=client")
    assert submitted.stdout == render(tmp_path, *said)
    # A flag wins over a file.
    assert yaml.safe_load(render(tmp_path, *said, "--shards", "5"))["spec"]["completions"] == 5
    wrong = run(tmp_path, "render", *said, "--values", "missing.yaml")
    assert (wrong.returncode, "missing.yaml: no such file" in wrong.stderr) == (2, True)


def test_the_job_has_the_name_that_the_planner_works_out(world, tmp_path: Path) -> None:
    """The worker of shard 0 refuses to plan under an id that is another request's."""
    urls = ("--tardis-url", world.server.url, "--tardis-api-url", world.server.api_url)
    mounted = tmp_path / "values.yaml"
    mounted.write_text(f"pod: {{volumeMounts: [{{name: data, mountPath: {tmp_path}}}]}}\n")
    for days in (("2024-08-01", "2024-08-02"), ("2024-08-01",)):
        dates = [word for flag, day in zip(("--start-date", "--end-date"), days, strict=False) for word in (flag, day)]
        words = (*dates, "--venues", "binance", "--store", world.store.url, "--image", "i", "--values", str(mounted))
        text = render(tmp_path, *words, *urls)
        spec = RunSpec.from_json(variables(text)["RUNNER_SPEC"])
        assert yaml.safe_load(text)["metadata"]["name"] == draft(spec, world.store, world.tardis).base
        assert variables(text)["RUNNER_RUN"] == yaml.safe_load(text)["metadata"]["name"]


def test_workers_that_are_told_nothing_more_plan_and_complete(world, tmp_path: Path) -> None:
    """As pods of an applied Job: index 0 plans, the others wait for it, and more indexes than tasks are no harm."""
    mounted = tmp_path / "values.yaml"
    mounted.write_text(f"pod: {{tardisKey: null, volumeMounts: [{{name: data, mountPath: {tmp_path}}}]}}\n")
    words = ("--start-date", "2024-08-01", "--venues", "binance", "--data-types", "trades", "--shards", "4")
    places = ("--store", world.store.url, "--image", "i", "--values", str(mounted))
    urls = ("--tardis-url", world.server.url, "--tardis-api-url", world.server.api_url)
    said = variables(render(tmp_path, *words, *places, *urls))
    env = {name: value for name, value in said.items() if value is not None} | {"RUNNER_SCRATCH": str(tmp_path)}
    pods = [
        subprocess.Popen(
            [sys.executable, "-m", "runner", "worker"],
            env={**CLEAN, **env, "JOB_COMPLETION_INDEX": str(index), "RUNNER_THREADS": "1"},
            stderr=subprocess.DEVNULL,
        )
        for index in (3, 2, 1, 0)
    ]
    assert [pod.wait(60) for pod in pods] == [0, 0, 0, 0]
    record = run_record.get_run(world.store, said["RUNNER_RUN"])
    assert (record.tasks, record.shards) == (2, 2)
    entries = ledger.fold(ledger.read_attempts(world.store, record.id)).entries
    assert {entry.outcome for entry in entries.values()} == {Outcome.DONE}
    assert len(entries) == 2


def test_a_run_that_a_pod_plans_is_known_as_a_clusters(tmp_path: Path) -> None:
    assert RunSpec.from_json(variables(render(tmp_path, *REQUEST))["RUNNER_SPEC"]).backend == "kubernetes"


def test_the_name_alone_and_json(tmp_path: Path) -> None:
    name = render(tmp_path, *REQUEST, "-o", "name")
    assert name == f"{yaml.safe_load(render(tmp_path, *REQUEST))['metadata']['name']}\n"
    assert yaml.safe_load(render(tmp_path, *REQUEST, "-o", "json")) == yaml.safe_load(render(tmp_path, *REQUEST))


def test_places_and_values_are_laid_over_the_charts(tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("pod: {nodeSelector: {disk: local}, resources: {requests: {cpu: 250m}}}\n")
    spec = yaml.safe_load(render(tmp_path, *REQUEST, "--placement", "spot-highmem", "--values", "more.yaml"))["spec"]
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"]["disk"] == "local"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["containers"][0]["resources"]["requests"]["cpu"] == "250m"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--store", "gs://bucket/prefix", "--image", "i"), "--start-date"),
        (REQUEST[:-2], "--image"),
        ((*REQUEST, "--placement", "moon"), "any, computeclass, spot-highmem"),
        ((*REQUEST, "--values", "none.yaml"), "none.yaml: no such file"),
        ((*REQUEST, "-o", "table"), "yaml, json, name"),
        ((*REQUEST, "-n", "No_Such"), "--namespace"),
    ],
)
def test_what_cannot_be_rendered_is_one_line(tmp_path: Path, words: tuple[str, ...], part: str) -> None:
    done = run(tmp_path, "render", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert part in done.stderr
