"""The cluster of `scripts/kind up`, sandboxes in it once, a namespace and a place in the bucket for each test."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from runner.errors import Exit
from runner.sandbox.tardis import Options, serve
from tests.e2e import invariants
from tests.e2e.world import World as LocalWorld
from tests.e2e_k8s.cluster import ROOT, Site, kubectl, sandbox, served, turn
from tests.e2e_k8s.world import GENERATED, JOB, WIDE, World

_prepared_s: dict[str, float] = {}


def pytest_report_teststatus(report: Any) -> tuple[str, str, str] | None:
    """Tell of each of these tests how long it took, what its fixtures took included, but not waiting for its turn."""
    if not report.nodeid.startswith("tests/e2e_k8s/"):
        return None
    if report.when == "setup":
        _prepared_s[report.nodeid] = report.duration
    if report.when != "call" or report.outcome == "skipped":
        return None
    waited_s = dict(report.user_properties).get("waited_s", 0.0)
    took_s = report.duration + _prepared_s[report.nodeid] - waited_s
    return report.outcome, {"passed": "."}.get(report.outcome, "F"), f"{report.outcome.upper()} {took_s:.0f} s"


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    """Fail where there is no cluster: these tests never skip silently."""
    mine = ROOT / ".runner/kind/env"
    lines = mine.read_text().splitlines() if mine.exists() else []
    for name, _, value in (line.removeprefix("export ").partition("=") for line in lines):
        os.environ.setdefault(name, value)
    assert "KUBECONFIG" in os.environ, "no cluster: scripts/kind up && . .runner/kind/env"
    assert kubectl("get", "nodes", "-o", "name"), "the cluster does not answer: scripts/kind up"


@pytest.fixture(autouse=True)
def its_turn(request: pytest.FixtureRequest) -> Iterator[None]:
    began = time.monotonic()
    with turn(alone=request.node.get_closest_marker("alone") is not None):
        request.node.user_properties.append(("waited_s", time.monotonic() - began))
        yield


@pytest.fixture(scope="session")
def site(cluster: None) -> Iterator[Site]:
    """Return sandboxes of this process's own: faults and counts are a server's, not a test's."""
    generate = {"generate.json": json.dumps([GENERATED, *WIDE])}
    tardis = sandbox("tardis", "--generate", "/files/generate.json", files=generate)
    with ExitStack() as stack:
        with turn():
            servers = stack.enter_context(served(tardis, sandbox("gcs", "--bucket", "sandbox")))
        found = Site(servers["tardis"].outside, servers["gcs"].outside)
        os.environ["STORAGE_EMULATOR_HOST"] = found.gcs
        yield found


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, str]:
    """Return the content of every data object after the local backend did the whole job: once for all processes."""
    folder = tmp_path_factory.getbasetemp()
    kept = (folder if worker_id == "master" else folder.parent) / "clean.json"
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_text(json.dumps(_done_here(tmp_path_factory)))
    found: dict[str, str] = json.loads(kept.read_text())
    return found


def _done_here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    with serve(Options(generate=GENERATED, cache=tmp_path_factory.mktemp("generated"))) as server:
        world = LocalWorld(tmp_path_factory.mktemp("clean"), server, {}, {**JOB, "shards": 2, "parallelism": 2})
        _, verdict = world.run()
        assert verdict is Exit.DONE
        return invariants.contents(world.store)


@contextmanager
def _worlds(site: Site, clean: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    made: list[World] = []

    def make(**job: Any) -> World:
        site.control("DELETE", "faults")
        site.control("POST", "reset", {})
        world = World(tmp_path_factory.mktemp("world"), site, clean, job={**JOB, **job})
        made.append(world)
        world.open()
        return world

    yield make
    # Here, not at the end of all: what a test leaves pending or failing costs the others.
    for world in made:
        world.close()


@pytest.fixture
def make_world(site: Site, clean: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a function that makes a world; its arguments change the job."""
    with _worlds(site, clean, tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def make_lasting_world(site: Site, clean: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return `make_world` for what the tests of a module have in common."""
    with _worlds(site, clean, tmp_path_factory) as make:
        yield make
