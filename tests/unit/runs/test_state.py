"""What is true of a run, read from the store alone: verdict, status, logs, and cleaning up."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from runner import layout, ledger, plan, run_record, runs
from runner.backends.sight import Sight
from runner.errors import Exit, NotFoundError, SpecError, WorkerExit
from runner.ledger import Attempt, Counts, Pin
from runner.run_record import RunRecord
from runner.runs import LogQuery, LogText, RunState, ShardState, StoreLogs, Watch
from runner.runs.state import CANCELLED, FINISHED, finish
from runner.store import ABSENT, open_store
from runner.store.file import FileStore
from runner.task import Entry, Outcome, Stage, Task

RUN = "download-3f9a1c20"
DAY = date(2024, 8, 8)
TASKS = [Task(Stage.DOWNLOAD, DAY, f"BINANCE:SPOT_PAIR:{n}-USDT", ("trades", "quotes"), None, 100) for n in "ABC"]
IDS = [task.id for task in TASKS]


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path}/store")


@pytest.fixture
def record(store) -> RunRecord:
    """A run of three tasks in three shards, two data types each."""
    packed = plan.Plan(tuple((task,) for task in TASKS))
    body = plan.encode(packed)
    store.put(layout.plan(RUN), body)
    run_record.write_run(store, RunRecord(RUN, {}, {}, ledger.pin(body), plan.shard_sizes(body)))
    return run_record.get_run(store, RUN)


def entries(shard: int, *outcomes: str, **facts) -> tuple[Entry, ...]:
    named = zip(("trades", "quotes"), outcomes, strict=False)
    return tuple(Entry(IDS[shard], data_type, Outcome(outcome), facts) for data_type, outcome in named)


def write(store, shard: int, code: int | None, *outcomes: str, attempt: str = "a", **counts) -> None:
    found = Attempt(shard, f"{attempt}{shard}", None if code is None else WorkerExit(code), counts=Counts(**counts))
    if code is None:
        ledger.write_progress(store, RUN, replace(found, in_flight=(IDS[shard],)), ABSENT)
    else:
        found = replace(found, entries=entries(shard, *outcomes, error="why", exit=code))
        ledger.write_ledger(store, RUN, found, run_record.get_run(store, RUN).plan)


@pytest.mark.parametrize(
    ("shards", "end", "expected"),
    [
        ([("done", "done"), ("empty", "not_offered"), ("not_available", "done")], FINISHED, Exit.DONE),
        ([("done", "done"), ("done", "done"), ("done", "done")], CANCELLED, Exit.DONE),
        ([("done", "done"), ("done", "done"), ("done", "pending")], FINISHED, Exit.INCOMPLETE),
        ([("done", "done"), ("done", "done"), ("done", "failed")], FINISHED, Exit.INCOMPLETE),
        ([("failed", "failed")] * 3, FINISHED, Exit.INCOMPLETE),
        ([("done", "done"), ("done", "done"), ("done",)], FINISHED, Exit.FAILED),
        ([("done", "done"), ("done", "done"), ()], FINISHED, Exit.FAILED),
        ([("done", "done"), ("done", "done"), ("failed",)], CANCELLED, Exit.INTERRUPTED),
        ([("done", "done"), ("done", "done"), ()], CANCELLED, Exit.INTERRUPTED),
        ([(), (), ()], None, Exit.FAILED),
    ],
)
def test_a_verdict_is_what_plan_and_ledgers_say(store, record, shards, end, expected) -> None:
    for shard, outcomes in enumerate(shards):
        write(store, shard, 65 if "failed" in outcomes else 0, *outcomes)
    if end:
        finish(store, RUN, end, {})
    assert runs.verdict(store, record) is expected


def test_a_refused_key_is_the_verdict_whatever_else_failed(store, record) -> None:
    write(store, 0, 77, "done", "failed")
    write(store, 1, 75, "failed")
    finish(store, RUN, FINISHED, {0: 77, 1: 75})
    assert runs.verdict(store, record) is Exit.NOT_ALLOWED


def test_who_waits_for_the_source_is_told(store, record) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    until_us = int(soon.timestamp() * 1_000_000)
    write(store, 0, 0, "done", "pending", done=1, pending=1, total=1)
    write(store, 1, None, parked_until_us=until_us, total=1)
    write(store, 2, None, parked_until_us=until_us - 3_700_000_000, total=1)
    status = runs.Watch(store, record).status(Sight())
    assert (status.done, status.pending) == (1, 1)
    (cause,) = status.causes
    assert (cause.kind, cause.shards, cause.next) == ("parked", (1,), f"runner logs {RUN} --shard 1")
    assert f"until {soon:%Y-%m-%d %H:%M} UTC" in cause.message
    assert runs.Watch(store, record).status(Sight(alive=False)).causes == ()


def test_rows_that_several_ledgers_settle_in_parts_are_settled(store, record) -> None:
    for shard in (0, 1, 2):
        write(store, shard, 143, "done", "failed", attempt="older")
        write(store, shard, 0, "failed", "done", attempt="newer")
    finish(store, RUN, FINISHED, {})
    assert runs.verdict(store, record) is Exit.DONE


OTHER = tuple(Entry(f"download/2024-08-08/X{n}", "trades", Outcome.DONE) for n in range(3))


def test_entries_of_other_tasks_settle_nothing(store, record) -> None:
    for shard in (0, 1, 2):
        write(store, shard, 0, "done")
    ledger.write_ledger(store, RUN, Attempt(0, "x", WorkerExit.SETTLED, OTHER[:1]))
    finish(store, RUN, FINISHED, {})
    assert runs.verdict(store, record) is Exit.FAILED


@pytest.mark.parametrize("rows", [2, 3])
def test_a_ledger_of_the_run_that_was_removed_neither_settles_nor_hides_a_row(store, record, rows) -> None:
    """Its worker could not be stopped, and ended after the same request had been submitted and planned anew."""
    for shard in (0, 1, 2):
        write(store, shard, 65 if shard == 0 else 0, *(("failed", "failed") if shard == 0 else ("done", "empty")))
    zombie = Attempt(0, "x", WorkerExit.SETTLED, OTHER[:rows])
    ledger.write_ledger(store, RUN, zombie, Pin("1" * 64, 9, 1))
    finish(store, RUN, FINISHED, {})
    assert runs.verdict(store, record) is Exit.INCOMPLETE
    write(store, 0, 0, "done", "done", attempt="newer")
    assert runs.verdict(store, record) is Exit.DONE


class Counted(FileStore):
    """A store that tells what was read of it."""

    def __init__(self, root) -> None:
        super().__init__(root)
        self.read: list[str] = []

    def get(self, key, **part):
        self.read.append(key)
        return super().get(key, **part)


@pytest.fixture
def counted(store, record, tmp_path) -> Counted:
    """The same store, a run with one shard of three failed, each tried twice."""
    for shard, last in enumerate(("done", "failed", "empty")):
        write(store, shard, 75, "done", "failed", attempt="older", failed=1)
        write(store, shard, None, attempt="newer")
        code = 65 if last == "failed" else 0
        write(store, shard, code, "done", last, attempt="newer", done=int(code == 0), failed=int(code != 0))
    finish(store, RUN, FINISHED, {0: 0, 1: 65, 2: 0})
    return Counted(tmp_path / "store")


def test_a_verdict_opens_no_ledger_of_a_shard_that_is_settled(counted, record) -> None:
    assert runs.verdict(counted, record) is Exit.INCOMPLETE
    assert {key.split("/")[-2] for key in counted.read if "/shards/" in key} == {"1"}


def test_a_status_opens_the_ledgers_of_shards_with_failures_alone_and_no_plan(counted, record) -> None:
    found = status(counted, record)
    assert [(f.shard, f.task_id, f.data_type) for f in found.failures] == [(1, IDS[1], "quotes")]
    told = sorted(key.removeprefix(f"_runs/{RUN}/") for key in counted.read)
    assert told == ["end.json", "shards/1/newer1.json", "shards/1/older1.json"]


def test_the_first_word_about_an_ending_stands(store, record) -> None:
    finish(store, RUN, CANCELLED, {0: 143, 2: 0})
    finish(store, RUN, FINISHED, {0: 0})
    assert runs.ending(store, RUN) == runs.Ending(CANCELLED, {0: 143, 2: 0})


def status(store, record, *, alive=True):
    return Watch(store, record).status(Sight(alive=alive))


def test_a_run_that_nobody_began_waits(store, record) -> None:
    found = status(store, record)
    assert found.state is RunState.RUNNING
    assert [s.state for s in found.shards] == [ShardState.WAITING] * 3
    assert (found.done, found.failed, found.total, found.started) == (0, 0, 3, record.created)
    assert status(store, record, alive=False).state is RunState.STOPPED


@pytest.mark.parametrize(
    ("code", "run", "expected"),
    [
        (None, "alive", ShardState.RUNNING),
        (None, "stopped", ShardState.WAITING),
        (None, "ended", ShardState.FAILED),
        (0, "alive", ShardState.DONE),
        (65, "alive", ShardState.FAILED),
        (77, "alive", ShardState.FAILED),
        (75, "alive", ShardState.RETRYING),
        (75, "ended", ShardState.FAILED),
        (143, "stopped", ShardState.RETRYING),
        (70, "ended", ShardState.FAILED),
    ],
)
def test_a_shard_shows_its_newest_attempt(store, record, code, run, expected) -> None:
    write(store, 1, 143, attempt="older")
    write(store, 1, code, attempt="newer", done=1)
    if run == "ended":
        finish(store, RUN, FINISHED, {})
    shard = status(store, record, alive=run != "stopped").shards[1]
    assert (shard.state, shard.attempts, shard.done) == (expected, 2, 1)


def test_a_status_adds_up_the_newest_attempts(store, record) -> None:
    write(store, 0, 75, "failed", attempt="older", failed=1, received_bytes=999)
    write(store, 0, 0, "done", "done", attempt="newer", done=1, received_bytes=10)
    write(store, 1, 65, "done", "failed", failed=1, received_bytes=5)
    write(store, 2, None, received_bytes=1)
    found = status(store, record)
    assert (found.done, found.failed, found.total, found.received_bytes, found.predicted_bytes) == (1, 1, 3, 16, 300)
    assert [(f.shard, f.task_id, f.data_type, f.error) for f in found.failures] == [(1, IDS[1], "quotes", "why")]
    assert found.updated == max(info.updated for info in store.list(f"_runs/{RUN}/") if "/plan" not in info.key)


@pytest.mark.parametrize(
    ("codes", "end", "expected"),
    [
        ((0, 0, 0), FINISHED, RunState.DONE),
        ((0, 65, 0), FINISHED, RunState.FAILED),
        ((0, 0, 75), FINISHED, RunState.FAILED),
        ((0, 0, 0), CANCELLED, RunState.CANCELLED),
        ((0, 0, 0), None, RunState.RUNNING),
    ],
)
def test_a_run_shows_how_it_ended(store, record, codes, end, expected) -> None:
    for shard, code in enumerate(codes):
        write(store, shard, code)
    if end:
        finish(store, RUN, end, {})
    assert status(store, record).state is expected


def test_logs_come_by_shard_and_age_and_failed_leaves_the_good_ones_out(store, record) -> None:
    for shard, name, code in ((2, "z", 0), (0, "y", 75), (0, "b", 0), (1, "c", None)):
        ledger.write_log(store, RUN, (shard, name), f"log of {name} \xff\n".encode("latin-1"), ABSENT)
        if code is not None:
            ledger.write_ledger(store, RUN, Attempt(shard, name, WorkerExit(code)))

    def attempts(**query) -> list[str]:
        return [each.attempt for each in StoreLogs(store, RUN, LogQuery(**query)).new()]

    assert attempts() == ["y", "b", "c", "z"]
    assert attempts(shard=0) == ["y", "b"]
    assert attempts(failed=True) == ["y", "c"]
    assert next(StoreLogs(store, RUN, LogQuery()).new()) == LogText(0, "y", "log of y �\n")
    with pytest.raises(NotFoundError):
        StoreLogs(store, "download-none", LogQuery())


def test_logs_are_read_on_from_where_they_were(store, record) -> None:
    first = ledger.write_log(store, RUN, (0, "a"), b"one\n", ABSENT)
    logs = StoreLogs(store, RUN, LogQuery())
    assert list(logs.new()) == [LogText(0, "a", "one\n")]
    assert list(logs.new()) == []
    ledger.write_log(store, RUN, (0, "a"), b"one\ntwo\n", first)
    ledger.write_log(store, RUN, (1, "b"), b"three\n", ABSENT)
    assert list(logs.new()) == [LogText(0, "a", "two\n"), LogText(1, "b", "three\n")]
    assert list(StoreLogs(store, RUN, LogQuery()).new(without=frozenset("a"))) == [LogText(1, "b", "three\n")]


def test_cancelling_is_asked_once_and_only_of_what_runs(store, record) -> None:
    assert runs.cancel(store, RUN)
    assert runs.cancel(store, RUN)
    finish(store, RUN, CANCELLED, {})
    assert not runs.cancel(store, RUN)
    with pytest.raises(NotFoundError):
        runs.cancel(store, "download-none")


def test_cleaning_removes_everything_of_a_run_and_no_data(store, record) -> None:
    other = f"{RUN}-r1"
    run_record.write_run(store, replace(record, id=other))
    data = layout.ticks(DAY, "trades", "BINANCE:SPOT_PAIR:A-USDT")
    store.put(data, b"ticks")
    write(store, 0, 0)
    with pytest.raises(SpecError, match=f"not ended; first: runner cancel {RUN}"):
        runs.clean(store, RUN)
    finish(store, RUN, FINISHED, {})
    count = len(list(store.list(f"_runs/{RUN}/")))
    assert runs.clean(store, RUN) == count == 4
    assert [info.key for info in store.list("")] == [layout.run_record(other), data]
    with pytest.raises(NotFoundError, match="runner list"):
        runs.clean(store, RUN)


class CutOff(Exception):  # noqa: N818  (a power failure, no error of ours)
    pass


@pytest.mark.parametrize("survived", range(6))
def test_cleaning_that_was_cut_off_anywhere_can_be_repeated(store, record, survived: int) -> None:
    write(store, 0, 0)
    write(store, 1, None)
    finish(store, RUN, FINISHED, {})
    assert len(list(store.list(f"_runs/{RUN}/"))) == 5

    class Cut:
        def __init__(self) -> None:
            self.left = survived

        def __getattr__(self, name):
            return getattr(store, name)

        def delete(self, key):
            if not self.left:
                raise CutOff
            self.left -= 1
            return store.delete(key)

    if survived < 5:
        with pytest.raises(CutOff):
            runs.clean(Cut(), RUN)
        runs.clean(store, RUN)
    else:
        runs.clean(Cut(), RUN)
    assert list(store.list("")) == []


def test_what_a_dead_submit_left_can_be_cleaned(store) -> None:
    store.put(layout.plan(RUN), b"plan without a record")
    assert runs.clean(store, RUN) == 1
