"""What a pipeline does with a day, a morning, a stop in the middle, a twin: in this process, against a real source."""

from __future__ import annotations

import json
from datetime import date

import pytest

from runner import layout, ledger
from runner.errors import NotFoundError
from runner.pipeline import Verdict
from runner.runs import verdict
from tests.unit.pipeline.conftest import Mornings

DAY, NEXT = date(2024, 8, 2), date(2024, 8, 3)


def test_a_day_is_brought_to_completeness_stage_after_stage(mornings: Mornings) -> None:
    (end,) = mornings.run("2024-08-02")

    assert (end.day, end.verdict, end.lacks) == (DAY, Verdict.COMPLETE, ())
    record = json.loads(mornings.world.store.get(layout.completeness(DAY, "BINANCE")))
    assert record["dataTypes"]["trades"]["verdict"] == "complete"
    assert mornings.sealed(DAY) == {"false"}, "the days beside are not there"
    created = sorted(
        (ledger.get_run(mornings.world.store, run) for run in ledger.run_ids(mornings.world.store)),
        key=lambda record: record.created,  # type: ignore[arg-type, return-value]
    )
    assert [record.request["stage"] for record in created] == [
        "pipeline",
        "instruments",
        "availability",
        "download",
        "validate",
        "candles",
        "validate",
    ]
    assert {record.request["parent"].partition(".")[0] for record in created[1:]} == {end.run}
    assert mornings.unfinished() == []
    assert verdict(mornings.world.store, created[0]) == 0


def test_asked_again_it_does_nothing(mornings: Mornings) -> None:
    mornings.run("2024-08-02")
    before = {info.key: info.generation for info in mornings.world.store.list("")}

    (end,) = mornings.run("2024-08-02")

    assert (end.verdict, end.run) == (Verdict.NOTHING, None)
    assert {info.key: info.generation for info in mornings.world.store.list("")} == before


def test_a_range_seals_each_day_by_the_next(mornings: Mornings) -> None:
    ends = mornings.run("2024-08-01..2024-08-03")

    assert [end.verdict for end in ends] == [Verdict.COMPLETE] * 3
    # The first day has nothing before it that was ever listed, the last one waits for the day after.
    assert [mornings.sealed(date(2024, 8, n)) for n in (1, 2, 3)] == [{"true"}, {"true"}, {"false"}]
    assert set(mornings.done.values()) == {1}


def test_nothing_listed_is_passed_over_unless_it_is_the_last_day(mornings: Mornings) -> None:
    ends = mornings.run("2024-07-30..2024-08-01")
    assert [end.verdict for end in ends] == [Verdict.NOTHING, Verdict.NOTHING, Verdict.COMPLETE]
    with pytest.raises(NotFoundError, match="nothing matches"):
        mornings.run("2024-07-30..2024-07-31")


def test_what_changed_since_is_found_and_mended(mornings: Mornings) -> None:
    mornings.run("2024-08-02")
    lost = layout.ticks(DAY, "trades", "BINANCE:SPOT_PAIR:BTC-USDT")
    mornings.world.store.delete(lost)

    (end,) = mornings.run("2024-08-02")

    assert end.verdict is Verdict.COMPLETE
    assert end.run is not None
    assert end.run.endswith("-r1")
    assert mornings.world.store.head(lost) is not None
    assert [end.verdict for end in mornings.run("2024-08-02")] == [Verdict.NOTHING]
