"""What the store holds of a task, told by listings: never a request per task."""

from datetime import date, timedelta

import pytest

from runner import layout
from runner.stages import content, outputs
from runner.store.memory import MemoryStore
from runner.task import Outcome, Stage, Task

DAY = date(2024, 8, 8)
META = {
    "outcome": "done",
    "rows": "7",
    "digest": "d",
    "source_md5": "m",
    "source_bytes": "9",
    "min_ts": "1",
    "max_ts": "2",
}


class Counting(MemoryStore):
    lists = 0

    def list(self, prefix):
        self.lists += 1
        return super().list(prefix)

    def head(self, key):
        raise AssertionError(f"a request for {key} alone")

    get = head


def task(n: int) -> Task:
    return Task(Stage.DOWNLOAD, DAY, f"BINANCE:SPOT_PAIR:C{n}-USDT", ("trades", "quotes"))


@pytest.fixture
def store() -> Counting:
    """Task 0 has everything, task 1 lacks a candle, task 2 has only quotes, task 3 has nothing."""
    store = Counting("memory://outputs")
    for n, keys in enumerate(
        (
            [*layout.outputs(DAY, "trades", task(0).key), *layout.outputs(DAY, "quotes", task(0).key)],
            [*layout.outputs(DAY, "trades", task(1).key)[1:], *layout.outputs(DAY, "quotes", task(1).key)],
            layout.outputs(DAY, "quotes", task(2).key),
        )
    ):
        for key in keys:
            store.put(key, b"%d" % n, metadata=META)
    return store


def test_what_is_missing_is_told_by_one_listing_of_each_kind(store) -> None:
    found = outputs.missing(store, [task(n) for n in range(4)])
    assert [(t.key, t.data_types) for t in found] == [
        (task(1).key, ("trades",)),
        (task(2).key, ("trades",)),
        (task(3).key, ("trades", "quotes")),
    ]
    assert store.lists == 3  # all candles, ticks of trades, ticks of quotes


def test_what_is_there_is_an_entry_with_the_facts_of_its_ticks(store) -> None:
    found = list(outputs.kept(store, [task(0), task(3)]))
    assert [(e.task_id, e.data_type, e.outcome) for e in found] == [
        (task(0).id, "trades", Outcome.DONE),
        (task(0).id, "quotes", Outcome.DONE),
    ]
    facts = found[0].facts
    assert (facts["rows"], facts["source_bytes"], facts["digest"], facts["kept"]) == (7, 9, "d", True)


@pytest.mark.parametrize("meta", [{}, {"outcome": "fine", "rows": "many"}, {"outcome": "failed"}, {"rows": "-1"}])
def test_an_object_of_somebody_else_proves_that_it_is_there_and_no_more(meta) -> None:
    store = MemoryStore("memory://foreign")
    info = store.put(layout.ticks(DAY, "quotes", task(0).key), b"x", metadata=meta)
    entry = outputs.entry(task(0), "quotes", (info,))
    assert (entry.outcome, "rows" in entry.facts, entry.facts["bytes"]) == (Outcome.DONE, False, 1)
    assert "no metadata of ours" in content.fault(store, info, deep=False)


@pytest.mark.parametrize("outcome", [o for o in Outcome if o.settled])
def test_every_settled_outcome_is_proven_by_its_metadata(outcome: Outcome) -> None:
    store = MemoryStore("memory://settled")
    info = store.put("k", b"", metadata=META | {"outcome": str(outcome)})
    assert content.fault(store, info, deep=False) == ""
    assert outputs.entry(task(0), "quotes", (info,)).outcome is outcome


RANGE = [date(2024, 7, 30) + timedelta(days=n) for n in range(80)]
KEY = "BINANCE:SPOT_PAIR:BTC-USDT"


def test_days_side_by_side_share_listings_and_each_gets_what_is_its_own() -> None:
    store = Counting("memory://many-days")
    kept = [day for n, day in enumerate(RANGE) if n % 3]
    for day in [date(2024, 7, 29), *kept, RANGE[-1] + timedelta(days=1)]:
        store.put(layout.ticks(day, "quotes", KEY), b"")
        store.put(layout.ticks(day, "trades", KEY), b"")
    # Somebody's copy of a folder sorts between the days.
    store.put(layout.ticks(RANGE[5], "quotes", KEY).replace(f"{RANGE[5]}", f"{RANGE[5]}.bak"), b"")
    asked = ("quotes", "trades", "liquidations", "book_snapshot_5")
    found = {day: list(infos) for day, infos in outputs.by_day(store, RANGE, asked)}
    assert list(found) == RANGE
    assert found == {
        day: [layout.ticks(day, t, KEY) for t in ("quotes", "trades")] if day in kept else [] for day in RANGE
    }
    # July 30 and 31, all of August and September, October 1 to 17 as 01 … 09, 1…; each for three kinds of outputs.
    assert store.lists < 3 * 20


def test_the_prefixes_of_days_are_those_days_and_no_other() -> None:
    every = [date(2023, 12, 1) + timedelta(days=n) for n in range(800)]
    for days in (every[3:5], every[::2], every[10:70], every[25:420], every[40:], [every[90]]):
        prefixes = layout.day_prefixes("", days)
        assert [d for d in every if any(f"day-{d}/".startswith(p) for p in prefixes)] == days
        assert not [p for p in prefixes if any(q != p and p.startswith(q) for q in prefixes)]
    assert layout.day_prefixes("", every[25:420])[4:7] == ("day-2023-12-3", "day-2024-", "day-2025-01-0")
