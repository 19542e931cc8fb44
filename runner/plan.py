"""Tasks to a packed plan, and the plan as one Parquet object with a row group per shard.

Packing is longest processing time first on predicted bytes. A plan is a value: equal tasks and shards give equal bytes.
"""

from __future__ import annotations

import hashlib
import heapq
import io
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from runner.ledger import canonical
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
    ]
)
_SOURCE_FIELDS = ("exchange", "symbol", "inverse", "amount_unit", "contract_size", "listed_from", "listed_to")

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
    return f"{stage}-{hashlib.sha256(canonical(request)).hexdigest()[:8]}"


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
    else a shipped first guess.

    >>> from datetime import date
    >>> task = Task(Stage.DOWNLOAD, date(2024, 8, 8), "A:SPOT_PAIR:X-Y", ("trades",))
    >>> predict([task], {("A:SPOT_PAIR:Z-Y", "trades"): 7}, lambda key: key.split(":")[0])[0].predicted_bytes
    7
    """
    by_venue: dict[tuple[str, str], list[int]] = defaultdict(list)
    for (key, data_type), known in sizes.items():
        by_venue[venue_of(key), data_type].append(known)
    medians = {group: int(statistics.median(values)) for group, values in by_venue.items()}

    def size(key: str, data_type: str) -> int:
        guess = medians.get((venue_of(key), data_type), FIRST_GUESS_BYTES.get(data_type, 0))
        return sizes.get((key, data_type), guess)

    return tuple(replace(t, predicted_bytes=sum(size(t.key, d) for d in t.data_types)) for t in tasks)


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

    >>> decode(io.BytesIO(encode(Plan(())))).shards
    ()
    """
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, PLAN_SCHEMA, compression="zstd", compression_level=1) as writer:
        for number, shard in enumerate(plan.shards):
            rows = [_row(number, task) for task in shard]
            writer.write_table(pa.Table.from_pylist(rows, schema=PLAN_SCHEMA), row_group_size=max(1, len(rows)))
    return sink.getvalue()


def decode(file: BinaryIO) -> Plan:
    """Return the plan that `encode` wrote. Raises pyarrow's errors when the file is no plan.

    >>> decode(io.BytesIO(encode(Plan(())))).tasks
    ()
    """
    parquet = _open(file)
    return Plan(
        tuple(_tasks(parquet.read_row_group(group, use_threads=False)) for group in range(parquet.num_row_groups))
    )


def decode_shard(file: BinaryIO, shard: int) -> tuple[Task, ...]:
    """Return the tasks of one shard, reading only its row group; none for a shard the plan does not have.

    >>> decode_shard(io.BytesIO(encode(Plan(()))), 3)
    ()
    """
    parquet = _open(file)
    return _tasks(parquet.read_row_group(shard, use_threads=False)) if shard < parquet.num_row_groups else ()


def decode_bytes(body: bytes) -> Plan:
    """Return the plan of a whole plan object.

    >>> decode_bytes(encode(Plan(()))).shards
    ()
    """
    return decode(io.BytesIO(body))


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


def _row(shard: int, task: Task) -> dict[str, Any]:
    source = {name: getattr(task.source, name) for name in _SOURCE_FIELDS} if task.source else {}
    return {
        "shard": shard,
        "stage": str(task.stage),
        "day": task.day,
        "key": task.key,
        "data_types": list(task.data_types),
        "predicted_bytes": task.predicted_bytes,
        **source,
    }


def _tasks(table: pa.Table) -> tuple[Task, ...]:
    return tuple(
        Task(
            stage=Stage(row["stage"]),
            day=row["day"],
            key=row["key"],
            data_types=tuple(row["data_types"]),
            source=None if row["exchange"] is None else Source(**{name: row[name] for name in _SOURCE_FIELDS}),
            predicted_bytes=row["predicted_bytes"],
        )
        for row in table.to_pylist()
    )
