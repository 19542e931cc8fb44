"""Runs as JSON values: what `-o json` and `-o yaml` print. Keys are camelCase and only ever added to."""

from __future__ import annotations

from typing import Any

from runner.report import run
from runner.runs import RunStatus, ShardStatus


def run_document(status: RunStatus) -> dict[str, Any]:
    """Return everything that is known of a run."""
    return {
        "kind": "Run",
        "id": status.id,
        "state": str(status.state),
        "tasks": _tasks(status),
        "bytes": {"received": status.received_bytes, "predicted": status.predicted_bytes},
        "progress": round(run.progress(status), 4),
        "started": status.started.isoformat() if status.started else None,
        "updated": status.updated.isoformat() if status.updated else None,
        "shards": [
            {
                "shard": shard.shard,
                "state": str(shard.state),
                "tasks": _tasks(shard),
                "bytes": {"received": shard.received_bytes, "predicted": shard.predicted_bytes},
                "attempts": shard.attempts,
            }
            for shard in status.shards
        ],
        "causes": [
            {"kind": cause.kind, "message": cause.message, "next": cause.next, "shards": list(cause.shards)}
            for cause in status.causes
        ],
        "failures": [
            {
                "shard": failure.shard,
                "task": failure.task_id,
                "dataType": failure.data_type,
                "error": failure.error,
                "logs": f"runner logs {status.id} --shard {failure.shard}",
            }
            for failure in status.failures
        ],
    }


def _tasks(of: RunStatus | ShardStatus) -> dict[str, int]:
    """Return tasks by state; `pending` are those among the done that wait for the source."""
    return {"total": of.total, "done": of.done, "failed": of.failed, "pending": of.pending}
