"""Tasks to a packed plan, and the plan as one Parquet object with a row group per shard.

Packing is longest processing time first on predicted bytes. A plan is a value: equal tasks and shards give equal bytes.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import repeat
from operator import attrgetter
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from runner import layout
from runner.errors import ConfigError, NotFoundError
from runner.ledger import sha256
from runner.run_record import RunRecord, Size
from runner.store import Store, open_object
from runner.task import Source, Stage, Task

PLAN_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("day", pa.date32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("data_types", pa.list_(pa.string()), nullable=False),
        pa.field("predicted_bytes", pa.int64(), nullable=False),
        pa.field("exchange", pa.string()),
        pa.field("symbol", pa.string()),
        pa.field("inverse", pa.bool_()),
        pa.field("amount_unit", pa.string()),
        pa.field("contract_size", pa.float64()),
        pa.field("listed_from", pa.date32()),
        pa.field("listed_to", pa.date32()),
        pa.field("parts", pa.list_(pa.string()), nullable=False),
    ]
)
_TASK_FIELDS = ("stage", "day", "key", "data_types", "predicted_bytes", "parts")
_SOURCE_FIELDS = ("exchange", "symbol", "inverse", "amount_unit", "contract_size", "listed_from", "listed_to")
_SOURCE_VALUES = attrgetter(*_SOURCE_FIELDS)
_NO_VALUES = (None,) * len(_SOURCE_FIELDS)

# Compressed bytes of one instrument-day where nothing is known of it yet: the median of what the field reports,
# far below the few busiest instruments. Only the ratios matter: they spread the first run over its shards.
FIRST_GUESS_BYTES: Mapping[str, int] = {
    "trades": 2_000_000,
    "quotes": 6_000_000,
    "book_ticker": 8_000_000,
    "book_snapshot_5": 8_000_000,
    "book_snapshot_25": 30_000_000,
    "incremental_book_L2": 40_000_000,
    "derivative_ticker": 1_000_000,
    "liquidations": 10_000,
    "options_chain": 3_000_000_000,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The tasks of a run by shard, each shard's largest first."""

    shards: tuple[tuple[Task, ...], ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Return all tasks, shard by shard."""
        return tuple(task for shard in self.shards for task in shard)

    @property
    def loads(self) -> tuple[int, ...]:
        """Return the predicted bytes of each shard."""
        return tuple(sum(task.predicted_bytes for task in shard) for shard in self.shards)


def run_id(stage: Stage, request: Mapping[str, Any]) -> str:
    """Return the base id of a request, known before anything is read.

    >>> run_id(Stage.DOWNLOAD, {"days": ["2024-08-08"]}) == run_id(Stage.DOWNLOAD, {"days": ["2024-08-08"]})
    True
    >>> run_id(Stage.DOWNLOAD, {}).split("-")[0]
    'download'
    """
    # As Helm writes it too, which has no other way: what is not ASCII stays as it is.
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{stage}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def pass_id(base: str, number: int) -> str:
    """Return the id of the k-th later pass over a request; pass 0 is the request itself.

    >>> pass_id("download-3f9a1c20", 0), pass_id("download-3f9a1c20", 2)
    ('download-3f9a1c20', 'download-3f9a1c20-r2')
    """
    return f"{base}-r{number}" if number else base


def pass_number(base: str, run: str) -> int | None:
    """Return which pass over `base` a run is, or None when it is another request's.

    >>> pass_number("download-3f", "download-3f-r12"), pass_number("download-3f", "download-3f")
    (12, 0)
    >>> pass_number("download-3f", "download-3f9") is None
    True
    """
    head, _, tail = run.partition("-r") if run.startswith(f"{base}-r") else (run, "", "0")
    return int(tail) if head == base and tail.isdecimal() else None


def predict(
    tasks: Iterable[Task], sizes: Mapping[tuple[str, str], int], venue_of: Callable[[str], str]
) -> tuple[Task, ...]:
    """Return the tasks with predicted bytes.

    `sizes` are the newest known bytes by (key, data type); unknown ones take the median of their (venue, data type),
    else a shipped first guess. A task that has a size keeps it.

    >>> from datetime import date
    >>> task = Task(Stage.DOWNLOAD, date(2024, 8, 8), "A:SPOT_PAIR:X-Y", ("trades",))
    >>> predict([task], {("A:SPOT_PAIR:Z-Y", "trades"): 7}, lambda key: key.split(":")[0])[0].predicted_bytes
    7
    """
    by_venue: dict[tuple[str, str], list[int]] = defaultdict(list)
    for (key, data_type), known in sizes.items():
        by_venue[venue_of(key), data_type].append(known)
    medians = {group: int(statistics.median(values)) for group, values in by_venue.items()}

    # Asked once for each instrument and not once a day.
    @cache
    def size(key: str, data_types: tuple[str, ...]) -> int:
        guesses = {t: medians.get((venue_of(key), t), FIRST_GUESS_BYTES.get(t, 0)) for t in data_types}
        return sum(sizes.get((key, t), guess) for t, guess in guesses.items())

    return tuple(
        t
        if t.predicted_bytes
        else Task(t.stage, t.day, t.key, t.data_types, t.source, size(t.key, t.data_types), t.parts)
        for t in tasks
    )


def pack(tasks: Sequence[Task], shards: int) -> Plan:
    """Return a plan: longest first, each to the shard with the least so far; at most as many shards as tasks.

    Ties go to the earlier day and key and to the lower shard, so equal input gives an equal plan.

    >>> from datetime import date
    >>> sizes = {"A": 5, "B": 4, "C": 3, "D": 3}
    >>> t = [Task(Stage.DOWNLOAD, date(2024, 8, 8), k, (), None, b) for k, b in sizes.items()]
    >>> [[task.key for task in shard] for shard in pack(t, 2).shards]
    [['A', 'D'], ['B', 'C']]
    """
    count = min(shards, len(tasks))
    heap = [(0, shard) for shard in range(count)]
    packed: list[list[Task]] = [[] for _ in range(count)]
    for task in sorted(tasks, key=lambda t: (-t.predicted_bytes, t.day, t.key)):
        load, shard = heapq.heappop(heap)
        packed[shard].append(task)
        heapq.heappush(heap, (load + max(task.predicted_bytes, 1), shard))
    return Plan(tuple(tuple(shard) for shard in packed))


def round_robin(tasks: Sequence[Task], shards: int) -> Plan:
    """Return the plan that a plain index-modulo split would give, to compare with.

    >>> round_robin([], 3).shards
    ()
    """
    count = min(shards, len(tasks))
    ordered = sorted(tasks, key=lambda t: (t.day, t.key))
    return Plan(tuple(tuple(ordered[shard::count]) for shard in range(count)))


def makespan_bytes(plan: Plan, parallelism: int) -> int:
    """Return the bytes that the busiest of `parallelism` workers has to do, shards taken in their order.

    >>> from datetime import date
    >>> t = [Task(Stage.DOWNLOAD, date(2024, 8, 8), k, (), None, b) for k, b in (("A", 5), ("B", 4), ("C", 3))]
    >>> makespan_bytes(pack(t, 3), 2)
    7
    """
    workers = [0] * max(1, parallelism)
    for load in plan.loads:
        heapq.heapreplace(workers, workers[0] + load)
    return max(workers)


def imbalance(plan: Plan) -> float:
    """Return the largest shard over the mean shard; 1.0 is even.

    >>> imbalance(Plan(()))
    1.0
    """
    loads = plan.loads
    return max(loads) * len(loads) / sum(loads) if sum(loads) else 1.0


def encode(plan: Plan) -> bytes:
    """Return the plan as Parquet, row group i holding the rows of shard i in the order they are to be done.

    >>> decode_bytes(encode(Plan(()))).shards
    ()
    """
    sink = io.BytesIO()
    # Statistics would make the footer, which every worker reads, larger than a shard.
    options = {"compression": "zstd", "compression_level": 1, "write_statistics": False}
    with pq.ParquetWriter(sink, PLAN_SCHEMA, **options) as writer:
        for number, shard in enumerate(plan.shards):
            writer.write_table(_table(number, shard), row_group_size=max(1, len(shard)))
    return sink.getvalue()


def decode(file: BinaryIO) -> Iterator[tuple[Task, ...]]:
    """Yield the shards of the plan that `encode` wrote, one after another. Raises pyarrow's errors for another file.

    >>> list(decode(io.BytesIO(encode(Plan(())))))
    []
    """
    parquet, shared = _open(file), _Shared()
    for group in range(parquet.num_row_groups):
        yield shared.tasks(parquet.read_row_group(group, use_threads=False))


def decode_shard(file: BinaryIO, shard: int) -> tuple[Task, ...]:
    """Return the tasks of one shard, reading only its row group; none for a shard the plan does not have.

    >>> decode_shard(io.BytesIO(encode(Plan(()))), 3)
    ()
    """
    parquet = _open(file)
    return _Shared().tasks(parquet.read_row_group(shard, use_threads=False)) if shard < parquet.num_row_groups else ()


def shard_sizes(body: bytes) -> tuple[Size, ...]:
    """Return the size of each shard of a whole plan object, without making its tasks.

    >>> from datetime import date
    >>> t = [Task(Stage.DOWNLOAD, date(2024, 8, 8), k, ("a", "b"), None, b) for k, b in (("A", 5), ("B", 4), ("C", 3))]
    >>> shard_sizes(encode(pack(t, 2)))[1]
    Size(tasks=2, rows=4, predicted_bytes=7)
    """
    parquet, columns = _open(io.BytesIO(body)), ["data_types", "predicted_bytes"]
    groups = (parquet.read_row_group(n, columns, use_threads=False) for n in range(parquet.num_row_groups))
    return tuple(
        Size(each.num_rows, len(pc.list_flatten(each.column(0))), pc.sum(each.column(1)).as_py() or 0)
        for each in groups
    )


def read_plan(store: Store, record: RunRecord) -> bytes:
    """Return the plan object's bytes. Raises ConfigError when they are not the ones the record pins.

    >>> from runner.ledger import pin
    >>> from runner.store.memory import MemoryStore
    >>> record = RunRecord("download-3f9a1c20", {}, {}, pin(b""), ())
    >>> read_plan(MemoryStore("none"), record)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    runner.errors.ConfigError: run download-3f9a1c20 has no plan at ...
    """
    try:
        body = store.get(layout.plan(record.id))
    except NotFoundError as e:
        raise _no_plan(store, record) from e
    if (found := sha256(body)) != record.plan.sha256:
        raise _changed(store, record, f"SHA-256 {found[:12]}…", f"{record.plan.sha256[:12]}…")
    return body


def open_plan(store: Store, record: RunRecord) -> BinaryIO:
    """Open the plan object to read parts of it by ranges, all of one generation.

    Raises ConfigError when the store's size or CRC-32C of it are not the ones the record pins.

    >>> from runner.ledger import pin
    >>> from runner.store.memory import MemoryStore
    >>> record, store = RunRecord("download-3f9a1c20", {}, {}, pin(b""), ()), MemoryStore("changed")
    >>> _ = store.put(layout.plan(record.id), b"another")
    >>> open_plan(store, record)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    runner.errors.ConfigError: _runs/download-3f9a1c20/plan.parquet in memory://changed has 7 bytes, CRC-32C ...
    """
    info = store.head(layout.plan(record.id))
    if info is None:
        raise _no_plan(store, record)
    found = replace(record.plan, size=info.size, crc32c=info.crc32c)
    if found != record.plan:
        raise _changed(store, record, str(found), str(record.plan))
    return open_object(store, info)


def _no_plan(store: Store, record: RunRecord) -> ConfigError:
    where = f"{layout.plan(record.id)} in {store.url}"
    return ConfigError(f"run {record.id} has no plan at {where}; remove the run: runner clean {record.id}")


def _changed(store: Store, record: RunRecord, found: str, pinned: str) -> ConfigError:
    return ConfigError(
        f"{layout.plan(record.id)} in {store.url} has {found}, run.json of {record.id} pins {pinned}: "
        f"the plan was changed; remove the run and submit anew: runner clean {record.id}"
    )


def rows(store: Store, record: RunRecord) -> tuple[frozenset[tuple[str, str]], ...]:
    """Return by shard the rows of a run's plan: (task id, data type).

    >>> from datetime import date
    >>> from runner.ledger import pin
    >>> from runner.store.memory import MemoryStore
    >>> body = encode(Plan(((Task(Stage.VALIDATE, date(2024, 8, 8), "OKX", ("trades",)),),)))
    >>> store, record = MemoryStore("rows"), RunRecord("validate-3f9a1c20", {}, {}, pin(body), ())
    >>> _ = store.put(layout.plan(record.id), body)
    >>> rows(store, record)
    (frozenset({('validate/2024-08-08/OKX', 'trades')}),)
    """
    shards = decode_bytes(read_plan(store, record)).shards
    return tuple(frozenset((task.id, each) for task in tasks for each in task.data_types) for tasks in shards)


def decode_bytes(body: bytes) -> Plan:
    """Return the plan of a whole plan object.

    >>> decode_bytes(encode(Plan(()))).shards
    ()
    """
    return Plan(tuple(decode(io.BytesIO(body))))


def without(task: Task, data_types: Iterable[str]) -> Iterator[Task]:
    """Yield the task with the data types that are not among these, if there are any.

    >>> from datetime import date
    >>> task = Task(Stage.DOWNLOAD, date(2024, 8, 8), "A:SPOT_PAIR:X-Y", ("trades", "quotes"))
    >>> [t.data_types for t in without(task, {"trades"})], list(without(task, ("trades", "quotes")))
    ([('quotes',)], [])
    """
    gone = frozenset(data_types)
    if types := tuple(data_type for data_type in task.data_types if data_type not in gone):
        yield replace(task, data_types=types)


def _open(file: BinaryIO) -> pq.ParquetFile:
    # Reading ahead is done by threads of Arrow's: one that lets go of a Python buffer while the interpreter ends aborts
    # the process.
    return pq.ParquetFile(file, pre_buffer=False)


def _table(number: int, tasks: Sequence[Task]) -> pa.Table:
    sources = [_values(task.source) for task in tasks]
    columns: dict[str, Sequence[Any]] = {
        "shard": [number] * len(tasks),
        **{name: [getattr(task, name) for task in tasks] for name in _TASK_FIELDS},
        **dict(zip(_SOURCE_FIELDS, zip(*sources, strict=True) if sources else repeat(()), strict=False)),
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in PLAN_SCHEMA], schema=PLAN_SCHEMA)


def _values(source: Source | None) -> tuple[Any, ...]:
    return _NO_VALUES if source is None else _SOURCE_VALUES(source)


class _Shared:
    """Rows to tasks. Equal keys, lists and sources become one object: there may be millions of tasks."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}
        self._sources: dict[tuple[Any, ...], Source | None] = {_NO_VALUES: None}

    def tasks(self, rows: pa.Table) -> tuple[Task, ...]:
        """Return the tasks of a row group."""
        columns = {name: rows.column(name).to_pylist() for name in PLAN_SCHEMA.names}
        one = self._known.setdefault
        parts = {name: [one(t := tuple(v), t) for v in columns[name]] for name in ("data_types", "parts")}
        sources = map(self._source, zip(*(columns[name] for name in _SOURCE_FIELDS), strict=True))
        stages = map(Stage, columns["stage"])
        days, keys = ([one(value, value) for value in columns[name]] for name in ("day", "key"))
        rest = (parts["data_types"], sources, columns["predicted_bytes"], parts["parts"])
        return tuple(map(Task, stages, days, keys, *rest))

    def _source(self, values: tuple[Any, ...]) -> Source | None:
        if values not in self._sources:
            self._sources[values] = Source(*values)
        return self._sources[values]
