"""A plan as text, one line or a table of its shards, and as a JSON value."""

from __future__ import annotations

from typing import Any

from runner import plan
from runner.report import units
from runner.report.tables import table
from runner.runs.request import Draft

SHARDS_SHOWN = 20


def line(draft: Draft, parallelism: int) -> str:
    """Return what a run would do, in one line."""
    packed = draft.plan
    if not packed.shards:
        return f"nothing to do: all {units.count(draft.skipped, 'task')} are in the store"
    longest = units.size(plan.makespan_bytes(packed, parallelism))
    plain = units.size(plan.makespan_bytes(draft.round_robin, parallelism))
    facts = [
        units.count(len(packed.tasks), "task"),
        units.count(len(packed.shards), "shard"),
        f"{units.size(sum(packed.loads))} predicted",
        f"makespan {longest} (round-robin {plain})",
        f"imbalance {plan.imbalance(packed):.2f}",
    ]
    kept = [f"{units.count(draft.skipped, 'task')} already in the store"] if draft.skipped else []
    return " · ".join([*facts, *kept])


def screen(draft: Draft, parallelism: int) -> str:
    """Return the line and a table of the first shards."""
    shards = list(zip(draft.plan.shards, draft.plan.loads, strict=True))
    if not shards:
        return line(draft, parallelism)
    rows = [
        (number, len(tasks), units.size(load), tasks[0].id if tasks else "-")
        for number, (tasks, load) in enumerate(shards[:SHARDS_SHOWN])
    ]
    rest = len(shards) - len(rows)
    more = f"\nshowing {len(rows)} of {len(shards)} shards; all of them: -o json" if rest else ""
    body = table(("SHARD", "TASKS", "BYTES", "LARGEST TASK"), rows)
    return f"run {draft.base}: {line(draft, parallelism)}\n\n{body}{more}"


def document(draft: Draft, parallelism: int) -> dict[str, Any]:
    """Return what a run of this draft would do, as a JSON value."""
    return {
        "kind": "Plan",
        "id": draft.base,
        "request": dict(draft.request),
        "skipped": draft.skipped,
        "predictedBytes": sum(draft.plan.loads),
        "longestWorkerBytes": plan.makespan_bytes(draft.plan, parallelism),
        "roundRobinLongestWorkerBytes": plan.makespan_bytes(draft.round_robin, parallelism),
        "imbalance": round(plan.imbalance(draft.plan), 4),
        "shards": [
            {
                "shard": number,
                "predictedBytes": load,
                "tasks": [
                    {"task": task.id, "dataTypes": list(task.data_types), "predictedBytes": task.predicted_bytes}
                    for task in tasks
                ],
            }
            for number, (tasks, load) in enumerate(zip(draft.plan.shards, draft.plan.loads, strict=True))
        ],
    }
