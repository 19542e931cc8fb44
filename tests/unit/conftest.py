"""A real sandbox server, a client of it, the tools a stage gets, and runs carried out in this process."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.errors import Exit
from runner.run_record import RunRecord
from runner.runs import verdict
from runner.runs.state import FINISHED, finish
from runner.runs.submit import Submission, submit
from runner.sandbox.tardis import Options, Server, serve
from runner.spec import RunSpec
from runner.stages.commit import Mode
from runner.stages.tools import Tools
from runner.store import Store, open_store
from runner.tardis.client import Limits, Tardis
from runner.worker.identity import Identity
from runner.worker.shard import Shard
from runner.worker.stop import Stop


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
    def make(
        store: Store, tardis: Tardis, *, mode: Mode = Mode.KEEP, deep: bool = False, spec: RunSpec | None = None
    ) -> Tools:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return Tools(store, tardis, scratch, mode, deep, spec or RunSpec())

    return make


@dataclass
class World:
    """A source, a store, and runs carried out in this process by the real worker, one shard after another."""

    server: Server
    tardis: Tardis
    store: Store
    scratch: Path

    def spec(self, **values: object) -> RunSpec:
        tardis = {"url": self.server.url, "api_url": self.server.api_url, "attempts": 2}
        asked = {"store": self.store.url, "venues": "binance", "data_types": "trades", "start_date": "2024-08-01"}
        return RunSpec(**{**asked, "shards": 2, "tardis": tardis, **values})

    def identity(self, run: str, shard: int, spec: RunSpec, attempt: str = "") -> Identity:
        return Identity(run, shard, attempt or uuid.uuid4().hex, spec, "fake-key-1")

    def shard(
        self, record: RunRecord, spec: RunSpec, shard: int, *, stop: Stop | None = None, attempt: str = ""
    ) -> Shard:
        me = self.identity(record.id, shard, spec, attempt)
        mode = Mode.REPLACE if record.replaces else Mode.KEEP
        scratch = Path(tempfile.mkdtemp(dir=self.scratch))
        return Shard(
            me, record, Tools(self.store, self.tardis, scratch, mode, spec.deep, spec), stop or Stop(), lambda: b"log\n"
        )

    def carry_out(self, record: RunRecord, spec: RunSpec) -> Exit:
        """Do every shard once and end the run, as a supervisor without retries does."""
        exits = {shard: int(self.shard(record, spec, shard).run()) for shard in range(record.shards)}
        finish(self.store, record.id, FINISHED, exits)
        return verdict(self.store, record)

    def submit(self, spec: RunSpec) -> Submission:
        return submit(spec, self.store, self.tardis)


GENERATED = {
    "exchange": "binance",
    "symbols": ["BTCUSDT", "ETHUSDT"],
    "data_types": ["trades", "quotes", "book_snapshot_5"],
    "days": ["2024-08-01", "2024-08-03"],
    "rows_per_day": 60,
    "seed": 7,
}


@pytest.fixture
def world(sandbox: Callable[..., tuple[Server, Tardis]], store: Store, tmp_path: Path) -> World:
    server, tardis = sandbox(generate=GENERATED)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return World(server, tardis, store, scratch)


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a store with all of three days, to be copied; a copy that keeps times is as good."""
    folder = tmp_path_factory.mktemp("downloaded")
    with serve(Options(cache=folder / "generated", generate=GENERATED)) as server:
        tardis = client_of(server)
        (folder / "scratch").mkdir()
        made = World(server, tardis, open_store(f"file://{folder}/store"), folder / "scratch")
        spec = made.spec(data_types=" ".join(GENERATED["data_types"]), end_date="2024-08-03")
        assert made.carry_out(made.submit(spec).record, spec) is Exit.DONE
        tardis.close()
    return folder / "store"


@pytest.fixture
def complete(world: World, downloaded: Path, tmp_path: Path) -> World:
    """Return a world whose store holds everything of three days."""
    shutil.copytree(downloaded, tmp_path / "store")
    return world
