"""What all runs together know: the newest of each, and no more read than it takes."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import ClassVar

import pytest

from runner import history, layout, ledger, run_record
from runner.errors import NotFoundError, WorkerExit
from runner.ledger import Attempt
from runner.run_record import RunRecord
from runner.stages.reasons import Reasons
from runner.store import ABSENT
from runner.store.memory import MemoryStore
from runner.task import Entry, Outcome

DAY = date(2024, 8, 8)
TASK = "download/2024-08-08/BINANCE:SPOT_PAIR:BTC-USDT"


@pytest.fixture
def store(request):
    return MemoryStore(request.node.name)


def write_entries(store, run: str, *found: Entry) -> None:
    ledger.write_ledger(store, run, Attempt(0, f"of-{run}", WorkerExit.SETTLED, found))


def test_known_sizes_are_the_newest_of_each_key_and_type(store) -> None:
    other = "download/2024-08-07/OKX:SPOT_PAIR:A/B-C"
    write_entries(store, "download-1", Entry(TASK, "trades", Outcome.DONE, {"source_bytes": 10}))
    write_entries(
        store,
        "download-2",
        Entry(TASK, "trades", Outcome.DONE, {"source_bytes": 20}),
        Entry(TASK, "quotes", Outcome.EMPTY, {"source_bytes": 30}),
        Entry(other, "quotes", Outcome.DONE, {"source_bytes": 40}),
        Entry(other, "trades", Outcome.DONE, {}),
    )
    write_entries(store, "validate-1", Entry("validate/2024-08-08/BINANCE", "trades", Outcome.DONE, {"rows": 1}))
    ledger.write_progress(store, "download-3", Attempt(0, "a"), ABSENT)
    btc, abc = "BINANCE:SPOT_PAIR:BTC-USDT", "OKX:SPOT_PAIR:A/B-C"
    every = [(key, data_type) for key in (btc, abc) for data_type in ("trades", "quotes")]
    assert history.known_sizes(store, "download", every) == {(btc, "trades"): 20, (abc, "quotes"): 40}
    assert history.known_sizes(store, "download", [(abc, "quotes")]) == {(abc, "quotes"): 40}


def test_no_more_ledgers_are_read_than_it_takes_to_know_the_sizes(request) -> None:
    class Reading(MemoryStore):
        read = 0

        def get(self, key, **part):
            self.read += 1
            return super().get(key, **part)

    store = Reading(request.node.name)
    for n in range(300):
        write_entries(
            store,
            f"download-{n}",
            Entry(f"download/2024-08-08/V:T:K{n % 10}", "trades", Outcome.DONE, {"source_bytes": n}),
        )
    wanted = [(f"V:T:K{n}", "trades") for n in range(10)]
    assert history.known_sizes(store, "download", wanted) == {(f"V:T:K{n}", "trades"): 290 + n for n in range(10)}
    assert store.read == 10


def test_the_newest_entry_names_its_run(store) -> None:
    write_entries(store, "download-9", Entry(TASK, "trades", Outcome.FAILED, {"error": "x"}))
    write_entries(store, "download-1", Entry(TASK, "trades", Outcome.PENDING))
    run, entry = history.newest_entries(store, "download", (DAY, DAY))[TASK, "trades"]
    assert (run, entry.outcome) == ("download-1", Outcome.PENDING)


def record_run(store, run: str, first: str, last: str) -> None:
    asked = {"stage": "download", "days": [first, last]}
    run_record.write_run(store, RunRecord(run, asked, {}, ledger.pin(b""), ()))


@pytest.mark.parametrize("listed", [True, False], ids=["days in the metadata", "a record of before that"])
def test_only_ledgers_of_runs_that_were_asked_for_the_days_are_read(request, listed) -> None:
    class Reading(MemoryStore):
        read: ClassVar[list[str]] = []

        def get(self, key, **part):
            self.read.append(key)
            return super().get(key, **part)

    store = Reading(request.node.name)
    spans = {
        "download-before": ("2024-08-01", "2024-08-07"),
        "download-within": ("2024-08-08", "2024-08-08"),
        "download-across": ("2024-07-01", "2024-09-01"),
        "download-after": ("2024-08-09", "2024-08-09"),
    }
    for run, span in spans.items():
        record_run(store, run, *span)
        if not listed:
            info = store.head(layout.run_record(run))
            store.put(info.key, store.get(info.key), if_generation=info.generation)
        others = [Entry(f"download/{day}/V:T:K", "trades", Outcome.FAILED, {"error": run}) for day in span]
        write_entries(store, run, Entry(TASK, "quotes", Outcome.DONE, {"written": True, "rows": 1}), *others)
    store.read.clear()
    found = history.newest_entries(store, "download", (DAY, DAY))
    assert {key.split("/")[1] for key in store.read if "/shards/" in key} == {"download-within", "download-across"}
    assert len(store.read) == (2 if listed else 6)
    assert set(found) == {(TASK, "quotes"), ("download/2024-08-08/V:T:K", "trades")}
    assert (found[TASK, "quotes"][0], found[TASK, "quotes"][1].facts) == ("download-across", {})
    assert history.duplicated(store, "download", (DAY, DAY)) == 0
    again = Entry(TASK, "quotes", Outcome.DONE, {"written": True})
    ledger.write_ledger(store, "download-within", Attempt(1, "twin", WorkerExit.SETTLED, (again,)))
    assert history.duplicated(store, "download", (DAY, DAY)) == 1


def test_every_ledger_is_known_however_many_there_are(store) -> None:
    for n in range(2_100):
        write_entries(store, f"download-{n}", Entry(f"download/2024-08-08/V:T:K{n}", "trades", Outcome.FAILED, {}))
    assert len(history.newest_entries(store, "download", (DAY, DAY))) == 2_100


def test_ledgers_that_are_gone_or_unreadable_are_passed_over(request, caplog) -> None:
    class Cleaned(MemoryStore):
        def get(self, key, **part):
            if "download-gone" in key:
                raise NotFoundError(f"{key} is not there")
            return super().get(key, **part)

    store = Cleaned(request.node.name)
    for run in ("download-gone", "download-kept"):
        write_entries(store, run, Entry(TASK, run, Outcome.DONE, {"source_bytes": 7}))
    for name in ("_runs/download-odd/shards/0/a.json", "_runs/download-odd/shards/notes.txt"):
        store.put(name, b"not a ledger")
    assert set(history.newest_entries(store, "download", (DAY, DAY))) == {(TASK, "download-kept")}
    assert "notes.txt is not a ledger" in caplog.text
    wanted = [("BINANCE:SPOT_PAIR:BTC-USDT", run) for run in ("download-gone", "download-kept")]
    assert history.known_sizes(store, "download", wanted) == {wanted[1]: 7}


def test_threads_that_ask_at_once_read_the_ledgers_once(request) -> None:
    class Slow(MemoryStore):
        read = 0

        def get(self, key, **part):
            self.read += 1
            return super().get(key, **part)

    store = Slow(request.node.name)
    for n in range(20):
        write_entries(store, f"download-{n}", Entry(TASK, f"t{n}", Outcome.FAILED, {"error": "x"}))
    why, together = Reasons(store), threading.Barrier(4)

    def ask(_: int) -> object:
        together.wait()
        return why.of(DAY, "BINANCE:SPOT_PAIR:BTC-USDT", "t3")

    with ThreadPoolExecutor(4) as pool:
        assert {str(found) for found in pool.map(ask, range(4))} == {str(why.of(DAY, TASK.split("/", 2)[2], "t3"))}
    assert store.read == 20


def test_reasons_of_any_days_in_any_order_cost_one_reading_of_the_ledgers(request) -> None:
    class Counting(MemoryStore):
        read = 0

        def get(self, key, **part):
            self.read += 1
            return super().get(key, **part)

    store, days = Counting(request.node.name), [date(2024, 1, 1) + timedelta(days=n) for n in range(300)]
    entries = [Entry(f"download/{day}/V:T:K", "trades", Outcome.FAILED, {"error": str(day)}) for day in days]
    for n in range(20):
        write_entries(store, f"download-{n}", *entries[n::20])
    why = Reasons(store, (days[0], days[-1]))
    for day in random.Random(7).sample(days, 300):
        assert why.of(day, "V:T:K", "trades")[1].facts["error"] == str(day)
    assert store.read == 20
