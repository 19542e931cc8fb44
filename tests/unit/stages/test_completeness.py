"""When a completeness record is believed, and what a day lacks by it."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from runner import layout
from runner.errors import ConfigError
from runner.stages import completeness
from runner.stages.completeness import Lack
from runner.stages.expected import Day, expect
from runner.stages.report import report
from runner.store import ABSENT
from tests.unit.conftest import World

DAY = date(2024, 8, 2)
BTC, ETH = "BINANCE:SPOT_PAIR:BTC-USDT", "BINANCE:SPOT_PAIR:ETH-USDT"
ALL = "trades quotes book_snapshot_5"


def day_of(world: World, **asked: Any) -> Day:
    return next(expect(spec_of(world, **asked), world.store, world.tardis, [DAY]))


def spec_of(world: World, **asked: Any) -> Any:
    return world.spec(**{"start_date": str(DAY), "data_types": ALL, **asked})


def validate(world: World) -> None:
    report(spec_of(world), world.store, world.tardis)


def lacks(world: World, **asked: Any) -> list[Lack]:
    return list(completeness.lacks(spec_of(world, **asked), world.store, day_of(world, **asked)))


def gate(world: World, **asked: Any) -> list[Lack]:
    return list(completeness.gate(spec_of(world, **asked), world.store, day_of(world, **asked)))


def rewrite(world: World, key: str) -> None:
    """Put the same bytes again: another object, though nothing about it is different."""
    live, body = world.store.head(key), world.store.get(key)
    world.store.put(key, body, if_generation=live.generation, metadata=live.metadata)


def test_what_nobody_validated_lacks_everything(complete: World) -> None:
    found = lacks(complete)
    assert [(lack.data_type, lack.keys, lack.key, lack.reason) for lack in found] == [
        ("trades", 2, BTC, "never validated"),
        ("quotes", 2, BTC, "never validated"),
        ("book_snapshot_5", 2, BTC, "never validated"),
    ]
    assert all(lack.command.startswith("runner validate --start-date 2024-08-02") for lack in found)


@pytest.mark.parametrize(
    ("command", "is_placed"),
    [
        ("runner submit download --store gs://b/p", True),
        ("runner pipeline --day 2024-08-02 --store gs://b/p", True),
        ("runner retry download-3f --store gs://b/p", False),
        ("runner validate --store gs://b/p", False),
    ],
)
def test_a_command_that_begins_a_run_says_where_runs_are_carried_out(
    complete: World,
    command: str,
    is_placed: bool,  # noqa: FBT001
) -> None:
    lack = Lack(DAY, "BINANCE", "trades", 1, BTC, "x", command)
    where = {"namespace": "market", "image": "runner:test"}
    there = complete.spec(backend="kubernetes", context="prod", **where)
    words = " --backend kubernetes --namespace market --context prod --image runner:test"
    assert completeness.placed(lack, there).command == command + (words if is_placed else "")
    in_a_pod = words.replace(" --context prod", "") + " --values FILE"
    placed = completeness.placed(lack, complete.spec(backend="kubernetes", **where))
    assert placed.command == command + (in_a_pod if is_placed else "")
    assert completeness.placed(lack, complete.spec()) == lack


def test_what_was_found_complete_lacks_nothing(complete: World) -> None:
    validate(complete)
    assert (lacks(complete), gate(complete)) == ([], [])


@pytest.mark.parametrize("how", ["gone", "another"])
def test_ticks_that_changed_since_are_judged_no_more_and_shut_the_gate(complete: World, how: str) -> None:
    validate(complete)
    key = layout.ticks(DAY, "trades", ETH)
    if how == "gone":
        complete.store.delete(key)
    else:
        rewrite(complete, key)
    for found in (lacks(complete), gate(complete)):
        (lack,) = found
        assert (lack.data_type, lack.reason) == ("trades", "objects have changed since it was validated")
        assert lack.is_stale


def test_candles_made_since_are_to_be_judged_and_leave_the_gate_open(complete: World) -> None:
    validate(complete)
    rewrite(complete, layout.candles(DAY, "1m", BTC))
    assert [lack.data_type for lack in lacks(complete)] == ["trades"]
    assert gate(complete) == []


def test_another_catalogue_makes_records_old(complete: World) -> None:
    validate(complete)
    record = layout.completeness(DAY, "BINANCE")
    live = complete.store.head(record)
    assert live is not None
    body = complete.store.get(record).replace(b'"expectedDigest": "', b'"expectedDigest": "0', 1)
    complete.store.put(record, body, if_generation=live.generation)
    (lack,) = lacks(complete)
    assert (lack.reason, lack.is_stale) == ("the catalogue has changed since it was validated", True)


def test_gaps_are_those_of_the_selection(complete: World) -> None:
    complete.store.delete(layout.ticks(DAY, "quotes", ETH))
    validate(complete)
    (lack,) = lacks(complete)
    assert (lack.venue, lack.data_type, lack.keys, lack.key, lack.is_stale) == ("BINANCE", "quotes", 1, ETH, False)
    assert "gone from the store since" in lack.reason
    assert lack.command.startswith("runner submit download")
    assert lacks(complete, instruments=BTC) == []
    assert lacks(complete, data_types="trades") == []


def test_the_gate_asks_only_for_what_candles_are_made_of(complete: World) -> None:
    complete.store.delete(layout.ticks(DAY, "quotes", ETH))
    validate(complete)
    assert gate(complete) == []
    assert len(lacks(complete)) == 1


def test_what_is_only_late_is_told_apart(world: World) -> None:
    late = world.spec(start_date="2024-08-05")
    report(late, world.store, world.tardis)
    there = next(expect(late, world.store, world.tardis, [date(2024, 8, 5)]))
    (lack,) = completeness.lacks(late, world.store, there)
    assert (lack.keys, lack.reason, lack.is_pending) == (2, "pending: not exported yet", True)


def test_candles_of_other_ticks_than_now_are_named(complete: World) -> None:
    (trades, books) = completeness.candle_lacks(complete.store, day_of(complete))
    assert (trades.data_type, trades.keys, books.data_type) == ("trades", 2, "book_snapshot_5")
    assert trades.command.startswith("runner submit candles --start-date 2024-08-02")


def test_what_is_no_record_is_named(complete: World) -> None:
    key = layout.completeness(DAY, "BINANCE")
    complete.store.put(key, b"{}", if_generation=ABSENT)
    with pytest.raises(ConfigError, match="no completeness record"):
        lacks(complete)
