"""`runner demo`: the whole story on one machine: plan, run, a worker killed for real, resume, verify.

Everything is the product's own: the same worker, plan, ledger and store as anywhere, against the sandbox's server. Only
the two real days are shipped; all other instrument-days are generated, and called so wherever they appear.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from runner import layout, ledger, plan
from runner.backends.local import Look
from runner.backends.sight import Sight
from runner.cli import here
from runner.cli.output import emit
from runner.errors import Exit, RunnerError
from runner.plan import Plan
from runner.report import chart, plans, units
from runner.report import run as report
from runner.run_record import RunRecord
from runner.runs import Local, Watch, tardis_of
from runner.runs.submit import submit
from runner.sandbox.tardis import Options, Server, serve
from runner.spec import RunSpec
from runner.stages import report as validation
from runner.store import Store, open_store
from runner.tardis.client import DayFile
from runner.task import Task

DIRECTORY = Path(".runner/demo")
KEY = "demo-key-not-a-secret"
DAYS = ("2024-08-08", "2024-08-09")
REAL = "BINANCE:SPOT_PAIR:BTC-USDT"
CHART_KEY, CHART_DAY = "BINANCE-FUTURES:PERPETUAL:ETH-USDT", date(2024, 8, 8)
_DONE_BEFORE_KILL = 2
_LOOK_S = 0.1


@dataclass(slots=True)
class Kill:
    """The worker to kill: the shard and the task whose body the sandbox holds open; what was found when it was hit."""

    shard: int
    held: Task
    pid: int = 0
    begun: frozenset[str] = frozenset()
    kept: frozenset[str] = frozenset()
    looked: float = field(default=0.0, repr=False)


def demo() -> int:
    """Backfill two days of 24 instruments in 8 shards here, kill a worker, resume, verify. Ends within a minute."""
    if (DIRECTORY / "store").exists():
        shutil.rmtree(DIRECTORY / "store")
    (DIRECTORY / "store").mkdir(parents=True)
    generate = json.loads(files("runner.cli").joinpath("data/demo.json").read_text())
    with serve(Options(data=_real(), generate=generate, cache=DIRECTORY / "generated")) as server:
        return _story(server)


def _story(server: Server) -> int:
    spec = _spec(server)
    store, tardis = open_store(spec.store), tardis_of(spec, KEY)
    submission = submit(spec, store, tardis)
    record, drafted = submission.record, submission.draft
    if record is None or drafted is None:
        raise RunnerError(f"demo: {DIRECTORY} is not empty; remove it and start again")
    _tell("plan", plans.line(drafted, spec.parallelism))
    _tell("data", f"{_real_and_generated(drafted.plan)}, served by the sandbox at {server.origin}")
    kill = _hold(server, drafted.plan)
    code, took_s = _run(spec, store, record, server, kill)
    _tell("run", report.line(Watch(store, record).status(Sight(alive=False))).removeprefix("run "))
    redone = _tell_kill(kill, server, drafted.plan)
    found = validation.report(spec.model_copy(update={"deep": True}), store, tardis)
    missing = len(found.gaps)
    _tell("validate", f"{found.verified} of {found.tasks} verified · {missing} missing · {found.duplicated} duplicated")
    _chart(store)
    _tell_files(record, took_s)
    _check(kill, redone)
    return Exit.DONE if code is Exit.DONE and not missing and not found.duplicated else Exit.FAILED


def _spec(server: Server) -> RunSpec:
    return RunSpec.model_validate(
        {
            "startDate": DAYS[0],
            "endDate": DAYS[1],
            "venues": ["BINANCE", "BINANCE-FUTURES", "DERIBIT", "OKX-SWAP"],
            "store": (DIRECTORY / "store").absolute().as_uri(),
            "shards": 8,
            "parallelism": max(2, len(os.sched_getaffinity(0))),
            "tardis": {"url": server.url, "apiUrl": server.api_url},
            "retry": {"backoffSeconds": 0.1},
        }
    )


def _hold(server: Server, packed: Plan) -> Kill:
    """Have the sandbox hold open the last body of the shard with the most tasks."""
    shard = max(range(len(packed.shards)), key=lambda number: len(packed.shards[number]))
    held = packed.shards[shard][-1]
    server.add_faults({"path": _paths(held)[-1], "fault": "hold"})
    return Kill(shard, held)


def _run(spec: RunSpec, store: Store, record: RunRecord, server: Server, kill: Kill) -> tuple[Exit, float]:
    watch, began = Watch(store, record), time.monotonic()
    local = Local(store, (DIRECTORY / "locks").absolute(), {**os.environ, "TARDIS_API_KEY": KEY})
    with here.stoppable() as stop, here.view() as view:

        def look(seen: Look) -> None:
            now = time.monotonic()
            if not kill.pid and now - kill.looked > _LOOK_S:
                kill.looked = now
                _kill_when_due(seen, store, record, server, kill)
            if view.due(now):
                view.show(watch.status(seen), now)

        code = local.carry_out(record, spec, stop.is_set, look)
    return code, time.monotonic() - began


def _kill_when_due(seen: Look, store: Store, record: RunRecord, server: Server, kill: Kill) -> None:
    """Kill the worker once the held body is open and enough of its tasks are done; then let the body go."""
    pid = seen.running.get(kill.shard)
    if pid is None or not _requests(server.stats(), _paths(kill.held)[-1]):
        return
    counts = [a.counts for a in ledger.read_counts(store, record.id) if a.shard == kill.shard]
    if not counts or counts[-1].done < _DONE_BEFORE_KILL:
        return
    os.kill(pid, signal.SIGKILL)
    kill.pid = pid
    tasks = plan.decode_bytes(plan.read_plan(store, record)).shards[kill.shard]
    kill.begun = frozenset(t.id for t in tasks if any(_requests(server.stats(), path) for path in _paths(t)))
    kill.kept = frozenset(t.id for t in tasks if all(_bodies(server.stats(), path) for path in _paths(t)))
    server.clear_faults()


def _paths(task: Task) -> tuple[str, ...]:
    """Return the paths of a task's files at the source, in the order in which they are fetched."""
    source = task.source
    if source is None:
        return ()
    return tuple(f"/v1{DayFile(source.exchange, t, task.day, source.symbol).path}" for t in task.data_types)


def _requests(stats: Mapping[str, Any], path: str) -> int:
    return int(stats["paths"].get(path, {}).get("requests", 0))


def _bodies(stats: Mapping[str, Any], path: str) -> int:
    return int(stats["paths"].get(path, {}).get("bodies_completed", 0))


def _tell_kill(kill: Kill, server: Server, packed: Plan) -> frozenset[str]:
    """Say what the kill hit and what was done again; return the tasks fetched more than once."""
    stats = server.stats()
    tasks = packed.shards[kill.shard]
    redone = frozenset(t.id for t in tasks if any(_requests(stats, path) > 1 for path in _paths(t)))
    in_flight = len(kill.begun - kill.kept)
    _tell("killed", f"shard {kill.shard} (pid {kill.pid}, SIGKILL): {len(kill.kept)} done, {in_flight} in flight")
    _tell("resumed", f"shard {kill.shard}: {len(kill.kept - redone)} kept, {len(redone)} redone")
    return redone


def _check(kill: Kill, redone: frozenset[str]) -> None:
    """Raise RunnerError when the kill proved nothing, or more was done again than it hit."""
    if not kill.pid or len(kill.kept) < _DONE_BEFORE_KILL or not kill.begun - kill.kept:
        raise RunnerError(f"demo: the kill hit nothing (shard {kill.shard}): nothing was proven; run it again")
    if extra := redone - (kill.begun - kill.kept):
        raise RunnerError(f"demo: done again without need: {', '.join(sorted(extra))}; please report this")


def _real_and_generated(packed: Plan) -> str:
    real = sum(task.key == REAL for task in packed.tasks)
    return f"{real} real instrument-days, {len(packed.tasks) - real} generated ones"


def _chart(store: Store) -> None:
    body = io.BytesIO(store.get(layout.candles(CHART_DAY, "15m", CHART_KEY)))
    table = pq.ParquetFile(body, pre_buffer=False).read(use_threads=False)
    bars = [chart.Candle(*prices) for prices in zip(*(table[n].to_pylist() for n in chart.Candle._fields), strict=True)]
    emit(chart.chart(bars, caption=f"{CHART_KEY}  {CHART_DAY}  15m candles of a generated day", height=8))


def _tell_files(record: RunRecord, took_s: float) -> None:
    held = [p.stat().st_size for p in (DIRECTORY / "store").rglob("*") if p.is_file() and ".runner" not in p.parts[3:]]
    where = DIRECTORY / "store"
    _tell("files", f"./{where}   ({len(held)} objects, {units.size(sum(held))}; run took {units.duration(took_s)})")
    program = os.path.relpath(sys.argv[0]) if sys.argv[0].endswith("runner") else "runner"
    _tell("next", f"{program} status {record.id} --store {where}")
    _tell("", f"{program} logs {record.id} --failed --store {where}")
    _tell("", f"{program} sandbox tardis --data {os.path.relpath(_real())}")


def _real() -> Path:
    """Return the folder of the days that are shipped."""
    return Path(str(files("runner.sandbox").joinpath("data")))


def _tell(what: str, text: str) -> None:
    emit(f"{what:<8} {text}")
