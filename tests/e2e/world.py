"""A small world of its own for each test: a sandbox, a store, a state directory, and the command line in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from runner import ledger, plan, run_record, runs
from runner.errors import Exit, NotFoundError, PreconditionError
from runner.ledger import Attempt
from runner.run_record import RunRecord
from runner.runs import Local
from runner.runs.submit import Submission, submit
from runner.sandbox.tardis import Server
from runner.spec import RunSpec
from runner.store import Store, open_store
from runner.task import Task
from tests.e2e import invariants
from tests.e2e.invariants import Expectation

HOOKS = Path(__file__).parent / "crash"
KEY = "fake-key-1"
DAYS = ("2024-08-08", "2024-08-09")
# Four tasks of two day files each: two shards with two tasks, whoever packs them.
JOB: Mapping[str, Any] = {
    "startDate": DAYS[0],
    "endDate": DAYS[1],
    "venues": ["BINANCE"],
    "dataTypes": ["trades", "quotes"],
    "shards": 2,
    "parallelism": 2,
}
GENERATED = {
    "exchange": "binance",
    "symbols": ["BTCUSDT", "ETHUSDT"],
    "data_types": ["trades", "quotes"],
    "days": list(DAYS),
    "rows_per_day": 300,
    "seed": 7,
}
DEADLINE_S = 90.0


def until(fact: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the fact once it is true; fail naming it when it does not become so."""
    end = time.monotonic() + deadline_s
    while not (found := fact()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)
    return found


@dataclass
class World:
    """One store, one source, one user. `job` is what is asked; `variables` go to every process that is started."""

    folder: Path
    server: Server
    clean: Mapping[str, str]
    job: dict[str, Any] = field(default_factory=lambda: dict(JOB))
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        tardis = {"url": self.server.url, "apiUrl": self.server.api_url, "backoffSeconds": 0.05}
        return {
            **self.job,
            "store": f"file://{self.folder}/store",
            "tardis": {**tardis, **self.job.get("tardis", {})},
            "retry": {"backoffSeconds": 0.05, "backoffMaxSeconds": 0.2, **self.job.get("retry", {})},
        }

    @property
    def spec(self) -> RunSpec:
        return RunSpec.model_validate(self.document)

    @property
    def store(self) -> Store:
        return open_store(self.spec.store)

    @property
    def env(self) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("RUNNER_", "TARDIS_", "CRASH_"))}
        own = {"TARDIS_API_KEY": KEY, "XDG_STATE_HOME": f"{self.folder}/state", "PYTHONPATH": str(HOOKS)}
        return {**ours, **own, **self.variables}

    @property
    def mark(self) -> Path:
        """Return the file that the process which was made to die has left."""
        return self.folder / "died"

    @property
    def threads(self) -> int:
        """Return how many tasks one worker of this job does at a time: what can be in flight when it is killed."""
        return max(1, len(os.sched_getaffinity(0)) // min(self.job["parallelism"], self.job["shards"]))

    def crash(self, at: str) -> None:
        """Have the processes started from now on die at a point, one of them, once."""
        self.variables.update(CRASH_AT=at, CRASH_MARK=str(self.mark))

    def submit(self, **more: Any) -> Submission:
        spec = self.spec.model_copy(update=more)
        return submit(spec, self.store, runs.tardis_of(spec, KEY))

    def carry_out(self, record: RunRecord, stop: Callable[[], bool] = lambda: False) -> Exit:
        return self.local().carry_out(record, self.spec, stop, lambda _: None)

    def local(self) -> Local:
        return Local(self.store, self.folder / "state" / "market-data-runner", self.env)

    def run(self) -> tuple[RunRecord, Exit]:
        """Submit the job and carry it out in this process, its workers in theirs."""
        record = self.submit().record
        assert record is not None
        return record, self.carry_out(record)

    @contextmanager
    def command(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start `runner` with these words as the user would, in a folder whose runner.yaml holds the job."""
        (self.folder / "runner.yaml").write_text(yaml.safe_dump(self.document))
        command = [sys.executable, "-m", "runner", *words]
        with subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self.command(*words) as process:
            out, err = process.communicate(timeout=DEADLINE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @contextmanager
    def worker(self, record: RunRecord, shard: int, attempt: str) -> Iterator[subprocess.Popen[str]]:
        """Start a worker of a shard by hand, without a supervisor."""
        own = {"RUNNER_RUN": record.id, "RUNNER_SPEC": self.spec.to_json(), "JOB_COMPLETION_INDEX": str(shard)}
        env = {**self.env, **own, "RUNNER_ATTEMPT": attempt, "RUNNER_WORKERS": "64"}
        command = [sys.executable, "-m", "runner", "worker"]
        with subprocess.Popen(
            command, cwd=self.folder, env=env, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def hold(self, path: str, at: float = 0.5) -> None:
        """Have the first body of a matching path stop half-way until the faults are cleared."""
        self.server.add_faults({"path": path, "fault": "hold", "at": at, "count": 1})

    def is_held(self) -> bool:
        return any(f["fault"] == "hold" and f["hits"] for f in self._faults()) and self._in_flight() > 0

    def _faults(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.server.control}/faults") as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def _in_flight(self) -> int:
        return sum(
            v["in_flight"] for p, v in self.server.stats()["paths"].items() if p.endswith(".csv.gz") and v["bytes"]
        )

    @property
    def bodies(self) -> dict[str, int]:
        """Return how often each day file was served completely."""
        paths = self.server.stats()["paths"]
        return {path: seen["bodies_completed"] for path, seen in paths.items() if path.endswith(".csv.gz")}

    def run_ids(self) -> tuple[str, ...]:
        return tuple(sorted(run_record.run_ids(self.store)))

    def attempts(self, run: str) -> tuple[Attempt, ...]:
        return ledger.read_attempts(self.store, run)

    def violations(
        self, *, redone: int = 0, shared: Iterable[str] = (), failed: Iterable[tuple[str, str]] = ()
    ) -> list[str]:
        """Return what is wrong with the store and its runs; see `Expectation`."""
        expected = Expectation(self.clean, self.bodies, redone, frozenset(shared), frozenset(failed))
        return invariants.violations(self.store, self.run_ids(), expected)

    def plan(self, record: RunRecord) -> tuple[tuple[Task, ...], ...]:
        return plan.decode_bytes(plan.read_plan(self.store, record)).shards

    def workers(self) -> list[int]:
        """Return the process ids of this world's workers."""
        mine = f"XDG_STATE_HOME={self.folder}/state".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                env = (process / "environ").read_bytes().split(b"\0")
                if mine in env and any(each.startswith(b"JOB_COMPLETION_INDEX=") for each in env):
                    found.append(int(process.name))
        return found


class Poller:
    """Watches a store while it is written, as two readers do: through the protocol, and any Parquet reader by path."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = Path(store.url.removeprefix("file://"))
        self._seen: set[object] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.looks = 0
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._look_at_objects()
            self._look_at_files()
            self.looks += 1

    def _look_at_objects(self) -> None:
        for info in self._store.list(""):
            if (info.key, info.generation) in self._seen:
                continue
            self._seen.add((info.key, info.generation))
            try:
                body = self._store.get(info.key, if_generation=info.generation)
            except (NotFoundError, PreconditionError):
                continue  # swapped since the listing
            if fault := invariants.unreadable(body, info):
                self.faults.append(fault)

    def _look_at_files(self) -> None:
        for path in self._root.rglob("*.parquet"):
            if ".runner" in path.parts or path in self._seen:
                continue
            self._seen.add(path)
            try:
                pq.read_table(path)
            except (pa.ArrowException, OSError) as e:
                self.faults.append(f"{path}: {e}")
