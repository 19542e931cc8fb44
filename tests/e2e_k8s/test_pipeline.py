"""The chart, installed by Helm alone: every morning yesterday is there, or a failed Job tells which venue lacks what.

The days are those around today, because a CronJob's schedule goes by the cluster's clock; the source's is moved.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from runner.sandbox.tardis import Options, serve
from tests.e2e import invariants
from tests.e2e.world import World as LocalWorld
from tests.e2e_k8s.cluster import (
    IMAGE,
    ROOT,
    SANDBOX_PORT,
    Site,
    control,
    kubectl,
    kubectl_json,
    sandbox,
    served,
    until,
)
from tests.e2e_k8s.world import Held, World

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1500)]
VENUES = ("BINANCE", "OKX-SWAP")
SMALL_POD = {"cpu": "100m", "memory": "400Mi", "ephemeral-storage": "200Mi"}
PIPELINE_POD = {"resources": {"requests": SMALL_POD, "limits": {k: v for k, v in SMALL_POD.items() if k != "cpu"}}}


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
        if "install" in values:
            document["install"] = {"networkPolicy": {"ports": self.ports}, **values["install"]}
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document))
        command = [helm, "install", name, ROOT / "charts/runner", "-n", self.namespace, "-f", file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def ports(self) -> list[int]:
        """Return what pods reach beside HTTPS: the API server and the sandboxes.

        A network that enforces policies sees a packet's port as it leaves the pod, or as kube-proxy has changed it: the
        node's port of a sandbox or the sandbox's own. The API server's service is at 443, itself at 6443.
        """
        return [6443, SANDBOX_PORT, *(urlsplit(url).port or 80 for url in (self.site.tardis, self.site.gcs))]

    def may_submit(self) -> None:
        """Have the command line speak as the account that the release made for it."""
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(self._kubeconfig()))

    def start(self, job: str, then: datetime | None = None) -> None:
        """Start the pipeline by hand, as the chart's notes say: now, or as on another morning."""
        create = ("create", "job", job, "--from=cronjob/daily-pipeline", "-n", self.namespace)
        if then is None:
            kubectl(*create)
            return
        scheduled = f"batch.kubernetes.io/cronjob-scheduled-timestamp={then:%Y-%m-%dT%H:%M:%SZ}"
        made = kubectl(*create, "--dry-run=client", "-o", "yaml")
        dated = kubectl("annotate", "--local", "--overwrite", "-f", "-", scheduled, "-o", "yaml", given=made)
        kubectl("apply", "-f", "-", given=dated)

    def finished(self, job: str) -> dict[str, Any]:
        """Return a Job that has come to its end."""
        labels = "app.kubernetes.io/name=runner"
        found: dict[str, Any] = until(lambda: ended(j := self.jobs(labels)[job]) and j, f"the Job {job} ends", 600)
        return found

    def log(self, job: str) -> str:
        labels = f"batch.kubernetes.io/job-name={job}"
        return kubectl("logs", "-n", self.namespace, "-l", labels, "--tail=-1", check=False)

    def jobs(self, labels: str) -> dict[str, dict[str, Any]]:
        found = kubectl_json("get", "jobs", "-n", self.namespace, "-l", labels)["items"]
        return {job["metadata"]["name"]: job for job in found}


@pytest.fixture(scope="session")
def helm() -> str:
    return subprocess.run([ROOT / "scripts/helm"], capture_output=True, text=True, check=True).stdout.strip()


def files(first: date, last: date) -> list[dict[str, Any]]:
    """Return what a source serves for all venues."""
    same = {"days": [str(first), str(last)], "data_types": ["trades"], "rows_per_day": 300, "seed": 7}
    symbols = {"binance": ["BTCUSDT", "ETHUSDT"], "okex-swap": ["BTC-USDT-SWAP"]}
    return [{**same, "exchange": exchange, "symbols": names} for exchange, names in symbols.items()]


@contextmanager
def installed(site: Site, folder: Path, generated: Sequence[Mapping[str, Any]]) -> Iterator[Installed]:
    given = {"generate.json": json.dumps(generated)}
    with served(sandbox("tardis", "--generate", "/files/generate.json", files=given)) as found:
        made = Installed(folder, Site(found["tardis"].outside, site.gcs), {})
        made.job = {"venues": list(VENUES), "dataTypes": ["trades"], "shards": 2, "parallelism": 2}
        made.open()
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def today() -> date:
    """Return a day that is today for as long as a test takes: shortly before midnight that is tomorrow."""
    until(lambda: (now := datetime.now(UTC)).hour < 23 or now.minute < 45, "a new day begins", 16 * 60, 1)
    return datetime.now(UTC).date()


@pytest.fixture
def world(site: Site, tmp_path: Path, today: date) -> Iterator[Installed]:
    with installed(site, tmp_path / "world", files(today - timedelta(days=3), today)) as made:
        yield made


def ended(job: dict[str, Any]) -> str:
    """Return how a Job has ended, and nothing while it has not."""
    conditions = job.get("status", {}).get("conditions", [])
    return next((c["type"] for c in conditions if c["status"] == "True" and c["type"] in ("Complete", "Failed")), "")


def at(world: World, moment: datetime) -> None:
    control(world.site.tardis, "POST", "clock", {"now": moment.strftime("%Y-%m-%dT%H:%M:%SZ")})


def evening(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 20, tzinfo=UTC)


def test_mornings_come_by_themselves_late_ones_incomplete_ones_and_two_at_once(
    world: Installed, helm: str, today: date
) -> None:
    yesterday = today - timedelta(days=1)
    at(world, evening(yesterday))
    world.site.fault(path="*/okex-swap/*.csv.gz", fault="status", code=503)
    words = ["--lookback-days", "1", "--deadline", "300", "--poll", "1"]
    pipeline = {"schedule": "* * * * *", "args": words, **PIPELINE_POD}
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

    # Yesterday's files are late. Whoever waits for them is killed: another one waits.
    until(lambda: f"export day={yesterday}" in world.log(first), "yesterday is waited for", 240)
    (waiting,) = [p for p in world.pods(first) if p["status"]["phase"] == "Running"]
    kubectl("delete", "pod", waiting["metadata"]["name"], "-n", world.namespace, "--force", "--grace-period=0")
    at(world, evening(today))
    assert ended(world.finished(first)) == "Failed"
    assert f"pipeline day={yesterday} verdict=incomplete venues=OKX-SWAP" in world.log(first)
    listed = json.loads(world.cli("list", "--stage", "pipeline", "-o", "json").stdout)["runs"]
    assert {each["state"] for each in listed} == {"failed"}

    # The venue is back; two are started by hand at once.
    world.site.control("DELETE", "faults")
    twins = ("one", "two")
    with ThreadPoolExecutor(len(twins)) as pool:
        list(pool.map(world.start, twins))
    assert {ended(world.finished(twin)) for twin in twins} == {"Complete"}, "".join(map(world.log, twins))
    checked = world.cli("validate", "--start-date", str(yesterday))
    assert checked.returncode == 0, checked.stdout
    assert set(world.site.bodies.values()) == {1}, "each file came once, whoever was killed and how many asked"
    assert all(map(ended, world.jobs("app.kubernetes.io/name=runner").values())), "nothing is left at work"
    # A morning with nothing to do says so.
    world.start("three")
    assert (ended(world.finished("three")), "nothing to do" in world.log("three")) == ("Complete", True)


def test_a_missed_morning_is_caught_up_a_late_one_waited_for_days_are_sealed_and_in_tokyo_all_is_as_in_utc(
    site: Site, tmp_path: Path, helm: str
) -> None:
    asked = {"venues": list(VENUES[:1]), "dataTypes": ["trades"]}
    generated = files(date(2024, 8, 8), date(2024, 8, 12))[:1]
    with installed(site, tmp_path / "world", generated) as world:
        world.zone = "Asia/Tokyo"
        pipeline = {"suspend": True, "args": ["--lookback-days", "2", "--poll", "1"], **PIPELINE_POD}
        world.install(helm, "daily", run=asked, install={"enabled": True, "pipeline": pipeline})
        for name, day in {"first": date(2024, 8, 9), "second": date(2024, 8, 11)}.items():
            at(world, evening(day))
            world.start(name)
            assert ended(world.finished(name)) == "Complete", world.log(name)
        verdicts = [line.split(" pipeline ")[1] for line in world.log("second").splitlines() if " verdict=" in line]
        early = datetime(2024, 8, 12, 5, tzinfo=UTC)
        at(world, early)
        world.start("third", early)
        until(lambda: "export day=2024-08-11" in world.log("third"), "the third morning waits", 240)
        at(world, evening(early.date()))
        assert ended(world.finished("third")) == "Complete", world.log("third")
        held = Held(world.store)
    assert verdicts == [f"day=2024-08-{day} verdict=complete" for day in ("09", "10")]
    with serve(Options(generate=generated, cache=tmp_path / "generated")) as server:
        here = LocalWorld(tmp_path / "here", server, {}, {**asked, "shards": 2, "parallelism": 2})
        here.folder.mkdir()
        with here.command("pipeline", "--day", "2024-08-08..2024-08-11") as process:
            _, told = process.communicate(timeout=400)
    assert process.returncode == 0, told
    assert invariants.contents(held) == invariants.contents(here.store)
    sealed = [info.key for info in held.list("processed_candles/") if info.metadata["sealed"] == "true"]
    sealed_days = {key.split("day-")[1].split("/")[0] for key in sealed}
    assert sealed_days == {"2024-08-08", "2024-08-09", "2024-08-10"}


def test_a_run_that_helm_installs_is_the_one_that_would_be_submitted(site: Site, tmp_path: Path, helm: str) -> None:
    day = "2024-08-08"
    with installed(site, tmp_path / "world", files(date(2024, 8, 8), date(2024, 8, 9))) as world:
        at(world, datetime(2024, 8, 12, tzinfo=UTC))
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
