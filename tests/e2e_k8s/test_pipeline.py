"""The chart, installed by Helm alone: every morning yesterday is there, or a failed Job tells which venue lacks what.

The days are those around today, because a CronJob's schedule goes by the cluster's clock; the source's is moved.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e_k8s.cluster import IMAGE, ROOT, Site, control, kubectl, kubectl_json, sandbox, served, until
from tests.e2e_k8s.world import World

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1500)]
TODAY = datetime.now(UTC).date()
VENUES = ("BINANCE", "OKX-SWAP")
_DAYS = {"days": [str(TODAY - timedelta(days=3)), str(TODAY)], "data_types": ["trades"], "rows_per_day": 300, "seed": 7}
SERVED = (
    {**_DAYS, "exchange": "binance", "symbols": ["BTCUSDT", "ETHUSDT"]},
    {**_DAYS, "exchange": "okex-swap", "symbols": ["BTC-USDT-SWAP"]},
)
SMALL_POD = {"cpu": "100m", "memory": "400Mi", "ephemeral-storage": "200Mi"}


class Installed(World):
    """A namespace in which nothing is but the Secret, until Helm comes."""

    def open(self) -> None:
        level = {"pod-security.kubernetes.io/enforce": "restricted"}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": level}}
        kubectl("apply", "-f", "-", given="\n---\n".join((yaml.safe_dump(space), yaml.safe_dump(self.secret))))
        self.folder.mkdir(parents=True, exist_ok=True)

    def install(self, helm: str, name: str, **values: Any) -> str:
        """Install a release; return what Helm says of it."""
        tardis = {"url": f"{self.site.tardis}/v1", "apiUrl": f"{self.site.tardis}/v1", "attempts": 2}
        own = {"store": f"gs://sandbox/{self.namespace}", "shards": 2, "parallelism": 2, "tardis": tardis}
        document = {**values, "run": {**own, **values.get("run", {})}, "pod": {**self.values["pod"], "image": IMAGE}}
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document))
        command = [helm, "install", name, ROOT / "charts/runner", "-n", self.namespace, "-f", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def may_submit(self) -> None:
        """Have the command line speak as the account that the release made for it."""
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(self._kubeconfig()))

    def jobs(self, labels: str) -> dict[str, dict[str, Any]]:
        found = kubectl_json("get", "jobs", "-n", self.namespace, "-l", labels)["items"]
        return {job["metadata"]["name"]: job for job in found}


@pytest.fixture(scope="session")
def helm() -> str:
    return subprocess.run([ROOT / "scripts/helm"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def world(site: Site, tmp_path: Path) -> Iterator[Installed]:
    files = {"generate.json": json.dumps(SERVED)}
    with served(sandbox("tardis", "--generate", "/files/generate.json", files=files)) as found:
        made = Installed(tmp_path / "world", Site(found["tardis"].outside, site.gcs), {})
        made.job = {"venues": list(VENUES), "dataTypes": ["trades"], "shards": 2, "parallelism": 2}
        made.open()
        yield made
        made.close()


def ended(job: dict[str, Any]) -> str:
    """Return how a Job has ended, and nothing while it has not."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((c["type"] for c in conditions if c["status"] == "True" and c["type"] in ("Complete", "Failed")), "")


def at(world: World, moment: datetime) -> None:
    control(world.site.tardis, "POST", "clock", {"now": moment.strftime("%Y-%m-%dT%H:%M:%SZ")})


def evening(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 20, tzinfo=UTC)


def test_mornings_come_by_themselves_late_ones_incomplete_ones_and_two_at_once(world: Installed, helm: str) -> None:
    yesterday = TODAY - timedelta(days=1)
    at(world, evening(yesterday))
    world.site.fault(path="*/okex-swap/*.csv.gz", fault="status", code=503)
    pipeline = {
        "schedule": "* * * * *",
        "args": ["--lookback-days", "1", "--deadline", "300", "--poll", "1"],
        "resources": {"requests": SMALL_POD, "limits": {k: v for k, v in SMALL_POD.items() if k != "cpu"}},
    }
    notes = world.install(
        helm,
        "daily",
        run={"venues": list(VENUES), "dataTypes": ["trades"], "retry": {"limit": 1}},
        install={"enabled": True, "pipeline": pipeline},
    )
    world.may_submit()
    assert "kubectl -n " in notes
    of_pipeline = "app.kubernetes.io/component=pipeline"
    (first,) = until(lambda: world.jobs(of_pipeline), "the CronJob fires", 90)
    kubectl("patch", "cronjob", "daily-pipeline", "-n", world.namespace, "-p", '{"spec": {"suspend": true}}')

    def log(job: str) -> str:
        return kubectl(
            "logs", "-n", world.namespace, "-l", f"batch.kubernetes.io/job-name={job}", "--tail=-1", check=False
        )

    # Yesterday's files are late. Whoever waits for them is killed: another one waits.
    until(lambda: f"export day={yesterday}" in log(first), "yesterday is waited for", 240)
    (waiting,) = [p for p in world.pods(first) if p["status"]["phase"] == "Running"]
    kubectl("delete", "pod", waiting["metadata"]["name"], "-n", world.namespace, "--force", "--grace-period=0")
    at(world, datetime.now(UTC))
    job = until(lambda: ended(j := world.jobs(of_pipeline)[first]) and j, "the first morning ends", 600)
    assert ended(job) == "Failed"
    assert f"pipeline day={yesterday} verdict=incomplete venues=OKX-SWAP" in log(first)
    listed = json.loads(world.cli("list", "--stage", "pipeline", "-o", "json").stdout)["runs"]
    assert {each["state"] for each in listed} == {"failed"}

    # The venue is back; two are started by hand at once.
    world.site.control("DELETE", "faults")

    def start(name: str) -> None:
        kubectl("create", "job", name, "--from=cronjob/daily-pipeline", "-n", world.namespace)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(start, ("one", "two")))
    labels = "app.kubernetes.io/name=runner"
    twins = until(
        lambda: all(map(ended, found := [world.jobs(labels)[name] for name in ("one", "two")])) and found,
        "both come to an end",
        600,
    )
    assert [ended(twin) for twin in twins] == ["Complete", "Complete"], log("one") + log("two")
    checked = world.cli("validate", "--start-date", str(yesterday))
    assert checked.returncode == 0, checked.stdout
    assert set(world.site.bodies.values()) == {1}, "each file came once, whoever was killed and how many asked"
    assert all(map(ended, world.jobs(labels).values())), "nothing is left at work"
    # A morning with nothing to do says so.
    start("three")
    third = until(lambda: ended(j := world.jobs(labels)["three"]) and j, "the third ends", 120)
    assert (ended(third), "nothing to do" in log("three")) == ("Complete", True)


def test_a_run_that_helm_installs_is_the_one_that_would_be_submitted(world: Installed, helm: str) -> None:
    at(world, datetime.now(UTC))
    day = str(TODAY - timedelta(days=2))
    world.install(helm, "accounts", install={"enabled": True, "pipeline": {"enabled": False}})
    world.may_submit()
    world.job |= {"startDate": day, "endDate": day}
    name = world.cli("render", "download", "-o", "name").stdout.strip()
    run = {"enabled": True, "startDate": day, "endDate": day, "venues": list(VENUES), "dataTypes": ["trades"]}
    world.install(helm, "once", run=run)
    assert list(world.jobs(f"runner/run={name}")) == [name]
    until(lambda: world.run_ids() == (name,), "the worker of shard 0 has planned")
    assert world.cli("wait", name).returncode == 0
    again = world.cli("submit", "download")
    assert (again.returncode, "nothing to do" in again.stderr) == (0, True), again.stderr
    assert set(world.site.bodies.values()) == {1}
