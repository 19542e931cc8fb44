"""What a request plans: against a naive cross product; and by how many requests of the store, counted by its server."""

import io
from dataclasses import replace
from datetime import date, timedelta

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner import layout, ledger, plan, run_record
from runner.errors import WorkerExit
from runner.ledger import Attempt
from runner.report import plans
from runner.runs.request import draft
from runner.sandbox.gcs import Options, serve
from runner.spec import RunSpec
from runner.store import ABSENT
from runner.store.gcs import GcsStore
from runner.store.memory import MemoryStore
from runner.task import Entry, Outcome, Source, Stage, Task

FIRST = date(2024, 8, 1)
DAYS = 14
TYPES = ("trades", "quotes", "liquidations")


def day(n: int) -> date:
    return FIRST + timedelta(days=n)


class Catalogue:
    """A source that lists these (symbol, first day, day after the last, data types) of binance."""

    url = api_url = "memory"

    def __init__(self, listed) -> None:
        self.document = {
            "id": "binance",
            "datasets": {
                "exportedUntil": f"{day(99)}T00:00:00.000Z",
                "symbols": [
                    {
                        "id": f"{base}USDT",
                        "type": "spot",
                        "dataTypes": list(types),
                        "availableSince": f"{day(first)}T00:00:00.000Z",
                        "availableTo": f"{day(last)}T00:00:00.000Z",
                    }
                    for base, first, last, types in listed
                ],
            },
        }

    def exchanges(self):
        return [{"id": "binance"}]

    def exchange(self, _):
        return self.document


def key(base: str) -> str:
    return f"BINANCE:SPOT_PAIR:{base}-USDT"


def spec_of(store: str, days: int = 40, **values) -> RunSpec:
    asked = {"store": store, "venues": "binance", "data_types": list(TYPES), "shards": 4}
    return RunSpec(**asked, start_date=FIRST, end_date=day(days - 1), **values)


LISTED = st.lists(
    st.tuples(
        st.sampled_from(["AAA", "BBB", "CCC", "DDD", "EEE"]),
        st.integers(-3, DAYS + 5),
        st.integers(-3, DAYS + 5),
        st.lists(st.sampled_from([*TYPES, "book_ticker"]), unique=True).map(tuple),
    ),
    unique_by=lambda row: row[0],
    min_size=1,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(
    LISTED, st.sets(st.tuples(st.sampled_from(["AAA", "BBB", "CCC"]), st.integers(0, DAYS - 1), st.sampled_from(TYPES)))
)
def test_a_plan_is_every_listed_day_and_type_that_the_store_lacks_once(listed, held) -> None:
    wanted = {
        (base, n, data_type)
        for base, first, last, types in [*listed, ("ZZZ", 0, DAYS, ("trades",))]
        for n in range(DAYS)
        for data_type in TYPES
        if first <= n < last and data_type in types
    }
    store = MemoryStore(f"memory://{len(held)}")
    for base, n, data_type in held:
        for name in layout.outputs(day(n), data_type, key(base)):
            store.put(name, b"")
    source = Catalogue([*listed, ("ZZZ", 0, DAYS, ("trades",))])
    spec = spec_of(store.url, DAYS)
    for round_of in range(2):  # the second finds the instrument tables
        drafted = draft(spec, store, source)
        planned = [(t.key, t.day, d) for t in drafted.plan.tasks for d in t.data_types]
        assert sorted(planned) == sorted((key(base), day(n), d) for base, n, d in wanted - held), round_of
        assert {t.source.symbol for t in drafted.plan.tasks if t.key == key("ZZZ")} == {"ZZZUSDT"}
        assert sorted(drafted.round_robin.tasks, key=repr) == sorted(drafted.plan.tasks, key=repr)


def test_equal_stores_and_catalogues_give_equal_plans_whatever_the_order() -> None:
    listed = [(base, 0, 40, TYPES) for base in ("AAA", "BBB", "CCC")]
    one = draft(spec_of("memory://one"), MemoryStore("memory://one"), Catalogue(listed))
    two = draft(spec_of("memory://one"), MemoryStore("memory://two"), Catalogue(listed[::-1]))
    assert plan.encode(one.plan) == plan.encode(two.plan)


# Requests, counted by the server of the bucket.


@pytest.fixture
def bucket(monkeypatch):
    with serve(Options(buckets=("ours",))) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


class Asked:
    """Requests of the bucket by path since the last call, uploads apart."""

    def __init__(self, server) -> None:
        self.server = server
        self.before: dict[str, int] = {}

    def __call__(self) -> dict[str, int]:
        now = {p: seen["requests"] for p, seen in self.server.stats()["paths"].items() if not p.startswith("/upload/")}
        found = {path: count - self.before.get(path, 0) for path, count in now.items()}
        self.before = now
        return {path: count for path, count in found.items() if count}


def single(found: dict[str, int], root: str) -> int:
    """Return the requests for single objects below a root."""
    return sum(count for path, count in found.items() if f"/o/{root}" in path.replace("%2F", "/"))


def fill(store: GcsStore, bases: list[str], days: int) -> None:
    for base in bases:
        for n in range(days):
            for name in layout.outputs(day(n), "liquidations", key(base)):
                store.put(name, b"", metadata={"outcome": "done", "rows": "0"})


LIST = "/storage/v1/b/ours/o"


def test_planning_lists_and_never_asks_for_a_task(bucket) -> None:
    lists, asked = [], Asked(bucket)
    for count in (3, 12):
        store = GcsStore(f"ours/{count}")
        bases = [f"C{chr(65 + n)}X" for n in range(count)]
        source, spec = Catalogue([(base, 0, 40, TYPES) for base in bases]), spec_of(store.url)
        draft(spec, store, source)
        fill(store, bases, 5)
        asked()
        drafted = draft(spec, store, source)
        assert len(drafted.plan.tasks) == 40 * count
        assert sum(len(t.data_types) for t in drafted.plan.tasks) == (40 * 3 - 5) * count
        found = asked()
        lists.append(found[LIST])
        assert single(found, f"{count}/raw_tick_data") + single(found, f"{count}/processed_candles") == 0
    # All fits a page: four times the tasks are not one request more, and forty days share listings.
    assert lists[0] == lists[1] < 40


def test_a_worker_that_resumes_asks_for_no_task_that_is_done(bucket, world) -> None:
    world.store = GcsStore("ours/resumed")
    bases, types = [f"C{chr(65 + n)}X" for n in range(6)], ("liquidations",)
    tasks = [
        Task(Stage.DOWNLOAD, day(n), key(base), types, Source("binance", "X"), 1) for base in bases for n in range(9)
    ]
    fill(world.store, bases, 9)
    body = plan.encode(plan.Plan((tuple(tasks),)))
    world.store.put(layout.plan("download-1"), body)
    record = run_record.RunRecord("download-1", {}, {}, ledger.pin(body), plan.shard_sizes(body))
    ledger.write_progress(world.store, record.id, Attempt(0, "dead"), ABSENT)
    asked = Asked(bucket)
    asked()
    assert world.shard(record, spec_of(world.store.url, 9), 0).run() == 0
    found = asked()
    assert single(found, "resumed/raw_tick_data") == 0
    assert found[LIST] < 12  # two for its attempts, one for each day's ticks of this type
    assert sum(found.values()) < 30


def test_a_worker_fetches_the_footer_and_its_row_group_of_the_plan(bucket) -> None:
    store = GcsStore("ours/parts")
    days = [(date(2023, 1, 1) + timedelta(days=n), f"{n * n % 997:03}{n}") for n in range(40_000)]
    work = [Task(Stage.DOWNLOAD, when, f"V:SPOT_PAIR:{name}-X", ("trades",), Source("x", name)) for when, name in days]
    packed = plan.pack(work, 20)
    body = plan.encode(packed)
    store.put(layout.plan("r"), body)
    record = run_record.RunRecord("r", {}, {}, ledger.pin(body), plan.shard_sizes(body))
    footer = pq.read_metadata(io.BytesIO(body))
    group = footer.row_group(3)
    own = sum(group.column(n).total_compressed_size for n in range(group.num_columns))
    with plan.open_plan(store, record) as file:
        assert plan.decode_shard(file, 3) == packed.shards[3]
    fetched = sum(seen["bytes"] for path, seen in bucket.stats()["paths"].items() if "plan.parquet" in path)
    assert fetched < len(body) / 3
    # What is read ahead is 64 KiB twice: before the footer and around the group.
    assert fetched < own + footer.serialized_size + 3 * 65_536


def test_a_second_run_is_packed_by_what_ledgers_know_and_shows_what_a_plain_split_would_take() -> None:
    """A few instruments hold most bytes, every fourth by name: the plain split puts them on one worker."""
    store = MemoryStore("memory://second-run")
    bases = [f"C{chr(65 + n)}X" for n in range(16)]
    sizes = {key(base): 8_000_000_000 if n % 4 == 0 else 1_000_000 for n, base in enumerate(bases)}
    newest = [Entry(f"download/2024-07-31/{k}", "trades", Outcome.DONE, {"source_bytes": b}) for k, b in sizes.items()]
    older = [replace(entry, facts={"source_bytes": 5}) for entry in newest]
    for run, entries in (("download-1", older), ("download-2", newest)):
        ledger.write_ledger(store, run, Attempt(0, run, WorkerExit.SETTLED, tuple(entries)))
    spec = spec_of(store.url, 1, parallelism=4)
    drafted = draft(spec, store, Catalogue([(base, 0, 40, ("trades",)) for base in bases]))
    assert {task.key: task.predicted_bytes for task in drafted.plan.tasks} == sizes
    assert plan.makespan_bytes(drafted.plan, 4) == 8_003_000_000
    assert plan.makespan_bytes(drafted.round_robin, 4) == 32_000_000_000
    assert "makespan 8.0 GB (round-robin 32 GB)" in plans.line(drafted, 4)
