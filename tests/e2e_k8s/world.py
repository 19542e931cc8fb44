"""A world for each test: a namespace, a place in the bucket, a command line; and what is asked for in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import yaml

from runner import ledger, plan, run_record
from runner.ledger import Attempt
from runner.store import ObjectInfo, Store, open_store
from runner.task import Task
from tests.e2e import invariants
from tests.e2e.invariants import Expectation
from tests.e2e_k8s.cluster import (
    CANARY,
    IMAGE,
    SECRET,
    Object,
    Site,
    apply,
    kubectl,
    kubectl_json,
    rights,
    until,
)

SYMBOLS = [f"{base}USDT" for base in ("BTC", "ETH", "SOL", "XRP", "ADA", "DOT", "LTC", "BCH", "TRX", "ETC")]
GENERATED = {
    "exchange": "binance",
    "symbols": SYMBOLS,
    "data_types": ["trades"],
    "days": ["2024-08-01", "2024-08-12"],
    "rows_per_day": 300,
    "seed": 7,
}
# Other days, other instruments, four venues: every data type asked for by default, an options chain among them.
PAIRS = ("trades", "book_snapshot_5")
SWAPS = (*PAIRS, "derivative_ticker", "liquidations")
OPTIONS = [
    f"{base}-30AUG24-{strike}-{right}"
    for base, strike in (("BTC", 60000), ("BTC", 65000), ("ETH", 2600))
    for right in "CP"
]
_WIDE_DAYS = {"days": ["2024-08-20", "2024-08-21"], "rows_per_day": 300, "seed": 7}
WIDE: tuple[Mapping[str, Any], ...] = (
    {**_WIDE_DAYS, "exchange": "binance", "symbols": ["AVAXUSDT", "DOGEUSDT"], "data_types": PAIRS},
    {**_WIDE_DAYS, "exchange": "binance-futures", "symbols": ["BTCUSDT", "ETHUSDT"], "data_types": SWAPS},
    {**_WIDE_DAYS, "exchange": "okex-swap", "symbols": ["BTC-USDT-SWAP", "ETH-USDT-SWAP"], "data_types": SWAPS},
    {**_WIDE_DAYS, "exchange": "deribit", "symbols": ["BTC-PERPETUAL"], "data_types": SWAPS},
    {**_WIDE_DAYS, "exchange": "deribit", "symbols": OPTIONS, "data_types": ["options_chain"]},
)
WIDE_JOB: Mapping[str, Any] = {
    "startDate": "2024-08-20",
    "endDate": "2024-08-21",
    "venues": ["BINANCE", "BINANCE-FUTURES", "DERIBIT", "OKX-SWAP"],
    "dataTypes": [*SWAPS, "options_chain"],
    "shards": 8,
    "parallelism": 4,
}
# Twelve days of ten instruments: 120 tasks of one file each.
JOB: Mapping[str, Any] = {
    "startDate": "2024-08-01",
    "endDate": "2024-08-12",
    "venues": ["BINANCE"],
    "dataTypes": ["trades"],
    "shards": 100,
    "parallelism": 6,
}
SMALL = {"startDate": "2024-08-01", "endDate": "2024-08-01", "shards": 3, "parallelism": 3}


class Held:
    """A store as it is now, each object read once, to be looked at from all sides."""

    def __init__(self, store: Store) -> None:
        self.url, self._infos = store.url, {info.key: info for info in store.list("")}
        with ThreadPoolExecutor(8) as pool:
            self._bodies = dict(zip(self._infos, pool.map(store.get, self._infos), strict=True))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return (info for key, info in self._infos.items() if key.startswith(prefix))

    def head(self, key: str) -> ObjectInfo | None:
        return self._infos.get(key)

    def get(self, key: str, *, start: int = 0, length: int | None = None, if_generation: str | None = None) -> bytes:
        assert if_generation in (None, self._infos[key].generation)
        return self._bodies[key][start : None if length is None else start + length]


def variables(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in values.items()]


@dataclass
class World:
    """A namespace with the least rights, a place in the bucket, and the command line of somebody who submits there."""

    folder: Path
    site: Site
    clean: Mapping[str, str]
    namespace: str = field(default_factory=lambda: f"e2e-{uuid.uuid4().hex[:8]}")
    job: dict[str, Any] = field(default_factory=lambda: dict(JOB))
    pod: dict[str, Any] = field(default_factory=dict)
    zone: str = "UTC"

    def open(self) -> None:
        """Make the namespace, the rights that are shipped, the Secret, and the submitter's kubeconfig."""
        kubectl("apply", "-f", "-", given="\n---\n".join((self.rights, yaml.safe_dump(self.secret))))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(self._kubeconfig()))

    @property
    def rights(self) -> str:
        return rights(self.namespace)

    @property
    def secret(self) -> Object:
        metadata = {"name": SECRET, "namespace": self.namespace}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"key": CANARY}}

    def grant(self) -> None:
        kubectl("apply", "-f", "-", given=self.rights)

    def make_secret(self) -> None:
        apply(self.secret)

    def close(self) -> None:
        # A namespace that goes takes its pods first, which wait for the Job to have counted them, and it for pods.
        kubectl("delete", "jobs", "--all", "-n", self.namespace, "--wait=false", check=False)
        kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)

    def _kubeconfig(self) -> Object:
        """Return a kubeconfig of the submitter, whose tokens are said to end after 30 s: each request asks anew."""
        admin = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
        plugin = self.folder / "token"
        token = kubectl("create", "token", "runner-submitter", "-n", self.namespace).strip()
        plugin.write_text(
            f"#!{sys.executable} -IS\n"
            "import time\n"
            "end = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + 30))\n"
            f'status = \'{{"token": "{token}", "expirationTimestamp": "\' + end + \'"}}\'\n'
            "version = 'client.authentication.k8s.io/v1'\n"
            'print(\'{"kind": "ExecCredential", "apiVersion": "\' + version + \'", "status": \' + status + \'}\')\n'
        )
        plugin.chmod(0o755)
        user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
        context = {"cluster": "kind", "user": "submitter", "namespace": self.namespace}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "submitter",
            "clusters": [{"name": "kind", "cluster": admin["clusters"][0]["cluster"]}],
            "users": [{"name": "submitter", "user": user}],
            "contexts": [{"name": "submitter", "context": context}],
        }

    @property
    def document(self) -> dict[str, Any]:
        return {
            **self.job,
            "backend": "kubernetes",
            "image": self.job.get("image", IMAGE),
            "store": f"gs://sandbox/{self.namespace}",
            "tardis": {
                "url": f"{self.site.tardis}/v1",
                "apiUrl": f"{self.site.tardis}/v1",
                "backoffSeconds": 0.2,
                **self.job.get("tardis", {}),
            },
        }

    @property
    def values(self) -> dict[str, Any]:
        small = {"cpu": "100m", "memory": "400Mi", "ephemeral-storage": "200Mi"}
        limits = {"memory": "400Mi", "ephemeral-storage": "200Mi"}
        pod = {
            "resources": {"requests": small, "limits": limits},
            "scratch": {"sizeLimit": "100Mi"},
            "serviceAccountName": "runner-worker",
            "env": variables(STORAGE_EMULATOR_HOST=self.site.gcs, TZ=self.zone),
        }
        return {"pod": {**pod, **self.pod}}

    @property
    def env(self) -> dict[str, str]:
        # A user's Python keeps what it has compiled: a command starts in half the time.
        foreign = ("RUNNER_", "TARDIS_", "KUBE", "GCS_", "PYTHONDONTWRITEBYTECODE")
        ours = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return {
            **ours,
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "STORAGE_EMULATOR_HOST": self.site.gcs,
            "TARDIS_API_KEY": CANARY,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "TZ": self.zone,
        }

    @property
    def store(self) -> Store:
        return open_store(self.document["store"])

    @contextmanager
    def command(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start `runner` with these words as the user would, in a folder whose runner.yaml holds the job."""
        (self.folder / "runner.yaml").write_text(yaml.safe_dump(self.document))
        (self.folder / "values.yaml").write_text(json.dumps(self.values))
        over = ("--values", "values.yaml") if words[0] in ("submit", "retry", "render") else ()
        command = [sys.executable, "-m", "runner", *words, *over]
        with subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def cli(self, *words: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self.command(*words) as process:
            out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def submit(self, *words: str) -> str:
        """Submit the job and return the run's id."""
        done = self.cli("submit", "download", *words, "-o", "name")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def status(self, run: str) -> Object:
        done = self.cli("status", run, "-o", "json")
        assert done.returncode == 0, done.stderr
        found: Object = json.loads(done.stdout)
        return found

    def explained(self, run: str, kind: str, within_s: float = 60.0) -> Object:
        """Return the cause of this kind once `status` names it, within a minute where nothing has to happen first."""

        def found() -> Object | None:
            return next((cause for cause in self.status(run)["causes"] if cause["kind"] == kind), None)

        cause: Object = until(found, f"status names the cause {kind}", within_s, 1)
        return cause

    def pods(self, run: str) -> list[Object]:
        labels = f"batch.kubernetes.io/job-name={run}"
        found: list[Object] = kubectl_json("get", "pods", "-n", self.namespace, "-l", labels)["items"]
        return found

    def running(self, run: str) -> list[Object]:
        """Return pods whose worker runs and that nobody has told to stop."""
        return [
            pod
            for pod in self.pods(run)
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    def at_work(self, run: str) -> list[Object]:
        """Return running pods whose worker has said in the store what it begins."""
        told = {each.attempt for each in ledger.read_counts(self.store, run) if each.exit is None}
        return [pod for pod in self.running(run) if pod["metadata"]["uid"] in told]

    def job_object(self, run: str) -> Object:
        return kubectl_json("get", "job", run, "-n", self.namespace)

    def evict(self, pod: str) -> None:
        """Evict a pod through the Eviction API, as a drained node does."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": self.namespace},
        }
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        kubectl("create", "--raw", path, "-f", "-", given=json.dumps(body))

    def run_ids(self) -> tuple[str, ...]:
        return tuple(sorted(run_record.run_ids(self.store)))

    def attempts(self, run: str) -> tuple[Attempt, ...]:
        return ledger.read_attempts(self.store, run)

    def plan(self, run: str) -> tuple[tuple[Task, ...], ...]:
        return plan.decode_bytes(plan.read_plan(self.store, run_record.get_run(self.store, run))).shards

    def violations(
        self,
        *,
        redone: int = 0,
        shared: frozenset[str] = frozenset(),
        failed: frozenset[tuple[str, str]] = frozenset(),
    ) -> list[str]:
        """Return what is wrong with the store and its runs; see `Expectation`."""
        expected = Expectation(self.clean, self.site.bodies, redone, shared, failed)
        held: Any = Held(self.store)  # it is only read
        return invariants.violations(held, tuple(sorted(run_record.run_ids(held))), expected)
