"""Candles planned, made, sealed and judged as a user does it: submit by submit, over a real source and store."""

from __future__ import annotations

import json
from datetime import date

import pytest

from runner import plan
from runner.errors import Exit, NotFoundError
from runner.runs.request import draft
from runner.runs.submit import State
from runner.spec import Selection
from runner.stages.report import explain, report
from runner.task import Stage
from tests.unit.conftest import World

KEYS = ("BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT")
FIRST, MIDDLE, LAST = (date(2024, 8, day) for day in (1, 2, 3))
TYPES = "trades book_snapshot_5"


def ask(world: World, stage: str, first: date, last: date | None = None, **values: object):
    return world.spec(stage=stage, data_types=TYPES, start_date=str(first), end_date=str(last or first), **values)


def carry_out(world: World, stage: str, first: date, last: date | None = None, **values: object) -> State:
    spec = ask(world, stage, first, last, **values)
    found = world.submit(spec)
    if found.state is State.CREATED:
        assert world.carry_out(found.record, spec) is Exit.DONE
    return found.state


def planned(world: World, first: date, last: date) -> set[tuple[str, str, tuple[str, ...]]]:
    tasks = draft(ask(world, "candles", first, last), world.store, world.tardis).plan.tasks
    return {(str(task.day), task.key, task.data_types) for task in tasks}


def sealed(world: World, day: date, data_type: str = "trades") -> tuple[bool, list[str], list[str]]:
    report(ask(world, "validate", day), world.store, world.tardis)
    record = json.loads(world.store.get(f"completeness/day-{day}/BINANCE.json"))["dataTypes"][data_type]
    assert record["verdict"] == "complete"
    return record["sealed"], record["unsealed"], record["stale"]


def test_a_day_is_made_made_again_and_sealed_as_its_neighbours_come(world: World) -> None:
    carry_out(world, "download", MIDDLE)
    assert sealed(world, MIDDLE) == (False, list(KEYS), [])
    assert carry_out(world, "candles", MIDDLE) is State.CREATED
    assert sealed(world, MIDDLE) == (False, list(KEYS), [])
    assert carry_out(world, "candles", MIDDLE) is State.NOTHING
    carry_out(world, "download", FIRST, LAST)
    assert sealed(world, MIDDLE) == (False, list(KEYS), list(KEYS))
    assert carry_out(world, "candles", MIDDLE) is State.CREATED
    assert sealed(world, MIDDLE) == (True, [], [])
    assert sealed(world, MIDDLE, "book_snapshot_5") == (True, [], [])
    assert carry_out(world, "candles", MIDDLE) is State.NOTHING


def test_the_plan_takes_exactly_what_is_not_made_of_the_ticks_there_are(complete: World) -> None:
    everything = {(str(d), key, tuple(TYPES.split())) for d in (FIRST, MIDDLE, LAST) for key in KEYS}
    assert planned(complete, FIRST, LAST) == everything
    carry_out(complete, "candles", FIRST, LAST)
    assert planned(complete, FIRST, LAST) == set()
    key = f"processed_candles/by_date/day-{MIDDLE}/timeframe-1h/{KEYS[0]}.parquet"
    complete.store.delete(key)
    assert planned(complete, FIRST, LAST) == {(str(MIDDLE), KEYS[0], ("trades",))}
    ticks = f"raw_tick_data/by_date/day-{LAST}/data_type-book_snapshot_5/{KEYS[1]}.parquet"
    complete.store.delete(ticks)
    assert planned(complete, FIRST, MIDDLE) == {
        (str(MIDDLE), KEYS[0], ("trades",)),
        (str(MIDDLE), KEYS[1], ("book_snapshot_5",)),
    }


def test_the_last_day_is_provisional_and_the_first_of_the_listing_is_not(complete: World) -> None:
    carry_out(complete, "candles", FIRST, LAST)
    assert [sealed(complete, day)[0] for day in (FIRST, MIDDLE, LAST)] == [True, True, False]
    found = report(ask(complete, "validate", FIRST, LAST), complete.store, complete.tardis)
    assert (found.gaps, found.unsealed, found.stale) == ((), 4, 0)


def test_predicted_bytes_are_those_of_the_ticks(complete: World) -> None:
    tasks = draft(ask(complete, "candles", MIDDLE, select=Selection.ALL), complete.store, complete.tardis).plan.tasks
    prefix = f"raw_tick_data/by_date/day-{MIDDLE}/data_type-"
    sizes = {key: sum(complete.store.head(f"{prefix}{t}/{key}.parquet").size for t in TYPES.split()) for key in KEYS}
    assert {task.key: task.predicted_bytes for task in tasks} == sizes


def test_every_candle_is_made_again_when_all_are_asked_for(complete: World) -> None:
    carry_out(complete, "candles", MIDDLE)
    spec = ask(complete, "candles", MIDDLE, select=Selection.ALL)
    assert complete.carry_out(complete.submit(spec).record, spec) is Exit.DONE
    assert sealed(complete, MIDDLE)[0] is True


def test_candles_of_what_was_never_downloaded_are_missing_until_it_is(world: World) -> None:
    spec = ask(world, "candles", MIDDLE)
    record = world.submit(spec).record
    assert {task.stage for task in plan.decode_bytes(plan.read_plan(world.store, record)).tasks} == {Stage.CANDLES}
    assert world.carry_out(record, spec) is Exit.INCOMPLETE
    carry_out(world, "download", MIDDLE)
    assert carry_out(world, "candles", MIDDLE) is State.CREATED


def test_a_type_that_no_candles_come_of_is_refused(complete: World) -> None:
    spec = complete.spec(stage="candles", data_types="quotes", start_date=str(MIDDLE))
    with pytest.raises(NotFoundError, match="no candles come of quotes"):
        draft(spec, complete.store, complete.tardis)


def test_explain_tells_whether_candles_are_final(complete: World) -> None:
    spec = ask(complete, "validate", MIDDLE)

    def words() -> str:
        return explain(spec, complete.store, complete.tardis, KEYS[0], MIDDLE)[0].reason

    assert words().endswith("its candles are provisional")
    carry_out(complete, "candles", MIDDLE)
    assert words().endswith("its candles are sealed")
