"""What the tests have of the cluster: kubectl, sandboxes as pods, and for each test a world in its own namespace."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any

import yaml

from runner import ledger, plan
from runner.ledger import Attempt
from runner.store import ObjectInfo, Store, open_store
from runner.task import Task
from tests.e2e import invariants
from tests.e2e.invariants import Expectation

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("RUNNER_TEST_IMAGE", "runner:dev")
# One cluster a machine, whichever checkout tests on it: where scripts/kind keeps what it made.
TURN = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "market-data-runner/kind/turn")
CONTROL = "runner-control-plane"
# The sandboxes of all tests are on the one worker; the other may be lost.
STEADY, FRAIL = "runner-worker", "runner-worker2"
# Recognised wherever it turns up; it opens nothing.
CANARY = "fake-key-canary-7f3a"
SECRET = "tardis-api-key"
INDEX = "batch.kubernetes.io/job-completion-index"
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
Object = dict[str, Any]


def until(fact: Callable[[], Any], what: str, deadline_s: float = 120.0, pause_s: float = 0.5) -> Any:
    """Return the fact once it is true; fail naming it when it does not become so."""
    end = time.monotonic() + deadline_s
    while not (found := fact()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(pause_s)
    return found


def docker(*words: str) -> str:
    """Ask the engine that has the nodes."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120, check=True).stdout


def kubectl_command(*words: str) -> list[str]:
    """Return a command of the cluster's administrator: by the kubectl on PATH, else by the control plane's own."""
    own = shutil.which("kubectl")
    inside = ["docker", "exec", "-i", CONTROL, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf"]
    return [*([own] if own else inside), *words]


def kubectl(*words: str, given: str = "", check: bool = True) -> str:
    done = subprocess.run(
        kubectl_command(*words), input=given, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 or not check, f"kubectl {' '.join(words)}: {done.stderr}"
    return done.stdout


def kubectl_json(*words: str) -> Object:
    found: Object = json.loads(kubectl(*words, "-o", "json"))
    return found


def api_requests(user: str, began: float, ended: float) -> list[str]:
    """Return `verb uri` of every request that the API server's audit log has of a user between two times."""
    command = ["docker", "exec", CONTROL, "grep", "-F", user, "/var/log/kubernetes/audit.log"]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.splitlines()
    events = {event["auditID"]: event for event in map(json.loads, lines)}
    times = {key: datetime.fromisoformat(each["requestReceivedTimestamp"]).timestamp() for key, each in events.items()}
    return [f"{e['verb']} {e['requestURI']}" for key, e in events.items() if began <= times[key] <= ended]


def restart_control_plane() -> None:
    """Kill everything of the control plane; its kubelet starts it anew."""
    for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        subprocess.run(["docker", "exec", CONTROL, "pkill", "-9", "-x", name[:15]], check=True)


@contextmanager
def lines(process: subprocess.Popen[str]) -> Iterator[list[str]]:
    """Yield the lines of a process's stdout as they come."""
    found: list[str] = []
    assert process.stdout is not None
    out = process.stdout
    thread = threading.Thread(target=lambda: found.extend(iter(out.readline, "")), daemon=True)
    thread.start()
    yield found
    process.wait(240)
    thread.join(10)


@contextmanager
def turn(*, alone: bool = False) -> Iterator[None]:
    """Share the cluster with the tests of other processes, or have it alone: to break what all of them need."""
    with TURN.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def rights(namespace: str) -> str:
    """Return the rights that are shipped, moved to a namespace as their file says."""
    return re.sub(r"(?m)^( *name(?:space)?): runner$", rf"\1: {namespace}", (ROOT / "manifests/rbac.yaml").read_text())


def listed(*objects: Object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def apply(*objects: Object) -> None:
    kubectl("apply", "-f", "-", given=listed(*objects))


def sandbox(name: str, *arguments: str, files: Mapping[str, str] | None = None) -> tuple[Object, ...]:
    """Return a sandbox server as a pod behind a port of every node: the same address for pods and for this machine."""
    metadata = {"name": name, "labels": {"app": name}}
    container = {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["sandbox", name, "--host", "0.0.0.0", "--port", "8080", *arguments],
        "volumeMounts": [{"name": "files", "mountPath": "/files"}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    spec = {
        "containers": [container],
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "nodeName": STEADY,
        "volumes": [{"name": "files", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}],
    }
    return (
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(files or {"none": ""})},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": 8080}]},
        },
    )


def control(server: str, method: str, path: str, body: Any = None) -> Any:
    """Speak to the control of a sandbox."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server}/__sandbox/{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


@dataclass(frozen=True)
class Served:
    """A sandbox's addresses: `outside` for everybody, by a node's port; `inside` for pods, who come as themselves."""

    outside: str
    inside: str


@contextmanager
def served(*servers: tuple[Object, ...]) -> Iterator[dict[str, Served]]:
    """Run sandboxes in a namespace of their own; yield the addresses of each by its name."""
    namespace = f"e2e-sandboxes-{uuid.uuid4().hex[:8]}"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        account = ("get", "serviceaccount", "default", "-n", namespace)
        until(lambda: kubectl(*account, check=False), "the namespace is made")
        kubectl("apply", "-n", namespace, "-f", "-", given=listed(*(each for parts in servers for each in parts)))
        services = kubectl_json("get", "services", "-n", namespace)["items"]
        addresses = kubectl_json("get", "node", STEADY)["status"]["addresses"]
        host = next(each["address"] for each in addresses if each["type"] == "InternalIP")
        ports = {each["metadata"]["name"]: each["spec"]["ports"][0]["nodePort"] for each in services}
        found = {
            name: Served(f"http://{host}:{port}", f"http://{name}.{namespace}.svc.cluster.local:8080")
            for name, port in ports.items()
        }
        for server in found.values():
            until(lambda at=server.outside: _answers(at), f"{server.outside} answers")
        yield found
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def _answers(server: str) -> bool:
    try:
        control(server, "GET", "stats")
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Site:
    """The sandboxes' addresses, `http://node:port`."""

    tardis: str
    gcs: str

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Speak to the source's control."""
        return control(self.tardis, method, path, body)

    def bucket(self, method: str, path: str, body: Any = None) -> Any:
        """Speak to the bucket's control."""
        return control(self.gcs, method, path, body)

    def fault(self, **fault: Any) -> None:
        self.control("POST", "faults", fault)

    @property
    def bodies(self) -> dict[str, int]:
        """Return how often each day file was served completely."""
        paths = self.control("GET", "stats")["paths"]
        return {path: seen["bodies_completed"] for path, seen in paths.items() if path.endswith(".csv.gz")}


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
        return tuple(sorted(ledger.run_ids(self.store)))

    def attempts(self, run: str) -> tuple[Attempt, ...]:
        return ledger.read_attempts(self.store, run)

    def plan(self, run: str) -> tuple[tuple[Task, ...], ...]:
        return plan.decode_bytes(ledger.read_plan(self.store, ledger.get_run(self.store, run))).shards

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
        return invariants.violations(held, tuple(sorted(ledger.run_ids(held))), expected)
