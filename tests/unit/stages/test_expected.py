"""What a request expects, against a plain loop over a catalogue written out by hand."""

from __future__ import annotations

import logging
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import layout
from runner.errors import NotFoundError
from runner.spec import RunSpec
from runner.stages import expected
from runner.store.memory import MemoryStore
from runner.task import Stage

DAYS = (date(2024, 8, 7), date(2024, 8, 8))
TYPES = ("trades", "quotes", "book_snapshot_5")
VENUES = ("BINANCE", "BINANCE-FUTURES", "DERIBIT")
# Exchange, symbol, type and data types of Tardis, first day, our key.
LISTED = [
    ("binance", "BTCUSDT", "spot", ("trades", "quotes", "book_snapshot_5"), 1, "BINANCE:SPOT_PAIR:BTC-USDT"),
    ("binance", "ETHUSDT", "spot", ("quotes", "trades"), 8, "BINANCE:SPOT_PAIR:ETH-USDT"),
    ("binance", "ETHBTC", "spot", ("trades",), 1, "BINANCE:SPOT_PAIR:ETH-BTC"),
    ("binance", "ADAUSDT", "spot", ("incremental_book_L2",), 1, "BINANCE:SPOT_PAIR:ADA-USDT"),
    ("binance-futures", "BTCUSDT", "perpetual", ("trades", "quotes"), 1, "BINANCE-FUTURES:PERPETUAL:BTC-USDT"),
    ("binance-futures", "ETHUSDT", "perpetual", ("quotes",), 8, "BINANCE-FUTURES:PERPETUAL:ETH-USDT"),
    ("deribit", "BTC-PERPETUAL", "perpetual", ("trades",), 1, "DERIBIT:PERPETUAL:BTC-USD"),
]
# A selector, and the keys it means.
SELECTORS = {
    "BINANCE:*": [each[-1] for each in LISTED if each[0] == "binance"],
    "*:PERPETUAL:*": [each[-1] for each in LISTED if each[2] == "perpetual"],
    "*:BTC-*": [
        "BINANCE:SPOT_PAIR:BTC-USDT",
        "BINANCE-FUTURES:PERPETUAL:BTC-USDT",
        "DERIBIT:PERPETUAL:BTC-USD",
    ],
    "BINANCE:SPOT_PAIR:ETH-BTC": ["BINANCE:SPOT_PAIR:ETH-BTC"],
    "ETHUSDT": ["BINANCE:SPOT_PAIR:ETH-USDT", "BINANCE-FUTURES:PERPETUAL:ETH-USDT"],
    "NOTHING-*": [],
}


class Source:
    """The two answers of a source that planning asks for; `until` is the first day not exported, by exchange."""

    api_url = "http://127.0.0.1/v1"

    def __init__(self, **until: str) -> None:
        self._until = {name.replace("_", "-"): day for name, day in until.items()}

    def exchanges(self) -> list[dict[str, Any]]:
        return [{"id": name, "supportsDatasets": True} for name in self._until]

    def exchange(self, name: str) -> dict[str, Any]:
        symbols = [
            {"id": s, "type": kind, "dataTypes": list(types), "availableSince": f"2024-08-{first:02}T00:00:00.000Z"}
            for exchange, s, kind, types, first, _ in LISTED
            if exchange == name
        ]
        return {"id": name, "datasets": {"exportedUntil": f"{self._until[name]}T00:00:00.000Z", "symbols": symbols}}


WHOLE = Source(binance="2024-09-01", binance_futures="2024-09-01", deribit="2024-09-01")


def spec(**values: Any) -> RunSpec:
    whole = {"store": "memory://expected", "venues": VENUES, "data_types": TYPES, "start_date": str(DAYS[0])}
    return RunSpec(**{**whole, "end_date": str(DAYS[1]), **values})


def days(asked: RunSpec, source: Source = WHOLE) -> list[expected.Day]:
    return list(expected.expect(asked, MemoryStore("expected"), source, expected.days_of(asked, source)))  # type: ignore[arg-type]


def naive(asked: RunSpec, day: date) -> list[tuple[str, tuple[str, ...]]]:
    """Return (key, data types) of a day, by what the request says and nothing else."""
    found = []
    for venue in VENUES:
        count = 0
        for _, _, _, offered, first, key in sorted(LISTED, key=lambda each: each[-1]):
            if key.split(":")[0] != venue or venue not in asked.venues or day.day < first:
                continue
            if asked.instrument_types and key.split(":")[1] not in asked.instrument_types:
                continue
            if asked.instruments and not any(key in SELECTORS[each] for each in asked.instruments):
                continue
            count += 1
            if asked.max_instruments and count > asked.max_instruments:
                continue
            if types := tuple(each for each in asked.data_types if each in offered):
                found.append((key, types))
    return sorted(found)


def some(values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(sorted(values)), unique=True)


@settings(max_examples=40)
@given(
    some(VENUES).filter(bool),
    some(("SPOT_PAIR", "PERPETUAL")),
    some(SELECTORS),
    some(TYPES).filter(bool),
    st.none() | st.integers(1, 3),
)
def test_the_tasks_of_any_request_are_those_of_a_plain_loop(
    venues: list[str], types: list[str], selectors: list[str], data_types: list[str], most: int | None
) -> None:
    asked = spec(
        venues=venues, instrument_types=types, instruments=selectors, data_types=data_types, max_instruments=most
    )
    found = days(asked)
    assert [each.day for each in found] == list(DAYS)
    for each in found:
        assert sorted((task.key, task.data_types) for task in each.tasks) == naive(asked, each.day)
        assert {(task.stage, task.day) for task in each.tasks} <= {(Stage.DOWNLOAD, each.day)}


def test_a_task_knows_where_the_source_has_its_instrument() -> None:
    (task,) = days(spec(instruments=["DERIBIT:PERPETUAL:BTC-USD"], end_date=str(DAYS[0])))[0].tasks
    assert task.source is not None
    assert (task.source.exchange, task.source.symbol, task.source.inverse) == ("deribit", "BTC-PERPETUAL", True)


def test_the_instrument_table_of_each_day_is_written_with_all_venues() -> None:
    store = MemoryStore("tables")
    asked = spec(venues=["DERIBIT"])
    found = list(expected.expect(asked, store, WHOLE, DAYS))  # type: ignore[arg-type]
    assert [len(each.table.rows) for each in found] == [5, 7]
    assert all(store.head(layout.instruments(day)) for day in DAYS)


def test_days_are_those_of_the_request_with_both_ends() -> None:
    asked = spec(start_date="2024-02-28", end_date="2024-03-01")
    assert [str(day) for day in expected.days_of(asked, WHOLE)] == ["2024-02-28", "2024-02-29", "2024-03-01"]  # type: ignore[arg-type]
    assert expected.days_of(spec(end_date=None), WHOLE) == (DAYS[0],)  # type: ignore[arg-type]


def test_without_dates_it_is_the_newest_day_that_all_listed_venues_have() -> None:
    source = Source(binance="2024-08-10", deribit="2024-08-09")
    asked = spec(start_date=None, end_date=None)
    assert expected.days_of(asked, source) == (date(2024, 8, 8),)  # type: ignore[arg-type]
    only = asked.model_copy(update={"venues": ("BINANCE",)})
    assert expected.days_of(only, source) == (date(2024, 8, 9),)  # type: ignore[arg-type]


def test_venues_that_the_source_does_not_list_have_no_newest_day() -> None:
    with pytest.raises(NotFoundError, match=r"lists none of DERIBIT; give other --venues"):
        expected.days_of(spec(start_date=None, end_date=None, venues=["DERIBIT"]), Source(binance="2024-08-10"))  # type: ignore[arg-type]


def test_each_listed_venue_is_a_task_of_validation() -> None:
    asked = spec(data_types=["quotes", "trades"], instruments=["NOTHING-*"])
    (day, _) = days(asked, Source(binance="2024-09-01", deribit="2024-09-01"))
    found = [(t.stage, t.day, t.key, t.data_types) for t in expected.venue_tasks(day, asked)]
    assert found == [(Stage.VALIDATE, DAYS[0], venue, asked.data_types) for venue in asked.venues if "FUT" not in venue]


def test_a_request_that_matches_nothing_is_refused_naming_it() -> None:
    asked = spec(instruments=["NOTHING-*"])
    with pytest.raises(NotFoundError, match=r"nothing matches: NOTHING-\* on .* from 2024-08-07 to 2024-08-08"):
        expected.refuse_nothing(asked, days(asked))


def test_a_selector_that_matches_nothing_is_refused_beside_one_that_does(caplog: pytest.LogCaptureFixture) -> None:
    asked = spec(instruments=["BINANCE:*", "BTC-USDTT", "*:*:NO-*"])
    with pytest.raises(NotFoundError, match=r"nothing matches \*:\*:NO-\*, BTC-USDTT from 2024-08-07 to 2024-08-08"):
        expected.refuse_nothing(asked, days(asked))
    with caplog.at_level(logging.WARNING):
        expected.refuse_nothing(asked, days(asked), may_lose=True)
        expected.refuse_nothing(asked.model_copy(update={"parent": "pipeline-1.download"}), days(asked))
    assert [r.getMessage() for r in caplog.records if "nothing matches" in r.getMessage()] == [
        "nothing matches *:*:NO-*, BTC-USDTT on 2024-08-08"
    ] * 2


def test_venues_without_a_match_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    asked = spec(instruments=["BINANCE:*"])
    with caplog.at_level(logging.WARNING):
        expected.refuse_nothing(asked, days(asked))
    assert [record.getMessage().partition(": no instrument")[0] for record in caplog.records] == [
        f"nothing is expected of {', '.join(venue for venue in asked.venues if venue != 'BINANCE')}"
    ]
