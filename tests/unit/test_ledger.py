"""Run records and ledgers: what is written comes back, what is broken is told, and attempts fold by their laws."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import layout, ledger, run_record
from runner.errors import ConfigError, NotFoundError, PoisonError, SourceError, TransientError, WorkerExit
from runner.ledger import Attempt, Counts, Fold, Pin
from runner.run_record import RunRecord, Size
from runner.runs.settled import read_settled
from runner.store import ABSENT, open_store
from runner.store.memory import MemoryStore
from runner.task import Entry, Outcome

RUN = "download-3f9a1c20"
RECORD = RunRecord(RUN, {"stage": "download"}, {"shards": 8}, Pin("0" * 64, 9, 1), (Size(6, 12, 125_000),) * 8)
TASK = "download/2024-08-08/BINANCE:SPOT_PAIR:BTC-USDT"

facts = st.fixed_dictionaries(
    {}, optional={"written": st.booleans(), "rows": st.integers(), "error": st.text(max_size=5), "rate": st.just(0.1)}
)
entries = st.builds(Entry, st.sampled_from("abc"), st.sampled_from(["x", "y"]), st.sampled_from(Outcome), facts)
counts = st.builds(Counts, done=st.integers(0, 9), received_bytes=st.integers(), peak_bytes=st.integers(0, 2**50))
attempts = st.builds(
    Attempt,
    shard=st.integers(0, 3),
    attempt=st.integers(0, 2**32).map("{:08x}".format),
    exit=st.none() | st.sampled_from(WorkerExit),
    entries=st.lists(entries, max_size=4).map(tuple),
    in_flight=st.lists(st.sampled_from("abc"), max_size=4).map(tuple),
    preempted=st.booleans(),
    counts=counts,
    error=st.text(max_size=9),
)
histories = st.lists(attempts, max_size=5)


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    return MemoryStore("memory://ledgers") if request.param == "memory" else open_store(f"file://{tmp_path}/store")


def test_a_run_record_comes_back_with_the_time_of_its_commit(store) -> None:
    assert run_record.read_run(store, RUN) is None
    assert run_record.write_run(store, RECORD)
    found = run_record.get_run(store, RUN)
    assert replace(found, created=None) == RECORD
    assert found.created == store.head(layout.run_record(RUN)).updated


def test_the_first_record_of_a_run_stands(store) -> None:
    assert run_record.write_run(store, RECORD)
    assert not run_record.write_run(store, replace(RECORD, sizes=()))
    assert run_record.get_run(store, RUN).tasks == 48


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"{}", b'"x"', b"\xff", b'{"id": 1, "plan": 3}'])
def test_a_damaged_record_is_named_with_the_way_out(store, body: bytes) -> None:
    store.put(layout.run_record(RUN), body)
    with pytest.raises(ConfigError, match=rf"{RUN}/run\.json.* is no run record of this version .*runner clean {RUN}"):
        run_record.read_run(store, RUN)


def test_a_missing_run_is_not_found(store) -> None:
    with pytest.raises(NotFoundError, match="no run download-3f9a1c20"):
        run_record.get_run(store, RUN)


def test_run_ids_are_the_committed_ones_in_order(store) -> None:
    for run in ("validate-1", "download-2", "download-1-r1", "download-1"):
        run_record.write_run(store, replace(RECORD, id=run))
    store.put(layout.plan("download-0"), b"a plan whose writer died before the record")
    store.put("_runs/download-3/logs/0/run.json", b"no record")
    assert list(run_record.run_ids(store)) == ["download-1-r1", "download-1", "download-2", "validate-1"]
    assert list(run_record.run_ids(store, "download-1")) == ["download-1-r1", "download-1"]


@given(attempts.filter(lambda a: a.exit is not None))
def test_a_ledger_comes_back_whole(attempt: Attempt) -> None:
    store = MemoryStore("memory://one-ledger")
    ledger.write_ledger(store, RUN, attempt)
    (found,) = ledger.read_attempts(store, RUN)
    assert replace(found, updated=None) == attempt
    assert found.updated is not None


@given(attempts.filter(lambda a: a.exit is not None))
def test_counts_and_exit_are_read_without_opening_an_object(attempt: Attempt) -> None:
    class Closed(MemoryStore):
        def get(self, key, **_):
            raise AssertionError(f"{key} was opened")

    store = Closed("memory://closed")
    running = replace(attempt, attempt="still-running", exit=None)
    ledger.write_progress(store, RUN, running, ABSENT)
    ledger.write_ledger(store, RUN, attempt)
    found = {a.attempt: a for a in ledger.read_counts(store, RUN)}
    assert (found[attempt.attempt].counts, found[attempt.attempt].exit) == (attempt.counts, attempt.exit)
    assert (found["still-running"].counts, found["still-running"].exit) == (running.counts, None)


def test_progress_is_replaced_and_a_ledger_wins_over_it(store) -> None:
    attempt = Attempt(3, "a1", in_flight=("t1",), counts=Counts(done=1, total=9))
    generation = ledger.write_progress(store, RUN, attempt, ABSENT)
    generation = ledger.write_progress(store, RUN, replace(attempt, in_flight=("t2",)), generation)
    assert [a.in_flight for a in ledger.read_attempts(store, RUN)] == [("t2",)]
    ledger.write_ledger(store, RUN, replace(attempt, exit=WorkerExit.DRAINED, in_flight=()))
    assert [(a.exit, a.in_flight) for a in ledger.read_attempts(store, RUN)] == [(WorkerExit.DRAINED, ())]


def test_an_answer_that_was_lost_is_adopted(store) -> None:
    """The writer did not learn the generation of its own put: it names the older one and still succeeds."""
    attempt = Attempt(0, "a1", in_flight=("t1",))
    old = ledger.write_progress(store, RUN, attempt, ABSENT)
    ledger.write_progress(store, RUN, replace(attempt, in_flight=("t2",)), old)
    ledger.write_progress(store, RUN, replace(attempt, in_flight=("t3",)), old)
    assert ledger.read_attempts(store, RUN)[0].in_flight == ("t3",)


def test_attempts_of_one_shard_are_those_of_that_shard_alone(store) -> None:
    for shard in (1, 10, 11):
        ledger.write_progress(store, RUN, Attempt(shard, f"a{shard}"), ABSENT)
    assert [a.shard for a in ledger.read_attempts(store, RUN, (1,))] == [1]
    assert sorted(a.shard for a in ledger.read_attempts(store, RUN, {1, 11})) == [1, 11]
    assert sorted(a.shard for a in ledger.read_attempts(store, RUN)) == [1, 10, 11]
    assert ledger.read_attempts(store, RUN, ()) == ()


def test_progress_that_a_ledger_followed_is_not_opened() -> None:
    class Strict(MemoryStore):
        def get(self, key, **part):
            assert "/progress/" not in key
            return super().get(key, **part)

    store = Strict("memory://strict")
    for shard in range(40):
        ledger.write_progress(store, RUN, Attempt(shard, "a"), ABSENT)
        ledger.write_ledger(store, RUN, Attempt(shard, "a", WorkerExit.SETTLED))
    assert sorted((a.shard, a.exit) for a in ledger.read_attempts(store, RUN)) == [(n, 0) for n in range(40)]


def test_listings_tell_how_much_the_best_ledger_of_a_shard_settles(store) -> None:
    for attempt, outcomes in (("a", "done empty failed"), ("b", "pending failed done")):
        found = tuple(Entry(TASK, f"type-{n}", Outcome(each)) for n, each in enumerate(outcomes.split()))
        ledger.write_ledger(store, RUN, Attempt(3, attempt, WorkerExit.TASKS_FAILED, found), RECORD.plan)
    ledger.write_ledger(store, RUN, Attempt(5, "c", WorkerExit.DRAINED), RECORD.plan)
    ledger.write_progress(store, RUN, Attempt(6, "d"), ABSENT)
    assert read_settled(store, RECORD) == ({3: 2, 5: 0}, frozenset())


def test_a_ledger_of_another_plan_or_of_none_settles_nothing_by_its_metadata(store) -> None:
    done = (Entry(TASK, "trades", Outcome.DONE),)
    ledger.write_ledger(store, RUN, Attempt(3, "a", WorkerExit.SETTLED, done), Pin("1" * 64, 9, 1))
    ledger.write_ledger(store, RUN, Attempt(4, "b", WorkerExit.SETTLED, done))
    ledger.write_ledger(store, RUN, Attempt(4, "c", WorkerExit.SETTLED, done), RECORD.plan)
    assert read_settled(store, RECORD) == ({4: 1}, frozenset({3, 4}))


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"{}", b'"x"', b"\xff\xfe"])
def test_a_damaged_ledger_is_named(store, body: bytes) -> None:
    store.put(layout.ledger(RUN, 2, "a1"), body)
    with pytest.raises(ConfigError, match=r"_runs/download-3f9a1c20/shards/2/a1\.json is not a ledger"):
        ledger.read_attempts(store, RUN)


@pytest.mark.parametrize("change", [{"exit": 12}, {"counts": {"eaten": 1}}, {"entries": [{}]}, {"inFlight": None}])
def test_a_ledger_with_strange_values_is_named(store, change) -> None:
    ledger.write_ledger(store, RUN, Attempt(2, "a1", WorkerExit.SETTLED))
    document = json.loads(store.get(layout.ledger(RUN, 2, "a1"))) | change
    store.delete(layout.ledger(RUN, 2, "a1"))
    store.put(layout.ledger(RUN, 2, "a1"), json.dumps(document).encode())
    with pytest.raises(ConfigError, match="is not a ledger"):
        ledger.read_attempts(store, RUN)


# Folding.


def plainly_folded(history: list[Attempt]) -> dict:
    """Return the outcome of each entry by the rule as it is written: settled before unsettled, then the later one."""
    by_key: dict = {}
    for attempt in history:
        for entry in attempt.entries:
            by_key.setdefault((entry.task_id, entry.data_type), []).append(entry)
    return {key: next((e for e in found[::-1] if e.outcome.settled), found[-1]) for key, found in by_key.items()}


@given(histories)
def test_a_settled_outcome_wins_over_an_unsettled_one_and_a_later_over_an_earlier(history: list[Attempt]) -> None:
    assert ledger.fold(history).entries == plainly_folded(history)


@given(histories, st.randoms(use_true_random=False))
def test_what_is_settled_and_what_died_does_not_depend_on_the_order_of_attempts(history, random) -> None:
    shuffled = list(history)
    random.shuffle(shuffled)
    one, other = ledger.fold(history), ledger.fold(shuffled)
    assert one.entries.keys() == other.entries.keys()
    assert {k for k, e in one.entries.items() if e.outcome.settled} == {
        k for k, e in other.entries.items() if e.outcome.settled
    }
    assert (one.deaths, one.preemptions, one.peak_bytes) == (other.deaths, other.preemptions, other.peak_bytes)


@given(histories)
def test_a_death_is_counted_once_for_each_attempt_without_a_ledger(history: list[Attempt]) -> None:
    folded = ledger.fold(history)
    for task in "abc":
        died = [a for a in history if a.exit is None and task in a.in_flight]
        assert folded.deaths.get(task, 0) == len(died)
        assert folded.peak_bytes.get(task, 0) == max((a.counts.peak_bytes for a in died), default=0)
        told = [a for a in history if a.exit is not None and a.preempted and task in a.in_flight]
        assert folded.preemptions.get(task, 0) == len(told)


def test_a_later_failure_does_not_unsettle() -> None:
    done, failed = Entry("t", "x", Outcome.DONE, {"rows": 1}), Entry("t", "x", Outcome.FAILED)
    pending = Entry("t", "x", Outcome.PENDING)
    for last in (failed, pending):
        history = [Attempt(0, "a", WorkerExit.SETTLED, (done,)), Attempt(0, "b", WorkerExit.TASKS_FAILED, (last,))]
        assert ledger.fold(history).entries["t", "x"] is done
    later = Attempt(0, "b", WorkerExit.SETTLED, (pending,))
    assert ledger.fold([Attempt(0, "a", WorkerExit.BUG, (failed,)), later]).entries["t", "x"] is pending


# Poison.


@pytest.mark.parametrize(
    ("deaths", "preemptions", "word"),
    [(2, 0, None), (3, 0, "killed 3 times"), (0, 5, None), (0, 6, "interrupted 6 times"), (2, 5, None)],
)
def test_a_task_is_given_up_at_three_deaths_or_six_preemptions(deaths, preemptions, word) -> None:
    died = [Attempt(0, f"d{n}", None, (), (TASK,), counts=Counts(peak_bytes=(n + 1) << 30)) for n in range(deaths)]
    told = [Attempt(0, f"p{n}", WorkerExit.DRAINED, (), (TASK,), preempted=True) for n in range(preemptions)]
    cause = ledger.poisoned(ledger.fold([*died, *told]), TASK, RUN)
    if word is None:
        assert cause is None
        return
    assert isinstance(cause, PoisonError)
    assert word in str(cause)
    assert f"runner retry {RUN}" in str(cause)
    assert deaths == 0 or "3072 MiB" in str(cause)
    entry = ledger.failure(Entry(TASK, "trades", Outcome.FAILED), cause)
    assert ledger.final(entry)  # so that the shard goes on without it


def test_a_user_who_stops_a_run_poisons_nothing() -> None:
    told = [Attempt(0, f"p{n}", WorkerExit.DRAINED, (), (TASK,), preempted=False) for n in range(20)]
    folded = ledger.fold(told)
    assert ledger.poisoned(folded, TASK, RUN) is None
    assert folded == Fold(entries={}, deaths={}, preemptions={}, peak_bytes={})


@pytest.mark.parametrize(
    ("error", "final"),
    [(TransientError("x"), False), (SourceError("x"), True), (ConfigError("x"), False)],
)
def test_only_failures_for_good_are_final(error, final) -> None:
    entry = ledger.failure(Entry(TASK, "trades", Outcome.DONE), error)
    assert entry.outcome is Outcome.FAILED
    assert entry.facts == {"error": "x", "exit": int(error.worker_exit)}
    assert ledger.final(entry) == final


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.FAILED])
def test_every_other_outcome_is_final_within_its_run(outcome: Outcome) -> None:
    assert ledger.final(Entry(TASK, "trades", outcome))


@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text(), max_size=3), max_size=5))
def test_canonical_json_reads_back_and_is_one_line(value) -> None:
    body = ledger.canonical(value)
    assert json.loads(body) == value
    assert b"\n" not in body


def test_keys_that_are_none_of_ours_are_passed_over_and_foreign_metadata_are_told(request) -> None:
    store = MemoryStore(request.node.name)
    ledger.write_ledger(store, "r", Attempt(0, "a", WorkerExit.SETTLED), Pin("ours", 0, 0))
    ledger.write_ledger(store, "r", Attempt(1, "b", WorkerExit.SETTLED), Pin("of a removed run", 0, 0))
    for kind in ("shards", "progress", "logs"):
        store.put(f"_runs/r/{kind}/notes.txt", b"notes")
    assert {a.attempt for a in ledger.read_attempts(store, "r")} == {"a", "b"}
    assert {a.attempt for a in ledger.read_counts(store, "r")} == {"a", "b"}
    assert {a.attempt for a in ledger.read_counts(store, "r", Pin("ours", 0, 0))} == {"a"}
    store.put(layout.progress("r", 2, "c"), b"{}", metadata={"done": "many"})
    with pytest.raises(ConfigError, match=r"progress/2/c has metadata of another writer"):
        ledger.read_counts(store, "r")
