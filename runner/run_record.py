"""Run records: what was asked, by whom it is found, and of which plan. Each is written once and commits its run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NamedTuple

from runner import layout
from runner.errors import ConfigError, NotFoundError, PreconditionError
from runner.ledger import API_VERSION, Pin, canonical
from runner.store import ObjectInfo, Store

DAYS = "days"
"""What a run record says in its metadata: the first and the last day asked for."""


class Size(NamedTuple):
    """How much a shard is: its tasks, their rows, one for each task and data type, and predicted bytes."""

    tasks: int
    rows: int
    predicted_bytes: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What was asked: the commit of a run, written once, after its plan.

    `request` is the canonical request that the id is derived from, `spec` the whole specification as JSON values,
    `plan` pins the plan object, `created` is the store's time of the commit. `sizes` are the shards': who only follows
    a run need not open its plan, which takes as long and as much memory as it has shards. `replaces` tells that what is
    in the store is made anew: all was asked for, by this run or by the one that it retries.
    """

    id: str
    request: Mapping[str, Any]
    spec: Mapping[str, Any]
    plan: Pin
    sizes: tuple[Size, ...]
    replaces: bool = False
    created: datetime | None = None

    @property
    def shards(self) -> int:
        """Return how many shards the plan has."""
        return len(self.sizes)

    @property
    def tasks(self) -> int:
        """Return how many tasks the plan has."""
        return sum(size.tasks for size in self.sizes)

    @property
    def predicted_bytes(self) -> int:
        """Return the bytes that the plan expects."""
        return sum(size.predicted_bytes for size in self.sizes)


def write_run(store: Store, record: RunRecord) -> bool:
    """Commit a run record if there is none; tell whether it was ours."""
    document = {
        "apiVersion": API_VERSION,
        "id": record.id,
        "request": record.request,
        "spec": record.spec,
        "replaces": record.replaces,
        "plan": {
            **asdict(record.plan),
            "shards": record.shards,
            "tasks": record.tasks,
            "predictedBytes": record.predicted_bytes,
            "sizes": record.sizes,
        },
    }
    try:
        days = record.request.get("days")
        store.put(layout.run_record(record.id), canonical(document), metadata={DAYS: "/".join(days)} if days else None)
    except PreconditionError:
        return False
    return True


def read_run(store: Store, run: str) -> RunRecord | None:
    """Return the record of a run, or None when it was never committed. Raises ConfigError when it is no run record."""
    info = store.head(layout.run_record(run))
    if info is None:
        return None
    try:
        document = json.loads(store.get(info.key))
        plan = document["plan"]
        return RunRecord(
            id=document["id"],
            request=document["request"],
            spec=document["spec"],
            plan=Pin(plan["sha256"], plan["size"], plan["crc32c"]),
            sizes=tuple(Size(*size) for size in plan["sizes"]),
            replaces=document.get("replaces", document["request"].get("select") == "all"),
            created=info.updated,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise unreadable(store, info.key, run, e) from e


def unreadable(store: Store, key: str, run: str, why: Exception) -> ConfigError:
    """Return the error for an object of a run that is not what this version writes there."""
    return ConfigError(
        f"{key} in {store.url} is no run record of this version ({type(why).__name__}: {why}); "
        f"remove the run: runner clean {run}"
    )


def days_of(store: Store, info: ObjectInfo) -> tuple[str, str] | None:
    """Return the first and the last day that a run was asked for, by what is listed of its record; None if unknown.

    Records of earlier versions must be read for it.
    """
    first, _, last = info.metadata.get(DAYS, "").partition("/")
    if last:
        return first, last
    try:
        record = read_run(store, _run_of(info))
    except (ConfigError, NotFoundError):
        return None
    return tuple(record.request["days"]) if record and "days" in record.request else None


def get_run(store: Store, run: str) -> RunRecord:
    """Return the record of a run. Raises NotFoundError when there is none."""
    record = read_run(store, run)
    if record is None:
        raise NotFoundError(f"no run {run} in {store.url}; see them all: runner list")
    return record


def run_ids(store: Store, prefix: str = "") -> Iterator[str]:
    """Yield the ids of committed runs that start with `prefix`, in the order of their keys."""
    return (_run_of(info) for info in _records(store, prefix))


def newest_run(store: Store) -> str | None:
    """Return the id of the run that was committed last, None where there is none."""
    newest = max(_records(store), key=lambda info: info.updated, default=None)
    return _run_of(newest) if newest else None


def _records(store: Store, prefix: str = "") -> Iterator[ObjectInfo]:
    for info in store.list(f"{layout.RUNS}/{prefix}"):
        if info.key.endswith("/run.json") and info.key.count("/") == 2:  # noqa: PLR2004 - _runs/<id>/run.json
            yield info


def _run_of(info: ObjectInfo) -> str:
    return info.key.split("/")[1]
