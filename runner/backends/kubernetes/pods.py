"""Reading raw Jobs and pods: conditions, shards, ends. Pure; the shapes are those of the Kubernetes API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from runner.backends.kubernetes.client import Object

_INDEX = "batch.kubernetes.io/job-completion-index"
TRIES = ("batch.kubernetes.io/job-index-failure-count", "batch.kubernetes.io/job-index-ignored-failure-count")
"""Annotations of a pod that count the tries of its shard before it."""
Shape = Mapping[str, "Shape | None"]
_STATUSES: Shape = {"image": None, "state": None}
_READ: Shape = {
    "metadata": {
        **dict.fromkeys(("name", "uid", "creationTimestamp", "deletionTimestamp")),
        "labels": {_INDEX: None},
        "annotations": dict.fromkeys((_INDEX, *TRIES)),
    },
    "spec": {
        "nodeName": None,
        "containers": {"resources": None},
        "volumes": dict.fromkeys(("secret", "projected")),
    },
    "status": {
        **dict.fromkeys(("phase", "reason")),
        "conditions": dict.fromkeys(("type", "status", "reason", "message", "lastTransitionTime")),
        "initContainerStatuses": _STATUSES,
        "containerStatuses": _STATUSES,
    },
}
"""All that is read of a pod. What its containers are given and who set which field is ten times as much."""
_ALIKE = ("containers", "volumes")
_READ_OF_EVENT: Shape = {
    "metadata": dict.fromkeys(("uid", "creationTimestamp")),
    "involvedObject": {"name": None},
    **dict.fromkeys(("reason", "message", "lastTimestamp", "eventTime")),
}


def lean(pod: Object) -> Object:
    """Return a pod with only what is read of one: thousands of them are held while a run is followed.

    >>> lean({"metadata": {"name": "a", "managedFields": []}, "spec": {"containers": [{"env": []}]}})
    {'metadata': {'name': 'a'}, 'spec': {'containers': [{}]}}
    """
    found: Object = _only(pod, _READ)
    spec = found.get("spec", {})
    return {**found, "spec": {**spec, **{key: _alike(json.dumps(spec[key])) for key in _ALIKE if key in spec}}}


def lean_event(event: Object) -> Object:
    """Return an event with only what is read of one: a node that is lost makes one for each of its pods.

    >>> lean_event({"reason": "NodeNotReady", "source": {"component": "node-controller"}})
    {'reason': 'NodeNotReady'}
    """
    found: Object = _only(event, _READ_OF_EVENT)
    return found


@lru_cache(maxsize=64)
def _alike(text: str) -> Any:
    """Return what a JSON text says: one object for all pods of a Job, which are alike in it."""
    return json.loads(text)


def _only(value: Any, shape: Shape | None) -> Any:
    if shape is None or value is None:
        return value
    if isinstance(value, list):
        return [_only(each, shape) for each in value]
    return {key: _only(value[key], inner) for key, inner in shape.items() if key in value}


def parse_indexes(text: str) -> frozenset[int]:
    """Return the indexes that a Job's status writes as intervals.

    >>> sorted(parse_indexes("1,3-5,7")), sorted(parse_indexes(""))
    ([1, 3, 4, 5, 7], [])
    """
    found: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def condition(item: Object, kind: str, *, status: str = "True") -> Mapping[str, Any]:
    """Return the condition of this kind that has this status, or an empty one."""
    conditions = item.get("status", {}).get("conditions") or ()
    return next((c for c in conditions if c["type"] == kind and c.get("status") == status), {})


def job_is_over(job: Object) -> bool:
    """Tell whether nothing of a Job runs or will run."""
    return bool(condition(job, "Complete") or condition(job, "Failed"))


def index_of(pod: Object) -> int | None:
    """Return a pod's shard, or None for a pod that has none."""
    metadata = pod["metadata"]
    text = metadata.get("annotations", {}).get(_INDEX) or metadata.get("labels", {}).get(_INDEX)
    return int(text) if text is not None and str(text).isdecimal() else None


def is_over(pod: Object) -> bool:
    """Tell whether a pod has ended, well or not."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def newest_by_index(pods: Iterable[Object]) -> dict[int, Object]:
    """Return the newest pod of each shard; one that has not ended is newer than any that has."""
    found: dict[int, Object] = {}
    for pod in sorted(pods, key=lambda pod: (not is_over(pod), str(pod["metadata"].get("creationTimestamp")))):
        if (index := index_of(pod)) is not None:
            found[index] = pod
    return found


def statuses(pod: Object) -> tuple[Mapping[str, Any], ...]:
    """Return the states of a pod's containers, those that initialise first."""
    status = pod.get("status", {})
    return (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))


def terminated(pod: Object) -> Mapping[str, Any] | None:
    """Return how a pod's container ended, or None while it has not."""
    states = (status.get("state", {}).get("terminated") for status in statuses(pod))
    return next((state for state in states if state), None)


def exit_code(pod: Object) -> int | None:
    """Return the exit code of a pod's container; None when it has none, as of a pod whose node was lost."""
    end = terminated(pod)
    return int(end["exitCode"]) if end and "exitCode" in end else None


def ended_at(pod: Object) -> datetime:
    """Return when a pod ended: its container's end, else its last condition's change."""
    if (end := terminated(pod)) and end.get("finishedAt"):
        return time_of(end["finishedAt"])
    changes = [
        c["lastTransitionTime"] for c in pod.get("status", {}).get("conditions") or () if c.get("lastTransitionTime")
    ]
    return time_of(max(changes, default=pod["metadata"].get("creationTimestamp", "")))


def time_of(text: str | None) -> datetime:
    """Return a time as the API writes it; the beginning of time for none.

    >>> time_of("2024-08-08T12:00:00Z").isoformat()
    '2024-08-08T12:00:00+00:00'
    """
    return datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)
