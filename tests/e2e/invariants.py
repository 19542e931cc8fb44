"""What must be true of a store after its runs have ended, whatever happened to them: one function says what is not.

It reads plans, ledgers and objects, folds and compares on its own, and takes from the product only the parsers.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from runner import layout, ledger, plan, run_record
from runner.ledger import Attempt
from runner.stages import content
from runner.store import ObjectInfo, Store
from runner.task import Entry, Task

DATA = ("raw_tick_data/", "processed_candles/", "processed_book_snapshots/", "option_features/")
SETTLED = {"done", "empty", "not_offered", "not_available"}


@dataclass(frozen=True)
class Expectation:
    """`clean`: content by key as a run without any trouble leaves it. `bodies`: complete bodies served, by path.

    `redone`: how many bodies may have been served once more than once: those in flight when somebody was killed.
    `shared`: paths served again for another reason: a twin, an answer that was damaged.
    `failed`: the (task id, data type)s that must have failed.
    """

    clean: Mapping[str, str]
    bodies: Mapping[str, int]
    redone: int = 0
    shared: frozenset[str] = frozenset()
    failed: frozenset[tuple[str, str]] = frozenset()


def violations(store: Store, runs: tuple[str, ...], expected: Expectation) -> list[str]:
    """Return what is lost, doubled, partial, unexplained or different in a store and the runs that filled it."""
    objects = list(store.list(""))
    data = {info.key: info for info in objects if info.key.startswith(DATA)}
    tasks: dict[str, Task] = {}
    attempts: list[Attempt] = []
    for run in runs:
        for task in plan.decode_bytes(plan.read_plan(store, run_record.get_run(store, run))).tasks:
            before = tasks[task.id].data_types if task.id in tasks else ()
            tasks[task.id] = replace(task, data_types=tuple(dict.fromkeys((*before, *task.data_types))))
        attempts += ledger.read_attempts(store, run)
    return [
        *_doubled(objects, store),
        *_partial(store, objects),
        *_lost(tasks, attempts, data, expected.failed),
        *_different(store, data, expected.clean),
        *_written_twice(attempts),
        *_served_twice(tasks, attempts, expected),
    ]


def contents(store: Store) -> dict[str, str]:
    """Return a hash of the decoded content of every data object, by key; ours, and not the product's digest."""
    return {info.key: _content(store.get(info.key)) for info in store.list("") if info.key.startswith(DATA)}


def unreadable(body: bytes, info: ObjectInfo) -> str:
    """Return why an object's bytes are not whole, or an empty string."""
    if len(body) != info.size or google_crc32c.value(body) != info.crc32c:
        return f"{info.key}: {len(body)} bytes, {info.size} stated, or another checksum"
    try:
        if info.key.endswith(".parquet"):
            rows = pq.read_table(io.BytesIO(body)).num_rows
            if info.metadata.get("rows", str(rows)) != str(rows):
                return f"{info.key}: {rows} rows, {info.metadata['rows']} stated"
        elif info.key.startswith("_runs/") and "/logs/" not in info.key:
            json.loads(body)
    except (pa.ArrowException, OSError, ValueError) as e:
        return f"{info.key}: {type(e).__name__} {e}"
    return ""


def _content(body: bytes) -> str:
    table = pq.read_table(io.BytesIO(body)).replace_schema_metadata(None).combine_chunks()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _doubled(objects: list[ObjectInfo], store: Store) -> Iterator[str]:
    for key, count in Counter(info.key for info in objects).items():
        if count > 1:
            yield f"doubled: {key} is listed {count} times"
    if not store.url.startswith("file://"):
        return
    root = Path(store.url.removeprefix("file://"))
    files = {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and ".runner" not in p.parts}
    for key in sorted(files ^ {info.key for info in objects}):
        yield f"doubled: {key} is a file or an object, and not both"


def _partial(store: Store, objects: list[ObjectInfo]) -> Iterator[str]:
    for info in objects:
        fault = unreadable(store.get(info.key), info)
        if not fault and info.key.startswith(DATA):
            fault = content.fault(store, info, deep=True)
        if fault:
            yield f"partial: {fault}"


def _folded(attempts: list[Attempt]) -> dict[tuple[str, str], Entry]:
    folded: dict[tuple[str, str], Entry] = {}
    for attempt in attempts:
        for entry in attempt.entries:
            key = (entry.task_id, entry.data_type)
            if key not in folded or folded[key].outcome not in SETTLED:
                folded[key] = entry
    return folded


def _lost(
    tasks: Mapping[str, Task],
    attempts: list[Attempt],
    data: Mapping[str, ObjectInfo],
    failed: frozenset[tuple[str, str]],
) -> Iterator[str]:
    folded = _folded(attempts)
    wanted = {(task.id, data_type) for task in tasks.values() for data_type in task.data_types}
    for task_id, data_type in sorted(wanted ^ folded.keys()):
        yield f"lost: {task_id} {data_type} is in the plan or in the ledgers, and not in both"
    for (task_id, data_type), entry in sorted(folded.items()):
        name = f"{task_id} {data_type}"
        if entry.outcome not in SETTLED:
            if (task_id, data_type) not in failed:
                yield f"lost: {name} has {entry.outcome}: {entry.facts}"
            if not entry.facts.get("error") or not entry.facts.get("exit"):
                yield f"lost: {name} failed without a cause: {entry.facts}"
        elif (task_id, data_type) in failed:
            yield f"lost: {name} was to fail, and is {entry.outcome}"
        elif task_id in tasks:
            yield from _unproven(tasks[task_id], entry, data)


def _unproven(task: Task, entry: Entry, data: Mapping[str, ObjectInfo]) -> Iterator[str]:
    keys = layout.outputs(task.day, entry.data_type, task.key, task.parts)
    for key in keys:
        if key not in data:
            yield f"lost: {entry.task_id} {entry.data_type} is {entry.outcome}, and {key} is not there"
    ticks = data.get(keys[-1])
    if ticks is not None and ticks.metadata.get("digest") != entry.facts.get("digest"):
        yield f"lost: {entry.task_id} {entry.data_type}: the ledger's digest is not the object's"
    if ticks is not None and ticks.generation != entry.facts.get("generation"):
        yield f"doubled: {keys[-1]} is at another generation than its ledger says"


def _different(store: Store, data: Mapping[str, ObjectInfo], clean: Mapping[str, str]) -> Iterator[str]:
    for key in data:
        if key not in clean:
            yield f"different: {key} is not what a clean run leaves"
            continue
        try:
            content_now = _content(store.get(key))
        except pa.ArrowException as e:
            content_now = str(e)
        if content_now != clean[key]:
            yield f"different: {key} has another content than after a clean run"


def _written_twice(attempts: list[Attempt]) -> Iterator[str]:
    written = Counter(
        (entry.task_id, entry.data_type)
        for attempt in attempts
        for entry in attempt.entries
        if entry.facts.get("written")
    )
    for key, count in written.items():
        if count > 1:
            yield f"doubled: {key} was written {count} times"


def path_of(task: Task, data_type: str) -> str:
    """Return the path of a task's day file at the sandbox."""
    assert task.source is not None
    day = f"{task.day:%Y/%m/%d}"
    return f"/v1/{task.source.exchange}/{data_type}/{day}/{task.source.symbol.upper()}.csv.gz"


def _served_twice(tasks: Mapping[str, Task], attempts: list[Attempt], expected: Expectation) -> Iterator[str]:
    died_at = {task_id for attempt in attempts if attempt.exit in (None, 143) for task_id in attempt.in_flight}
    redone = 0
    for task in tasks.values():
        for data_type in task.data_types:
            path = path_of(task, data_type)
            count = 0 if path in expected.shared else expected.bodies.get(path, 0)
            redone += max(0, count - 1)
            if count > 1 and task.id not in died_at:
                yield f"doubled: {task.id} {data_type} was served {count} times, and nobody died at it"
    if redone > expected.redone:
        yield f"doubled: {redone} bodies were served again, {expected.redone} were in flight when somebody was killed"
