"""What the tests have of the cluster: kubectl and docker, whose turn it is, sandboxes as pods."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

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
SANDBOX_PORT = 8080
INDEX = "batch.kubernetes.io/job-completion-index"
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
    # Older parts of a long log have a time in their names.
    search = f"grep --no-filename --fixed-strings {user} /var/log/kubernetes/audit*.log"
    command = ["docker", "exec", CONTROL, "sh", "-c", search]
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
        "args": ["sandbox", name, "--host", "0.0.0.0", "--port", str(SANDBOX_PORT), *arguments],
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
            "spec": {"type": "NodePort", "selector": {"app": name}, "ports": [{"port": SANDBOX_PORT}]},
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
            name: Served(f"http://{host}:{port}", f"http://{name}.{namespace}.svc.cluster.local:{SANDBOX_PORT}")
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
