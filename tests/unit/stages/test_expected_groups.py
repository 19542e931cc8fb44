"""Grouped files as tasks: when they are expected, who selects them, and what validation says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from runner import layout
from runner.errors import Exit
from runner.market.groups import Group
from runner.market.symbols import Availability, Instrument, parse_symbol
from runner.spec import RunSpec
from runner.stages import expected
from runner.stages import report as reports
from runner.stages.instrument_file import InstrumentTable, read_table, table_bytes
from runner.stages.reasons import Reasons
from runner.stages.sealing import Listing
from runner.stages.validate import Grounds, Verdict, judge
from runner.task import Source

DAY = date(2024, 8, 8)
SINCE = datetime(2024, 1, 1, tzinfo=UTC)
KEY = "DERIBIT:OPTION:OPTIONS"


def row(symbol: str, kind: str = "option", data_types: tuple[str, ...] = ("trades",)) -> Instrument:
    found = parse_symbol("deribit", symbol, kind, availability=Availability(SINCE, None, data_types), day=DAY)
    assert isinstance(found, Instrument)
    return found


ROWS = (
    row("BTC-27SEP24-60000-C"),
    row("BTC-27SEP24-60000-P"),
    row("BTC_USDC-27SEP24-60000-C"),
    row("BTC-PERPETUAL", "perpetual", ("trades", "liquidations")),
)
OPTIONS = Group("deribit", "OPTIONS", ("trades", "options_chain", "liquidations"), SINCE, None)
PERPETUALS = Group("deribit", "PERPETUALS", ("trades", "liquidations"), SINCE, datetime(2030, 1, 1, tzinfo=UTC))
TABLE = InstrumentTable(DAY, ROWS, {"deribit": date(2024, 9, 1)}, groups=(OPTIONS, PERPETUALS))


def tasks(**values: object) -> dict[str, tuple[str, ...]]:
    spec = RunSpec(**{"data_types": "trades options_chain liquidations", "venues": "deribit", **values})
    return {task.key: task.data_types for task in expected.expect_of(spec, TABLE).tasks}


def test_a_group_is_a_task_for_what_no_member_offers() -> None:
    (task,) = expected.group_tasks(TABLE, ("trades", "options_chain", "liquidations", "quotes"))
    assert (task.key, task.data_types) == (KEY, ("options_chain", "liquidations"))
    assert task.source == Source("deribit", "OPTIONS")
    assert task.parts == ("BTC-USD", "BTC-USDC")


def test_without_a_chain_there_are_no_parts() -> None:
    (task,) = expected.group_tasks(TABLE, ("liquidations",))
    assert (task.data_types, task.parts) == (("liquidations",), ())


@pytest.mark.parametrize(
    ("selection", "is_taken"),
    [
        ({}, True),
        ({"instruments": "OPTIONS"}, True),
        ({"instruments": KEY.lower()}, True),
        ({"instruments": "deribit"}, True),
        ({"instruments": "BTC-27SEP24-60000-C"}, True),
        ({"instruments": "*:OPTION:BTC-USDC-*"}, True),
        ({"instruments": "BTC-PERPETUAL"}, False),
        ({"instruments": "PERPETUALS"}, False),
        ({"instrument_types": "OPTION"}, True),
        ({"instrument_types": "PERPETUAL"}, False),
        ({"venues": "binance"}, False),
        ({"max_instruments": 1}, True),
        ({"data_types": "trades"}, False),
    ],
)
def test_a_group_is_taken_by_its_name_or_by_a_member(selection: dict, is_taken) -> None:
    assert (KEY in tasks(**selection)) is is_taken


def test_groups_do_not_count_as_instruments() -> None:
    found = tasks(max_instruments=2)
    assert len(found) == 3
    assert set(found[KEY]) == {"options_chain", "liquidations"}


def test_groups_survive_the_table_s_file_and_change_its_digest() -> None:
    again = read_table(table_bytes(TABLE), "here", DAY)
    assert again == TABLE
    assert again.groups == (OPTIONS, PERPETUALS)
    assert InstrumentTable(DAY, ROWS, TABLE.exported_until).digest != TABLE.digest
    assert KEY not in {each.instrument_key for each in again.rows}


# Against a server, as a user would.

GENERATED = {
    "exchange": "deribit",
    "symbols": ["BTC-PERPETUAL", "BTC-30AUG24-60000-C", "BTC-30AUG24-60000-P", "SOL_USDC-30AUG24-150-C"],
    "data_types": ["trades", "options_chain"],
    "days": ["2024-08-08", "2024-08-08"],
    "rows_per_day": 300,
    "seed": 7,
}


@pytest.fixture
def deribit(world, sandbox) -> Iterator:
    """The world of the other tests, but the source has Deribit alone."""
    world.server, world.tardis = sandbox(generate=GENERATED)
    return world


def test_a_chain_is_downloaded_validated_and_explained(deribit) -> None:
    asked = {"venues": "deribit", "data_types": "options_chain", "start_date": "2024-08-08"}
    spec = deribit.spec(**asked)
    submitted = deribit.submit(spec)
    assert submitted.record.tasks == 1
    whole = deribit.spec(**asked, stage="validate")
    before = reports.report(whole, deribit.store, deribit.tardis)
    (gap,) = before.gaps
    assert (gap.key, len(gap.objects), gap.reason) == (KEY, 16, "never downloaded")
    assert deribit.carry_out(submitted.record, spec) is Exit.DONE
    after = reports.report(whole, deribit.store, deribit.tardis)
    (judgement,) = after.judgements
    assert (judgement.verdict, judgement.expected) == (Verdict.COMPLETE, (KEY,))
    assert (judgement.objects, judgement.rows, after.doubts) == (16, 300, ())

    (found,) = reports.explain(whole, deribit.store, deribit.tardis, KEY, DAY)
    assert found.state == "present"
    assert "300 rows, by underlying: BTC-USD, SOL-USDC" in found.reason
    (found,) = reports.explain(whole, deribit.store, deribit.tardis, "deribit:perp:btc-usd", DAY)
    assert found.object_key == layout.ticks(DAY, "options_chain", "DERIBIT:PERPETUAL:BTC-USD")
    (found,) = reports.explain(whole, deribit.store, deribit.tardis, "DERIBIT:OPTION:BTC-USD-240830-60000-CALL", DAY)
    assert found.state == "not_expected"
    assert f"its rows are in the file of {KEY}" in found.reason

    lost = layout.option_features(DAY, "1h", "DERIBIT:SOL-USDC")
    assert deribit.store.delete(lost)
    (gap,) = reports.report(whole, deribit.store, deribit.tardis).gaps
    assert gap.objects == (lost,)
    assert f"--instruments {KEY} " in gap.command
    assert deribit.submit(spec).record.tasks == 1


def test_rows_of_symbols_without_a_key_are_a_doubt_and_no_gap(deribit) -> None:
    asked = {"venues": "deribit", "data_types": "options_chain", "start_date": "2024-08-08"}
    spec = deribit.spec(**asked)
    deribit.carry_out(deribit.submit(spec).record, spec)
    key = layout.ticks(DAY, "options_chain", "DERIBIT:UNPARSED")
    deribit.store.put(key, b"x", if_generation="")
    found = reports.report(deribit.spec(**asked, stage="validate"), deribit.store, deribit.tardis)
    assert (found.gaps, found.doubts) == ((), (f"{key} holds rows of symbols that have no key",))
    record = json.loads(deribit.store.get(layout.completeness(DAY, "DERIBIT")))
    assert record["dataTypes"]["options_chain"]["verdict"] == "complete"


def test_a_grouped_file_that_members_have_their_own_files_beside_is_a_doubt_where_not_all_have(store) -> None:
    rows = (*ROWS[:2], row("BTC-27SEP24-70000-C", data_types=("trades", "liquidations")), ROWS[3])
    table = InstrumentTable(DAY, rows, TABLE.exported_until, groups=(OPTIONS, PERPETUALS))
    assert [task.data_types for task in expected.group_tasks(table, ("liquidations",))] == []
    why, listing = Reasons(store), Listing(store)
    found = judge(Grounds(store, table, "liquidations", {}, why, listing), "DERIBIT")
    (doubt,) = found.doubts
    assert doubt.startswith(f"2 of 3 instruments of {KEY} have no file of their own")
    assert judge(Grounds(store, table, "trades", {}, why, listing), "DERIBIT").doubts == ()
