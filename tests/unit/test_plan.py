"""Plans: packing against brute force, the object against its bytes, ids against literals."""

import io
import itertools
import statistics
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import layout, ledger, plan
from runner.errors import ConfigError
from runner.ledger import Pin
from runner.run_record import RunRecord
from runner.spec import RunSpec
from runner.store import open_object
from runner.store.memory import MemoryStore
from runner.task import Source, Stage, Task

DAY = date(2024, 8, 8)
RUN = "download-3f9a1c20"
RECORD = RunRecord(RUN, {"stage": "download"}, {"shards": 8}, Pin("0" * 64, 9, 1), ())

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
days = st.dates(date(1990, 1, 1), date(2100, 1, 1))
sources = st.builds(
    Source,
    exchange=names,
    symbol=names,
    inverse=st.booleans(),
    amount_unit=st.sampled_from(["base", "quote", "contract"]),
    contract_size=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    listed_from=st.none() | days,
    listed_to=st.none() | days,
)
tasks = st.builds(
    Task,
    stage=st.sampled_from(Stage),
    day=days,
    key=names,
    data_types=st.lists(names, max_size=3).map(tuple),
    source=st.none() | sources,
    predicted_bytes=st.integers(0, 2**62),
    parts=st.lists(names, max_size=3).map(tuple),
)
sizes = st.lists(st.integers(0, 1000), max_size=40)


def sized(*amounts: int) -> list[Task]:
    return [Task(Stage.DOWNLOAD, DAY, f"K{n:03}", ("trades",), None, amount) for n, amount in enumerate(amounts)]


def best_makespan(amounts: list[int], shards: int) -> int:
    """Return the smallest possible largest load, by trying every assignment."""
    best = sum(amounts)
    for where in itertools.product(range(shards), repeat=len(amounts)):
        loads = [0] * shards
        for amount, shard in zip(amounts, where, strict=True):
            loads[shard] += amount
        best = min(best, max(loads))
    return best


@given(st.lists(tasks, unique_by=lambda t: (t.day, t.key), max_size=30), st.integers(1, 40))
def test_packing_is_a_partition_without_an_empty_shard(work: list[Task], shards: int) -> None:
    packed = plan.pack(work, shards)
    assert sorted(packed.tasks, key=repr) == sorted(work, key=repr)
    assert len(packed.shards) == min(shards, len(work))
    assert all(packed.shards)


@given(sizes, st.integers(1, 9), st.randoms(use_true_random=False))
def test_packing_does_not_depend_on_the_order_of_its_input(amounts: list[int], shards: int, random) -> None:
    work = sized(*amounts)
    shuffled = list(work)
    random.shuffle(shuffled)
    assert plan.pack(shuffled, shards) == plan.pack(work, shards)
    assert plan.encode(plan.pack(shuffled, shards)) == plan.encode(plan.pack(work, shards))


@given(sizes, st.integers(1, 9))
def test_every_shard_does_its_largest_task_first(amounts: list[int], shards: int) -> None:
    for shard in plan.pack(sized(*amounts), shards).shards:
        assert [t.predicted_bytes for t in shard] == sorted((t.predicted_bytes for t in shard), reverse=True)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7), st.integers(1, 3))
def test_packing_is_within_a_third_of_the_optimum(amounts: list[int], shards: int) -> None:
    """Graham 1969: longest processing time first is at most 4/3 - 1/(3m) of the best."""
    makespan = max(plan.pack(sized(*amounts), shards).loads)
    workers = min(shards, len(amounts))
    assert makespan <= best_makespan(amounts, shards) * (4 / 3 - 1 / (3 * workers)) + 1e-9


def test_packing_beats_round_robin_where_sizes_are_those_of_instruments() -> None:
    """A few instruments hold most bytes: the split by index puts several of them on one worker."""
    work = sized(*(int(1e9 / (n % 40 + 1) ** 1.5) for n in range(400)))
    packed, plain = plan.pack(work, 40), plan.round_robin(work, 40)
    largest = max(task.predicted_bytes for task in work)
    assert plan.makespan_bytes(packed, 40) == largest  # nothing can be better than that
    assert plan.makespan_bytes(plain, 40) == 10 * largest
    assert plan.imbalance(packed) == pytest.approx(plan.imbalance(plain) / 10)


@given(sizes, st.integers(1, 9))
def test_round_robin_gives_every_nth_task_of_the_sorted_ones(amounts: list[int], shards: int) -> None:
    work = sized(*amounts)
    plain = plan.round_robin(work[::-1], shards)
    count = min(shards, len(work))
    assert plain.shards == tuple(tuple(t for n, t in enumerate(work) if n % count == s) for s in range(count))


def test_tasks_of_unknown_size_are_spread_evenly() -> None:
    packed = plan.pack(sized(*[0] * 10), 4)
    assert sorted(map(len, packed.shards)) == [2, 2, 3, 3]


@pytest.mark.parametrize(
    ("loads", "parallelism", "expected"),
    [((9, 1, 1, 1), 2, 9), ((4, 4, 4), 2, 8), ((5,), 8, 5), ((3, 3, 3, 3), 1, 12)],
)
def test_makespan_gives_the_next_shard_to_the_worker_that_is_free_first(loads, parallelism, expected) -> None:
    work = plan.Plan(tuple((task,) for task in sized(*loads)))
    assert plan.makespan_bytes(work, parallelism) == expected


def test_a_plan_without_bytes_is_even() -> None:
    assert plan.imbalance(plan.pack(sized(0, 0), 2)) == 1.0


@given(st.lists(st.lists(tasks, min_size=1, max_size=5).map(tuple), max_size=6))
def test_a_plan_survives_its_bytes_with_every_field(shards: list[tuple[Task, ...]]) -> None:
    written = plan.Plan(tuple(shards))
    body = plan.encode(written)
    assert plan.decode_bytes(body) == written
    for number, shard in enumerate(shards):
        assert plan.decode_shard(io.BytesIO(body), number) == shard
    assert plan.decode_shard(io.BytesIO(body), len(shards)) == ()


def test_a_source_of_unknown_terms_comes_back_unknown() -> None:
    source = Source("deribit", "BTC-PERPETUAL", inverse=True, amount_unit="quote")
    task = Task(Stage.DOWNLOAD, DAY, "DERIBIT:PERPETUAL:BTC-USD", ("trades",), source, 1)
    bare = Task(Stage.VALIDATE, DAY, "DERIBIT", ("trades",))
    assert plan.decode_bytes(plan.encode(plan.Plan(((task, bare),)))).tasks == (task, bare)


def test_plans_of_other_readers_are_plain_parquet_with_a_row_group_per_shard() -> None:
    polars = pytest.importorskip("polars")
    packed = plan.pack(sized(5, 4, 3, 3), 2)
    frame = polars.read_parquet(io.BytesIO(plan.encode(packed)))
    assert frame["shard"].to_list() == [0, 0, 1, 1]
    assert frame["key"].to_list() == ["K000", "K003", "K001", "K002"]
    assert frame["predicted_bytes"].to_list() == [5, 3, 4, 3]


class Recording(io.BytesIO):
    """A file that remembers which bytes were read."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        self.reads: list[tuple[int, int]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        at = self.tell()
        found = super().read(size)
        self.reads.append((at, at + len(found)))
        return found


def test_a_worker_reads_the_row_group_of_its_shard_and_no_other() -> None:
    import pyarrow.parquet as pq

    work = [
        Task(Stage.DOWNLOAD, DAY + timedelta(days=n % 7), f"V:SPOT_PAIR:{sha256(b'%d' % n).hexdigest()}", ("trades",))
        for n in range(16_000)
    ]
    body = plan.encode(plan.pack(work, 8))
    footer = pq.read_metadata(io.BytesIO(body))
    spans = []
    for group in range(footer.num_row_groups):
        columns = [footer.row_group(group).column(n) for n in range(footer.num_columns)]
        starts = [min(c.dictionary_page_offset or c.data_page_offset, c.data_page_offset) for c in columns]
        ends = [start + c.total_compressed_size for start, c in zip(starts, columns, strict=True)]
        spans.append((min(starts), max(ends)))
    file = Recording(body)
    assert len(plan.decode_shard(file, 3)) == 2_000
    # The footer is read with some of what stands before it, which is the last group: the others count.
    for number, (start, end) in enumerate(spans[:-1]):
        touched = sum(max(0, min(end, b) - max(start, a)) for a, b in file.reads)
        assert (touched > 0) == (number == 3), (number, touched)
    assert sum(b - a for a, b in file.reads) < len(body) / 2


def test_a_plan_in_a_store_is_read_by_ranges() -> None:
    store = MemoryStore("memory://plan-by-ranges")
    packed = plan.pack(sized(*range(1, 40)), 4)
    info = store.put("plan.parquet", plan.encode(packed))
    with open_object(store, info) as file:
        assert plan.decode_shard(file, 2) == packed.shards[2]


def test_run_ids_are_literals_that_outlive_versions_of_this_program() -> None:
    """SHA-256 of the canonical JSON, computed by hand with `printf … | sha256sum`."""
    assert plan.run_id(Stage.DOWNLOAD, {"days": ["2024-08-08", "2024-08-09"], "venues": ["BINANCE"]}) == (
        "download-1a46f7ad"
    )


@given(st.dictionaries(names, st.none() | st.integers() | st.lists(names), min_size=2))
def test_run_ids_do_not_depend_on_the_order_of_keys(request: dict) -> None:
    assert plan.run_id(Stage.DOWNLOAD, request) == plan.run_id(Stage.DOWNLOAD, dict(reversed(request.items())))


def test_resources_are_no_part_of_a_request() -> None:
    from runner.runs.request import request_of

    asked = {"start_date": "2024-08-08", "venues": "binance", "store": "file:///nowhere"}
    base = request_of(RunSpec(**asked), "file:///nowhere", (DAY, DAY))
    for resources in (
        {"shards": 99},
        {"parallelism": 7},
        {"log_level": "DEBUG"},
        {"retry": {"limit": 0}},
        {"tardis": {"connections": 1}},
    ):
        assert request_of(RunSpec(**asked, **resources), "file:///nowhere", (DAY, DAY)) == base


@given(st.from_regex(r"[a-z]{1,8}-[0-9a-f]{8}", fullmatch=True), st.integers(0, 10**6))
def test_pass_numbers_come_back_from_their_ids(base: str, number: int) -> None:
    assert plan.pass_number(base, plan.pass_id(base, number)) == number


@pytest.mark.parametrize("run", ["download-3f-r", "download-3f-rx", "download-3f-r-1", "download-3", "validate-3f", ""])
def test_other_ids_are_no_pass_over_a_request(run: str) -> None:
    assert plan.pass_number("download-3f", run) is None


def venue_of(key: str) -> str:
    return key.split(":", 1)[0]


def test_prediction_takes_the_own_size_then_the_venues_median_then_a_first_guess() -> None:
    sizes = {("A:1", "trades"): 10, ("A:2", "trades"): 20, ("A:3", "trades"): 60, ("B:1", "quotes"): 5}
    work = [
        Task(Stage.DOWNLOAD, DAY, "A:1", ("trades",)),
        Task(Stage.DOWNLOAD, DAY, "A:9", ("trades", "quotes")),
        Task(Stage.DOWNLOAD, DAY, "B:9", ("trades", "quotes")),
        Task(Stage.DOWNLOAD, DAY, "B:9", ("never heard of",)),
    ]
    guess = plan.FIRST_GUESS_BYTES
    assert [t.predicted_bytes for t in plan.predict(work, sizes, venue_of)] == [
        10,
        statistics.median([10, 20, 60]) + guess["quotes"],
        guess["trades"] + 5,
        0,
    ]


def test_every_data_type_has_a_first_guess() -> None:
    from runner.market.names import DATA_TYPE_NAMES

    assert set(plan.FIRST_GUESS_BYTES) == set(DATA_TYPE_NAMES)


def test_a_plan_is_read_without_starting_a_thread() -> None:
    code = """
import io, os
from datetime import date
from runner import plan
from runner.task import Stage, Task

tasks = [Task(Stage.DOWNLOAD, date(2024, 8, 8), f"A:SPOT_PAIR:X{n}-Y", ("trades",), None, 1) for n in range(50)]
body = plan.encode(plan.Plan((tuple(tasks), tuple(tasks))))
before = os.listdir("/proc/self/task")
assert len(plan.decode_bytes(body).tasks) == 100
assert len(plan.decode_shard(io.BytesIO(body), 1)) == 50
print(len(set(os.listdir("/proc/self/task")) - set(before)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "0\n"


@pytest.fixture
def store(request) -> MemoryStore:
    return MemoryStore(f"memory://{request.node.name}")


def test_a_plan_that_is_not_the_recorded_one_is_refused_naming_both(store) -> None:
    store.put(layout.plan(RUN), b"plan")
    pinned = replace(RECORD, plan=ledger.pin(b"plan"))
    assert plan.read_plan(store, pinned) == b"plan"
    other = replace(RECORD, plan=Pin("ab" * 32, 4, 1))
    with pytest.raises(ConfigError) as refusal:
        plan.read_plan(store, other)
    for word in (sha256(b"plan").hexdigest()[:12], "ab" * 6, layout.plan(RUN), f"runner clean {RUN}"):
        assert word in str(refusal.value)


def test_a_plan_opened_for_its_parts_is_refused_by_size_or_checksum_naming_both(store) -> None:
    store.put(layout.plan(RUN), b"123456789")
    # The check value of CRC-32C, https://reveng.sourceforge.io/crc-catalogue/17plus.htm#crc.cat.crc-32-iscsi.
    pinned = Pin(sha256(b"123456789").hexdigest(), 9, 0xE3069283)
    assert ledger.pin(b"123456789") == pinned
    with plan.open_plan(store, replace(RECORD, plan=pinned)) as file:
        assert file.read() == b"123456789"
    for other, named in ((replace(pinned, size=8), "8 bytes"), (replace(pinned, crc32c=0xAB), "000000ab")):
        with pytest.raises(ConfigError) as refusal:
            plan.open_plan(store, replace(RECORD, plan=other))
        for word in ("9 bytes", "e3069283", named, layout.plan(RUN), f"runner clean {RUN}"):
            assert word in str(refusal.value)


@pytest.mark.parametrize("read", [plan.read_plan, plan.open_plan])
def test_a_run_without_its_plan_is_refused(store, read) -> None:
    with pytest.raises(ConfigError, match=r"no plan at _runs/.*runner clean"):
        read(store, RECORD)
