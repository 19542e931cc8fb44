"""What a submit finds or makes of its request, in every state that its runs can be in."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner import history, layout, ledger, plan, run_record, runs
from runner.errors import ConfigError, Exit, NotFoundError, SpecError
from runner.runs import given_up
from runner.runs.request import draft
from runner.runs.state import CANCELLED, FINISHED, finish
from runner.runs.submit import State, create, submit
from runner.store.memory import MemoryStore
from runner.task import Outcome

BAD = "*/trades/2024/08/01/ETHUSDT*"
TICKS = "raw_tick_data/by_date/day-2024-08-01/data_type-trades/BINANCE:SPOT_PAIR:"


def corrupt(world, path: str = BAD) -> None:
    world.server.add_faults({"path": path, "fault": "corrupt", "kind": "gzip_trailer"})


def test_a_new_request_becomes_a_run_with_its_plan(world) -> None:
    spec = world.spec()
    found = world.submit(spec)
    assert found.state is State.CREATED
    record = run_record.get_run(world.store, found.record.id)
    assert record == found.record
    assert (record.shards, record.tasks) == (2, 2)
    tasks = plan.decode_bytes(plan.read_plan(world.store, record)).tasks
    assert sorted(t.key for t in tasks) == ["BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"]
    assert record.id == plan.run_id(spec.stage, record.request)
    assert json.loads(json.dumps(record.spec)) == json.loads(spec.to_json())
    assert world.store.head(layout.instruments(spec.start_date)) is not None


def test_an_unfinished_run_whose_plan_is_gone_is_not_handed_back(world) -> None:
    run = world.submit(world.spec()).record.id
    world.store.delete(layout.plan(run))
    with pytest.raises(ConfigError, match=rf"no plan .*runner clean {run}"):
        world.submit(world.spec())


@pytest.mark.parametrize(
    "same",
    [
        {"shards": 5},
        {"parallelism": 1},
        {"venues": ["BINANCE"]},
        {"venues": "Binance, BINANCE"},
        {"end_date": "2024-08-01"},
        {"log_level": "DEBUG"},
        {"retry": {"limit": 1}},
    ],
)
def test_an_unfinished_run_is_attached_to_whatever_the_resources_and_the_spelling(world, same) -> None:
    first = world.submit(world.spec()).record
    again = world.submit(world.spec(**same))
    assert (again.state, again.record) == (State.UNFINISHED, first)
    assert list(run_record.run_ids(world.store)) == [first.id]


def test_lists_and_their_order_make_no_other_request(world) -> None:
    one = world.spec(data_types="quotes trades", instruments="BINANCE:*:BTC-* binance:*:ETH-*")
    other = world.spec(data_types=["trades", "quotes"], instruments=["BINANCE:*:ETH-*", "BINANCE:*:BTC-*"])
    first = world.submit(one).record
    assert world.submit(other).record == first


@pytest.mark.parametrize(
    "other",
    [
        {"start_date": "2024-08-02"},
        {"end_date": "2024-08-02"},
        {"data_types": "quotes"},
        {"instruments": "BINANCE:*:BTC-*"},
        {"max_instruments": 1},
        {"instrument_types": "SPOT_PAIR"},
        {"select": "all"},
    ],
)
def test_another_request_is_another_run(world, other) -> None:
    first = world.submit(world.spec()).record
    second = world.submit(world.spec(**other))
    assert second.state is State.CREATED
    assert second.record.id.rpartition("-")[2] != first.id.rpartition("-")[2]


def test_a_finished_run_with_nothing_missing_leaves_nothing_to_do(world) -> None:
    spec = world.spec()
    first = world.submit(spec).record
    assert world.carry_out(first, spec) is Exit.DONE
    again = world.submit(spec)
    assert (again.state, again.record, again.draft.skipped) == (State.NOTHING, first, 2)
    assert list(run_record.run_ids(world.store)) == [first.id]


def test_what_another_run_left_complete_needs_no_run_of_its_own(world) -> None:
    spec = world.spec()
    world.carry_out(world.submit(spec).record, spec)
    part = world.submit(world.spec(instruments="BINANCE:*:BTC-*"))
    assert (part.state, part.record) == (State.NOTHING, None)
    more = world.submit(world.spec(end_date="2024-08-02"))
    assert {t.day.day for t in more.draft.plan.tasks} == {2}


def test_a_finished_run_with_failures_is_left_to_an_explicit_retry(world) -> None:
    corrupt(world)
    spec = world.spec()
    first = world.submit(spec).record
    assert world.carry_out(first, spec) is Exit.INCOMPLETE
    world.server.clear_faults()
    again = world.submit(spec)
    assert (again.state, again.record) == (State.FAILED, first)
    retry = world.spec(select="failed", parent=first.id)
    second = world.submit(retry)
    assert second.state is State.CREATED
    assert [t.key for t in second.draft.plan.tasks] == ["BINANCE:SPOT_PAIR:ETH-USDT"]
    assert world.carry_out(second.record, retry) is Exit.DONE
    assert world.submit(spec).state is State.NOTHING
    assert world.submit(retry).state is State.NOTHING


def test_a_retry_of_a_run_that_made_all_anew_does_so_too(world) -> None:
    world.carry_out(world.submit(world.spec()).record, world.spec())
    corrupt(world)
    every = world.spec(select="all")
    first = world.submit(every).record
    assert world.carry_out(first, every) is Exit.INCOMPLETE
    (failed,) = (info for info in world.store.list("raw_tick_data/") if "ETH-USDT" in info.key)
    whole = world.store.get(failed.key)
    other = {**failed.metadata, "digest": "of other rows"}
    world.store.put(failed.key, b"other rows", if_generation=failed.generation, metadata=other)
    retry = world.spec(select="failed", parent=first.id)
    second = world.submit(retry)
    assert [t.key for t in second.draft.plan.tasks] == ["BINANCE:SPOT_PAIR:ETH-USDT"]
    assert world.carry_out(second.record, retry) is Exit.INCOMPLETE
    world.server.clear_faults()
    again = world.spec(select="failed", parent=second.record.id)
    third = world.submit(again).record
    lost = {0: ledger.fold(())}
    ((_, entry),) = given_up.rest(world.store, third, lost, {0: 75})
    assert entry.outcome is Outcome.FAILED  # what lay there before is not what this run was to make
    assert world.carry_out(third, again) is Exit.DONE
    assert world.store.get(failed.key) == whole


def test_a_retry_that_failed_too_may_be_repeated(world) -> None:
    corrupt(world)
    spec = world.spec()
    first = world.submit(spec).record
    world.carry_out(first, spec)
    retry = world.spec(select="failed", parent=first.id)
    second = world.submit(retry).record
    assert world.carry_out(second, retry) is Exit.INCOMPLETE
    third = world.submit(retry)
    assert (third.state, third.record.id) == (State.CREATED, f"{second.id}-r1")


def test_a_cancelled_run_with_something_missing_gets_another_pass(world) -> None:
    spec = world.spec()
    first = world.submit(spec).record
    assert runs.cancel(world.store, first.id)
    finish(world.store, first.id, CANCELLED, {})
    again = world.submit(spec)
    assert (again.state, again.record.id) == (State.CREATED, f"{first.id}-r1")
    assert world.submit(spec).record.id == f"{first.id}-r1"


@pytest.mark.parametrize(
    "gone",
    [
        f"{TICKS}ETH-USDT.parquet",
        "processed_candles/by_date/day-2024-08-01/timeframe-4h/BINANCE:SPOT_PAIR:ETH-USDT.parquet",
    ],
    ids=["ticks", "a candle"],
)
def test_an_object_deleted_afterwards_is_done_again_in_the_next_pass(world, gone: str) -> None:
    spec = world.spec()
    first = world.submit(spec).record
    world.carry_out(first, spec)
    assert world.store.delete(gone)
    again = world.submit(spec)
    assert (again.state, again.record.id) == (State.CREATED, f"{first.id}-r1")
    assert [t.key for t in again.draft.plan.tasks] == ["BINANCE:SPOT_PAIR:ETH-USDT"]
    assert world.carry_out(again.record, spec) is Exit.DONE
    assert world.store.head(gone) is not None
    assert world.submit(spec).state is State.NOTHING


def test_forcing_makes_a_new_pass_each_time_and_rewrites_nothing_that_is_equal(world) -> None:
    plain, forced = world.spec(), world.spec(select="all")
    world.carry_out(world.submit(plain).record, plain)
    before = {i.key: i.generation for i in world.store.list("") if not i.key.startswith("_runs/")}
    ids = []
    for _ in range(3):
        found = world.submit(forced)
        assert found.state is State.CREATED
        assert len(found.draft.plan.tasks) == 2
        ids.append(found.record.id)
        assert world.carry_out(found.record, forced) is Exit.DONE
    assert ids == [ids[0], f"{ids[0]}-r1", f"{ids[0]}-r2"]
    assert {i.key: i.generation for i in world.store.list("") if not i.key.startswith("_runs/")} == before


def test_a_forced_run_replaces_what_differs(world) -> None:
    forced = world.spec(select="all")
    store = world.store
    day = world.spec().start_date
    damaged = layout.ticks(day, "trades", "BINANCE:SPOT_PAIR:BTC-USDT")
    store.put(damaged, b"not ours")
    record = world.submit(forced).record
    assert world.carry_out(record, forced) is Exit.DONE
    assert store.head(damaged).metadata["outcome"] == "done"


def test_two_submits_at_once_make_one_run_and_both_get_it(world) -> None:
    ready = threading.Barrier(4)

    def go(shards: int):
        ready.wait()
        return world.submit(world.spec(shards=shards))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(go, (1, 2, 2, 1)))
    assert len({f.record.id for f in found}) == 1
    assert len({f.record.plan for f in found}) == 1
    record = found[0].record
    assert list(run_record.run_ids(world.store)) == [record.id]
    assert len(plan.decode_bytes(plan.read_plan(world.store, record)).shards) == record.shards


def test_a_plan_whose_writer_died_is_adopted(world) -> None:
    spec = world.spec()
    record = world.submit(spec).record
    body = world.store.get(layout.plan(record.id))
    world.store.delete(layout.run_record(record.id))
    again = world.submit(world.spec(shards=1))
    assert (again.state, again.record.id, again.record.shards) == (State.CREATED, record.id, 2)
    assert world.store.get(layout.plan(record.id)) == body


def test_another_request_under_the_id_is_refused_naming_both(world) -> None:
    spec = world.spec()
    record = world.submit(spec).record
    key = layout.run_record(record.id)
    document = json.loads(world.store.get(key))
    document["request"]["venues"] = ["OKX"]
    world.store.delete(key)
    world.store.put(key, json.dumps(document).encode())
    with pytest.raises(ConfigError) as refusal:
        world.submit(spec)
    assert refusal.value.worker_exit == 78
    assert '"venues":["OKX"]' in str(refusal.value)
    assert '"venues":["BINANCE"]' in str(refusal.value)


def test_a_worker_that_plans_must_have_the_spec_of_its_run(world) -> None:
    spec = world.spec()
    drafted = draft(spec, world.store, world.tardis)
    with pytest.raises(ConfigError, match=f"download-00000000 is another request .* {drafted.base}"):
        create(spec, world.store, world.tardis, "download-00000000")
    record = create(spec, world.store, world.tardis, drafted.base)
    assert world.submit(spec).record == record
    assert create(spec, world.store, world.tardis, drafted.base) == record


def test_a_request_that_matches_nothing_is_refused(world) -> None:
    with pytest.raises(NotFoundError, match=r"nothing matches: BINANCE:\*:DOGE-\* on BINANCE with trades"):
        world.submit(world.spec(instruments="BINANCE:*:DOGE-*"))
    with pytest.raises(NotFoundError, match="nothing matches"):
        world.submit(world.spec(start_date="2024-07-31"))


def test_a_store_in_memory_is_refused(world) -> None:
    with pytest.raises(SpecError, match="memory://"):
        submit(world.spec(store="memory://x"), MemoryStore("memory://x"), world.tardis)


def test_failed_tasks_are_those_of_a_run_that_has_to_be_named(world) -> None:
    with pytest.raises(SpecError, match="runner retry RUN"):
        world.submit(world.spec(select="failed"))
    with pytest.raises(NotFoundError, match="no run download-x"):
        world.submit(world.spec(select="failed", parent="download-x"))
    running = world.submit(world.spec()).record
    with pytest.raises(SpecError, match=f"{running.id} has not ended"):
        world.submit(world.spec(select="failed", parent=running.id))


def test_a_run_without_failures_has_nothing_to_retry(world) -> None:
    spec = world.spec()
    first = world.submit(spec).record
    world.carry_out(first, spec)
    found = world.submit(world.spec(select="failed", parent=first.id))
    assert (found.state, found.record) == (State.NOTHING, None)


def test_only_the_data_types_that_failed_are_retried(world) -> None:
    corrupt(world)
    spec = world.spec(data_types="trades quotes")
    first = world.submit(spec).record
    assert world.carry_out(first, spec) is Exit.INCOMPLETE
    retry = world.submit(world.spec(data_types="trades quotes", select="failed", parent=first.id))
    assert [(t.key, t.data_types) for t in retry.draft.plan.tasks] == [("BINANCE:SPOT_PAIR:ETH-USDT", ("trades",))]


def test_shards_are_clamped_to_the_tasks(world) -> None:
    record = world.submit(world.spec(shards=100_000)).record
    assert record.shards == 2


def test_the_newest_pass_is_the_one_with_the_highest_number(world) -> None:
    spec = world.spec()
    record = world.submit(spec).record
    from dataclasses import replace

    for number in (1, 2, 10):
        run_record.write_run(world.store, replace(record, id=f"{record.id}-r{number}"))
        finish(world.store, f"{record.id}-r{number}", FINISHED, {})
    assert submit(spec, world.store, world.tardis).record.id == f"{record.id}-r11"


def test_the_second_run_is_packed_by_what_the_first_one_saw(world) -> None:
    spec = world.spec()
    record = world.submit(spec).record
    world.carry_out(record, spec)
    both = {("BINANCE:SPOT_PAIR:BTC-USDT", "trades"), ("BINANCE:SPOT_PAIR:ETH-USDT", "trades")}
    known = history.known_sizes(world.store, "download", both)
    assert set(known) == both
    tasks = world.submit(world.spec(start_date="2024-08-02")).draft.plan.tasks
    assert {t.key: t.predicted_bytes for t in tasks} == {key: size for (key, _), size in known.items()}


def test_validating_again_is_a_new_pass_whatever_the_last_one_found(world) -> None:
    spec = world.spec(stage="validate")
    first = world.submit(spec).record
    assert world.carry_out(first, spec) is Exit.INCOMPLETE
    download = world.spec()
    world.carry_out(world.submit(download).record, download)
    second = world.submit(spec)
    assert (second.state, second.record.id) == (State.CREATED, f"{first.id}-r1")
    assert world.carry_out(second.record, spec) is Exit.DONE
