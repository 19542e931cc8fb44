"""One attempt at a shard, in this process, against a real source: what it ends in, and what it leaves for the next."""

import threading
from dataclasses import replace
from datetime import date

import pytest

from runner import layout, ledger, plan, run_record
from runner.errors import ConfigError, TransientError, WorkerExit
from runner.ledger import Attempt, Counts
from runner.run_record import RunRecord
from runner.store import ABSENT
from runner.task import Outcome, Source, Stage, Task
from runner.worker.shard import Shard
from runner.worker.stop import Stop

RUN = "download-3f9a1c20"
BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"


def task(key: str = BTC, day: int = 1, *, types: tuple[str, ...] = ("trades",), known: bool = True) -> Task:
    source = Source("binance", key.rpartition(":")[2].replace("-", "")) if known else None
    return Task(Stage.DOWNLOAD, date(2024, 8, day), key, types, source, 1)


GOOD, CUT, DOWN = task(BTC, 1), task(ETH, 1), task(ETH, 2)
ODD, SOURCELESS, PENDING = task(BTC, 2, types=("no such type",)), task(ETH, 3, known=False), task(BTC, 9)


@pytest.fixture
def run(world):
    """Commit a run of these tasks in one shard; `run(*tasks)` returns its record."""

    def commit(*tasks: Task) -> RunRecord:
        body = plan.encode(plan.Plan((tasks,)))
        world.store.put(layout.plan(RUN), body)
        record = RunRecord(RUN, {"store": world.store.url}, {}, ledger.pin(body), plan.shard_sizes(body))
        run_record.write_run(world.store, record)
        return record

    world.server.add_faults(
        {"path": "*/trades/2024/08/01/ETHUSDT*", "fault": "corrupt", "kind": "gzip_trailer"},
        {"path": "*/trades/2024/08/02/ETHUSDT*", "fault": "status", "code": 503, "body": "no"},
    )
    return commit


def outcomes(world) -> dict[str, str]:
    (attempt,) = [a for a in ledger.read_attempts(world.store, RUN) if a.exit is not None][-1:]
    return {entry.task_id.split("/", 1)[1]: str(entry.outcome) for entry in attempt.entries}


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([GOOD], 0),
        ([GOOD, PENDING], 0),
        ([GOOD, CUT], 65),
        ([GOOD, DOWN], 75),
        ([CUT, DOWN], 75),
        ([GOOD, ODD], 70),
        ([CUT, DOWN, ODD], 70),
        ([SOURCELESS], 78),
        ([CUT, DOWN, ODD, SOURCELESS], 78),
        ([], 0),
    ],
)
def test_a_shard_ends_in_the_gravest_code_of_its_tasks(world, run, tasks: list[Task], expected: int) -> None:
    record = run(*tasks)
    end = world.shard(record, world.spec(), 0).run()
    assert end == expected
    (attempt,) = ledger.read_attempts(world.store, RUN)
    assert (attempt.exit, attempt.in_flight, attempt.counts.total) == (end, (), len(tasks))
    assert {e.task_id for e in attempt.entries} == {t.id for t in tasks} or expected == 78
    assert world.store.get(layout.log(RUN, 0, attempt.attempt)) == b"log\n"


def test_one_bad_task_does_not_stop_its_shard(world, run) -> None:
    record = run(CUT, DOWN, ODD, GOOD, PENDING)
    world.shard(record, world.spec(), 0).run()
    assert outcomes(world) == {
        f"2024-08-01/{ETH}": "failed",
        f"2024-08-02/{ETH}": "failed",
        f"2024-08-02/{BTC}": "failed",
        f"2024-08-01/{BTC}": "done",
        f"2024-08-09/{BTC}": "pending",
    }


def test_a_failure_tells_its_cause_and_its_code(world, run) -> None:
    world.shard(run(CUT, ODD), world.spec(), 0).run()
    (attempt,) = ledger.read_attempts(world.store, RUN)
    facts = {e.task_id: e.facts for e in attempt.entries}
    assert facts[CUT.id]["exit"] == 65
    assert "binance trades 2024-08-01 ETHUSDT" in facts[CUT.id]["error"]
    assert facts[ODD.id]["exit"] == 70
    assert "KeyError: 'no such type': a bug, please report" in facts[ODD.id]["error"]


def test_a_contradiction_stops_the_shard_at_once(world, run) -> None:
    many = [task(BTC, day) for day in (1, 2, 3)]
    stop = Stop()
    shard = world.shard(run(SOURCELESS, *many), world.spec(), 0, stop=stop)
    assert shard.run() == 78
    assert "names no source" in stop.reason
    assert not stop.preempted


def test_told_to_stop_before_it_began_a_shard_is_drained(world, run) -> None:
    stop = Stop()
    stop.now("SIGTERM", preempted=True)
    assert world.shard(run(GOOD, CUT), world.spec(), 0, stop=stop).run() == 143
    (attempt,) = ledger.read_attempts(world.store, RUN)
    assert (attempt.entries, attempt.in_flight, attempt.preempted, attempt.error) == ((), (), True, "SIGTERM")


def test_a_drained_shard_whose_tasks_are_all_done_is_done(world, run) -> None:
    record = run(GOOD)
    assert world.shard(record, world.spec(), 0).run() == 0
    stop = Stop()
    stop.now("SIGTERM", preempted=True)
    assert world.shard(record, world.spec(), 0, stop=stop).run() == 0


def test_a_shard_that_the_plan_does_not_have_is_done(world, run) -> None:
    assert world.shard(run(GOOD), world.spec(), 7).run() == 0
    (attempt,) = ledger.read_attempts(world.store, RUN)
    assert (attempt.shard, attempt.counts) == (7, replace(Counts(), peak_bytes=attempt.counts.peak_bytes))


def test_a_plan_that_was_changed_is_refused(world, run) -> None:
    record = run(GOOD)
    world.store.delete(layout.plan(RUN))
    world.store.put(layout.plan(RUN), plan.encode(plan.Plan(((CUT,),))))
    with pytest.raises(ConfigError, match="the plan was changed"):
        world.shard(record, world.spec(), 0).run()


# What earlier attempts leave.


def fetched(world) -> dict[str, int]:
    paths = world.server.stats()["paths"]
    return {path: figures["requests"] for path, figures in paths.items() if path.endswith(".csv.gz")}


def test_another_attempt_keeps_what_is_settled_or_ruined_and_tries_the_rest(world, run) -> None:
    record = run(GOOD, CUT, DOWN)
    assert world.shard(record, world.spec(), 0, attempt="a1").run() == 75
    before = fetched(world)
    world.server.clear_faults()
    assert world.shard(record, world.spec(), 0, attempt="a2").run() == 65
    after = fetched(world)
    assert {path: after[path] - before.get(path, 0) for path in after} == {
        "/v1/binance/trades/2024/08/01/BTCUSDT.csv.gz": 0,
        "/v1/binance/trades/2024/08/01/ETHUSDT.csv.gz": 0,
        "/v1/binance/trades/2024/08/02/ETHUSDT.csv.gz": 1,
    }
    folded = ledger.fold(ledger.read_attempts(world.store, RUN))
    assert folded.entries[DOWN.id, "trades"].outcome is Outcome.DONE
    entries = [e for a in ledger.read_attempts(world.store, RUN) for e in a.entries if e.facts.get("written")]
    assert sorted(e.task_id for e in entries) == sorted([GOOD.id, DOWN.id])


def died(world, *names: str, attempt: str, peak: int = 0) -> None:
    """Leave what an attempt leaves that is killed while at these tasks: progress without a ledger."""
    word = Attempt(0, attempt, in_flight=names, counts=Counts(peak_bytes=peak))
    ledger.write_progress(world.store, RUN, word, ABSENT)


def test_what_was_committed_before_a_kill_is_not_fetched_again(world, run) -> None:
    record = run(GOOD, task(BTC, 2))
    world.shard(record, world.spec(), 0, attempt="a1").run()
    for key in (layout.ledger(RUN, 0, "a1"), layout.ticks(date(2024, 8, 2), "trades", BTC)):
        world.store.delete(key)
    before = fetched(world)
    assert world.shard(record, world.spec(), 0, attempt="a2").run() == 0
    assert sum(fetched(world).values()) - sum(before.values()) == 1
    folded = ledger.fold(ledger.read_attempts(world.store, RUN))
    kept = folded.entries[GOOD.id, "trades"]
    assert (kept.facts["kept"], kept.facts["written"]) == (True, False)
    assert kept.facts["rows"] == 60
    assert kept.facts["source_bytes"] > 0


def test_a_suspect_is_run_last_and_alone(world, run) -> None:
    others = [task(BTC, 2), task(BTC, 3), task(ETH, 3)]
    record = run(GOOD, *others)
    died(world, GOOD.id, others[0].id, attempt="d1")
    died(world, GOOD.id, attempt="d2")
    said: list[tuple[str, ...]] = []
    store = world.store

    class Listening(type(store)):
        def put(self, key, body, **more):
            info = super().put(key, body, **more)
            if "/progress/" in key:
                said.append(ledger.read_attempts(self, RUN)[-1].in_flight)
            return info

    world.store = Listening(store._root)
    assert world.shard(record, world.spec(), 0, attempt="a3").run() == 0
    assert all(GOOD.id not in names for names in said[:-1])
    assert said[-1] == (GOOD.id,)
    assert outcomes(world)[f"2024-08-01/{BTC}"] == "done"


def test_a_task_that_killed_three_workers_is_given_up_and_the_shard_goes_on(world, run) -> None:
    record = run(GOOD, task(BTC, 2))
    for n in range(3):
        died(world, GOOD.id, attempt=f"d{n}", peak=(n + 1) << 30)
    assert world.shard(record, world.spec(), 0, attempt="a4").run() == 65
    assert outcomes(world) == {f"2024-08-01/{BTC}": "failed", f"2024-08-02/{BTC}": "done"}
    entry = ledger.fold(ledger.read_attempts(world.store, RUN)).entries[GOOD.id, "trades"]
    assert "killed 3 times at it, peak memory 3072 MiB" in entry.facts["error"]
    assert not any("08/01" in path for path in fetched(world))


def test_a_task_whose_object_is_there_is_done_however_often_its_worker_died(world, run) -> None:
    record = run(GOOD)
    world.shard(record, world.spec(), 0, attempt="a1").run()
    world.store.delete(layout.ledger(RUN, 0, "a1"))
    for n in range(3):
        died(world, GOOD.id, attempt=f"d{n}")
    assert world.shard(record, world.spec(), 0, attempt="a2").run() == 0


# Progress.


def test_no_object_is_written_before_a_durable_word_names_its_task(world, run) -> None:
    tasks = [task(key, day) for key in (BTC, ETH) for day in (1, 2, 3)]
    record = run(*tasks)
    world.server.clear_faults()
    named: set[str] = set()
    early: list[str] = []
    lock = threading.Lock()

    class Watched(type(world.store)):
        def put(self, key, body, **more):
            with lock:
                wanted = next((t for t in tasks if f"/day-{t.day}/" in key and key.endswith(f"{t.key}.parquet")), None)
                if wanted is not None and wanted.id not in named:
                    early.append(key)
            info = super().put(key, body, **more)
            if "/progress/" in key:
                with lock:
                    named.update(t.id for t in tasks if t.id in bytes(body).decode())
            return info

    world.store = Watched(world.store._root)
    assert world.shard(record, world.spec(), 0).run() == 0
    assert early == []
    assert named == {t.id for t in tasks}


def test_a_store_that_refuses_progress_begins_nothing(world, run) -> None:
    record = run(GOOD, task(BTC, 2))

    class Refusing(type(world.store)):
        def put(self, key, body, **more):
            if "/progress/" in key:
                raise TransientError("no space left")
            return super().put(key, body, **more)

    world.store = Refusing(world.store._root)
    assert world.shard(record, world.spec(), 0).run() == 75
    assert fetched(world) == {}
    assert set(outcomes(world).values()) == {"failed"}


def test_counts_tell_tasks_bytes_and_memory(world, run) -> None:
    record = run(GOOD, CUT)
    received: list[int] = []
    shard: Shard = world.shard(record, world.spec(), 0)
    world.tardis.on_bytes = lambda count: (received.append(count), shard.received(count))[0]
    shard.run()
    (attempt,) = ledger.read_counts(world.store, RUN)
    assert (attempt.counts.done, attempt.counts.failed, attempt.counts.total) == (1, 1, 2)
    assert attempt.counts.received_bytes == sum(received) > 0
    assert 10 << 20 < attempt.counts.peak_bytes < 64 << 30
    assert attempt.counts.last_download_us > 1_700_000_000_000_000
    assert attempt.exit is WorkerExit.TASKS_FAILED
