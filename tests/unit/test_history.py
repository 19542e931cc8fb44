"""What all runs together know: the newest of each, and no more read than it takes."""

import pytest

from runner import history, ledger
from runner.errors import WorkerExit
from runner.ledger import Attempt
from runner.store import ABSENT
from runner.store.memory import MemoryStore
from runner.task import Entry, Outcome

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
    run, entry = history.newest_entries(store, "download")[TASK, "trades"]
    assert (run, entry.outcome) == ("download-1", Outcome.PENDING)
