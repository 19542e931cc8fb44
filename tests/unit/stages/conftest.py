"""A real sandbox server, a client of it, and the tools a stage gets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.sandbox.tardis import Options, Server, serve
from runner.stages.commit import Mode
from runner.stages.tools import Tools
from runner.store import Store, open_store
from runner.tardis.client import Limits, Tardis


def client_of(server: Server) -> Tardis:
    limits = Limits(
        attempts=3,
        backoff_s=0.01,
        backoff_max_s=0.05,
        connect_s=5.0,
        stall_s=10.0,
        min_bytes_per_s=0,
        min_speed_window_s=10.0,
        refusal_s=0.1,
        lock_limit_s=1.0,
    )
    return Tardis(server.url, server.api_url, "fake-key-1", limits, threading.Event(), 4)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Callable[..., tuple[Server, Tardis]]]:
    """Start servers by their options; returns (server, client)."""
    opened: list[Server | Tardis] = []

    def start(**options: object) -> tuple[Server, Tardis]:
        server = serve(Options(cache=tmp_path / "generated", **options))
        tardis = client_of(server)
        opened.extend((tardis, server))
        return server, tardis

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}/store")


@pytest.fixture
def tools(tmp_path: Path) -> Callable[..., Tools]:
    def make(store: Store, tardis: Tardis, *, mode: Mode = Mode.KEEP, deep: bool = False) -> Tools:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return Tools(store, tardis, scratch, mode, deep)

    return make
