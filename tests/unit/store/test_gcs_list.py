"""Pages of one list asked for at the same time: counted by the server, compared with a sorted list of names."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

from runner.errors import NotAllowedError
from runner.sandbox.clock import Clock
from runner.sandbox.gcs import Options, Server, serve
from runner.sandbox.gcs_objects import Objects
from runner.store.gcs import GcsStore
from runner.store.gcs_client import Patience
from runner.store.gcs_list import AHEAD

BRIEF = Patience(connect_s=2, read_s=20, retry_s=20, backoff_s=0.01, backoff_max_s=0.05)
LIST = "/storage/v1/b/ours/o"


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Serve a bucket of so many names a page that holds these."""
    running: list[Server] = []

    def begin(page_size: int, names: Iterable[str]) -> Server:
        objects = Objects(Clock(), tmp_path, ("ours",))
        for name in names:
            objects.put("ours", name, b"", fields={}, query={})
        server = serve(Options(buckets=("ours",), data=tmp_path, page_size=page_size))
        running.append(server)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        return server

    yield begin
    for server in running:
        server.close()


@pytest.fixture
def store() -> GcsStore:
    return GcsStore("ours", patience=BRIEF)


def keys(store: GcsStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def lists(server: Server) -> dict[str, int]:
    return server.stats()["paths"][LIST]


def backfill(days: int, instruments: int) -> list[str]:
    types = ("book_snapshot_5", "trades")
    folders = (f"raw_tick_data/by_date/day-{1000 + day}/data_type-{t}" for day in range(days) for t in types)
    return [f"{folder}/V:SPOT_PAIR:C{1000 + i}.parquet" for folder in folders for i in range(instruments)]


@pytest.mark.parametrize("instruments", [4, 45], ids=["days_of_a_page", "days_of_many_pages"])
def test_pages_are_asked_for_together_and_come_in_order(
    start: Callable[..., Server], store: GcsStore, instruments: int
) -> None:
    names = backfill(30, instruments)
    server = start(10, names)
    listing = store.list("raw_tick_data/")
    first = next(listing).key
    server.add_faults({"path": LIST, "fault": "hold"})
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(lambda: [info.key for info in listing])
        poll(lambda: lists(server)["in_flight"] == AHEAD)
        server.clear_faults()
        assert [first, *rest.result(60)] == names
    assert lists(server)["concurrency_max"] == AHEAD


def poll(fact: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not fact():
        assert time.monotonic() < ends
        time.sleep(0.01)


PARTS = ("a", "b", "a-", "a.b", "ab", "A", "é", "\U0001f600", "Z", "0")


@pytest.mark.parametrize("page_size", [1, 2, 7])
@pytest.mark.parametrize("seed", range(4))
def test_any_tree_is_listed_as_its_sorted_names(
    start: Callable[..., Server], store: GcsStore, page_size: int, seed: int
) -> None:
    dice = random.Random(seed)
    names = {"/".join(dice.choices(PARTS, k=dice.choice((1, 2, 2, 3, 5)))) for _ in range(60)}
    ordered = sorted(names, key=str.encode)
    start(page_size, names)
    for prefix in ("", "a", "a/", "b/a", "é/", "A", "0/0/0", "zz"):
        assert keys(store, prefix) == [name for name in ordered if name.startswith(prefix)]


def test_list_of_one_page_is_one_request(start: Callable[..., Server], store: GcsStore) -> None:
    server = start(100, backfill(5, 5))
    assert len(keys(store, "raw_tick_data/")) == 50
    assert lists(server)["requests"] == 1


def test_folder_without_folders_costs_no_more_than_its_pages(start: Callable[..., Server], store: GcsStore) -> None:
    server = start(10, (f"d/{i:03}" for i in range(95)))
    assert keys(store, "d/") == [f"d/{i:03}" for i in range(95)]
    assert lists(server)["requests"] == 10


def test_many_small_folders_are_taken_many_at_a_time(start: Callable[..., Server], store: GcsStore) -> None:
    """As the shards of a run: 400 folders of one ledger each are 8 pages, and not 400."""
    names = [f"_runs/r/shards/{i:04}/attempt.json" for i in range(400)]
    server = start(50, names)
    assert keys(store, "_runs/r/shards/") == names
    assert lists(server)["requests"] <= 3 * 8


def test_backfill_costs_little_more_than_its_pages(start: Callable[..., Server], store: GcsStore) -> None:
    names = backfill(40, 10)
    server = start(20, names)
    assert keys(store) == names
    assert lists(server)["requests"] <= 2 * len(names) / 20


def test_reader_that_stops_has_asked_for_few_pages(start: Callable[..., Server], store: GcsStore) -> None:
    names = backfill(100, 5)
    server = start(10, names)
    listing = store.list("")
    assert [info.key for info in islice(listing, 25)] == names[:25]
    listing.close()
    poll(lambda: lists(server)["in_flight"] == 0)
    assert lists(server)["requests"] < 60  # of more than 100


def test_refusal_in_the_middle_of_a_list_ends_it(start: Callable[..., Server], store: GcsStore) -> None:
    server = start(10, backfill(30, 5))
    server.add_faults({"path": LIST, "fault": "deny_after", "after": 9})
    with pytest.raises(NotAllowedError, match=r"cannot list 'raw_tick_data/' in gs://ours.*storage\.objects\.list"):
        keys(store, "raw_tick_data/")


def test_pages_that_fail_are_asked_for_again(start: Callable[..., Server], store: GcsStore) -> None:
    names = backfill(30, 5)
    server = start(10, names)
    server.add_faults(
        {"path": LIST, "fault": "status", "code": 503, "probability": 0.3, "seed": 1},
        {"path": LIST, "fault": "reset", "probability": 0.2, "seed": 2},
        {"path": LIST, "fault": "cut", "probability": 0.2, "seed": 3},
    )
    assert keys(store) == names
