"""Runs that a controller carries out: whether somebody is at it, and how they end, told from the store alone."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from runner import ledger, run_record, runs
from runner.errors import Exit, SpecError, WorkerExit
from runner.ledger import Attempt
from runner.pipeline import record as pipeline
from runner.runs import Controlled, LogQuery, RunState, Watch
from runner.store import ABSENT
from tests.unit.conftest import World

DAY = date(2024, 8, 1)


@pytest.fixture
def begun(world: World) -> run_record.RunRecord:
    place = pipeline.find(world.spec(), world.store, DAY, allow_incomplete=False)
    return pipeline.begin(world.spec(), world.store, DAY, place)


def test_a_pipeline_is_a_run_of_one_task_and_the_same_for_who_asks_again(world: World, begun: Any) -> None:
    assert (begun.tasks, begun.shards, begun.request["stage"]) == (1, 1, "pipeline")
    assert begun.request["days"] == ["2024-08-01", "2024-08-01"]
    again = pipeline.find(world.spec(shards=1), world.store, DAY, allow_incomplete=False)
    assert (again.run, again.is_begun) == (begun.id, True)
    other = pipeline.find(world.spec(), world.store, DAY, allow_incomplete=True)
    assert not other.is_begun
    runs.finish(world.store, begun.id, "finished", {0: 65})
    following = pipeline.find(world.spec(), world.store, DAY, allow_incomplete=False)
    assert (following.run, following.is_begun) == (f"{begun.id}-r1", False)


def test_it_runs_while_its_controller_writes(world: World, begun: Any) -> None:
    there = Controlled(world.store)
    assert Watch(world.store, begun).status(there.settle(begun)).state is RunState.RUNNING
    ledger.write_progress(world.store, begun.id, Attempt(0, "a", in_flight=("x",)), ABSENT)
    with there.watching(begun) as sight:
        assert sight().alive
    ledger.write_ledger(world.store, begun.id, Attempt(0, "a", WorkerExit.TRANSIENT, error="source down"))
    assert Watch(world.store, begun).status(there.settle(begun)).state is RunState.STOPPED


def test_without_a_controller_it_is_ended_by_who_cancels_it(world: World, begun: Any) -> None:
    there = Controlled(world.store)
    ledger.write_ledger(world.store, begun.id, Attempt(0, "a", WorkerExit.TRANSIENT))
    assert runs.cancel(world.store, begun.id)
    there.cancel(begun, world.spec(), lambda: False)
    assert runs.verdict(world.store, begun) is Exit.INTERRUPTED
    assert there.clean(begun.id) > 0
    assert list(run_record.run_ids(world.store)) == []


def test_who_waits_for_a_controller_may_be_told_to_stop(world: World, begun: Any) -> None:
    ledger.write_progress(world.store, begun.id, Attempt(0, "a", in_flight=("x",)), ABSENT)
    Controlled(world.store).cancel(begun, world.spec(), lambda: True)
    assert runs.ending(world.store, begun.id) is None
    with pytest.raises(SpecError, match="less than a minute ago"):
        Controlled(world.store).abandon(begun)


def test_it_is_begun_by_its_own_command_alone(world: World, begun: Any) -> None:
    with pytest.raises(SpecError, match="runner pipeline --day 2024-08-01"):
        Controlled(world.store).start(begun, world.spec())


def test_the_command_that_goes_on_with_it_leads_to_where_it_was(world: World) -> None:
    spec = world.spec(backend="kubernetes", namespace="market", image="runner:test")
    begun = pipeline.begin(spec, world.store, DAY, pipeline.find(spec, world.store, DAY, allow_incomplete=False))
    with pytest.raises(SpecError) as caught:
        Controlled(world.store).start(begun, spec)
    where = "--backend kubernetes --namespace market --image runner:test --values FILE"
    assert str(caught.value).endswith(f"runner pipeline --day 2024-08-01 --store {world.store.url} {where}")


def test_its_log_is_in_the_store(world: World, begun: Any) -> None:
    ledger.write_log(world.store, begun.id, (0, "a"), b"one\n", ABSENT)
    (text,) = Controlled(world.store).logs(begun, LogQuery())()
    assert text.text == "one\n"
