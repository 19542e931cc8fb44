"""The cluster of `scripts/kind up`, sandboxes in it once, a namespace and a place in the bucket for each test."""

from __future__ import annotations

import json
import os
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from runner.errors import Exit
from runner.sandbox.tardis import Options, serve
from tests.e2e import invariants
from tests.e2e.world import World as LocalWorld
from tests.e2e_k8s.cluster import GENERATED, JOB, ROOT, Site, World, apply, kubectl, kubectl_json, sandbox, until

_prepared_s: dict[str, float] = {}


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    """Tell of each of these tests how long it took, what its fixtures took included."""
    if not report.nodeid.startswith("tests/e2e_k8s/"):
        return None
    if report.when == "setup":
        _prepared_s[report.nodeid] = report.duration
    if report.when != "call" or report.outcome == "skipped":
        return None
    took_s = report.duration + _prepared_s[report.nodeid]
    return report.outcome, {"passed": "."}.get(report.outcome, "F"), f"{report.outcome.upper()} {took_s:.0f} s"


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    """Fail where there is no cluster: these tests never skip silently."""
    mine = ROOT / ".runner/kind/kubeconfig"
    if "KUBECONFIG" not in os.environ and mine.exists():
        os.environ["KUBECONFIG"] = str(mine)
    assert "KUBECONFIG" in os.environ, "no cluster: scripts/kind up && . .runner/kind/env"
    assert kubectl("get", "nodes", "-o", "name"), "the cluster does not answer: scripts/kind up"


def _answers(server: str) -> bool:
    try:
        with urllib.request.urlopen(f"{server}/__sandbox/stats", timeout=10):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def site(cluster: None) -> Iterator[Site]:
    namespace = f"e2e-sandboxes-{uuid.uuid4().hex[:8]}"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    generate = {"generate.json": json.dumps(GENERATED)}
    apply(*sandbox("tardis", namespace, "--generate", "/files/generate.json", files=generate))
    apply(*sandbox("gcs", namespace, "--bucket", "sandbox"))
    kubectl("wait", "pod", "--all", "-n", namespace, "--for=condition=Ready", "--timeout=120s")
    nodes = kubectl_json("get", "nodes")["items"]
    address = next(a["address"] for a in nodes[0]["status"]["addresses"] if a["type"] == "InternalIP")

    def url(name: str) -> str:
        port = kubectl_json("get", "service", name, "-n", namespace)["spec"]["ports"][0]["nodePort"]
        return f"http://{address}:{port}"

    found = Site(url("tardis"), url("gcs"))
    os.environ["STORAGE_EMULATOR_HOST"] = found.gcs
    for server in (found.tardis, found.gcs):
        until(
            lambda at=server: _answers(at),
            f"{server} answers: nodes learn of a new port a moment after its pod is ready",
        )
    yield found
    kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the content of every data object after the local backend did the whole job."""
    with serve(Options(generate=GENERATED, cache=tmp_path_factory.mktemp("generated"))) as server:
        world = LocalWorld(tmp_path_factory.mktemp("clean"), server, {}, {**JOB, "shards": 2, "parallelism": 2})
        _, verdict = world.run()
        assert verdict is Exit.DONE
        return invariants.contents(world.store)


@pytest.fixture(scope="session")
def make_world(site: Site, clean: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a function that makes a world; its arguments change the job."""
    made: list[World] = []

    def make(**job: Any) -> World:
        site.control("DELETE", "faults")
        site.control("POST", "reset", {})
        world = World(tmp_path_factory.mktemp("world"), site, clean, job={**JOB, **job})
        made.append(world)
        world.open()
        return world

    yield make
    for world in made:
        world.close()
