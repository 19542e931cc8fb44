"""Why a run on a cluster does not move: a snapshot and the time in, causes out, each with the command that helps.

The list is closed (`Kind`). Pure: nothing is asked of the cluster here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from runner.backends.kubernetes.client import Object
from runner.backends.kubernetes.pods import (
    TRIES,
    condition,
    ended_at,
    exit_code,
    index_of,
    is_over,
    newest_by_index,
    parse_indexes,
    statuses,
    terminated,
    time_of,
)
from runner.backends.kubernetes.watch import Snapshot, event_time
from runner.backends.sight import Cause

_IMAGE_REASONS = frozenset(
    ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
)
_NO_START_REASONS = frozenset(("StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError"))
_SECRET = re.compile(
    r'secret "(?P<name>[^"]+)" not found'
    r"|couldn't find key (?P<key>\S+) in Secret \S*?/?(?P<of>[^\s/\"]+)\"?$"
    r"|references non-existent secret key: (?P<lost>\S+)"
)
_BACKOFF_S, _BACKOFF_MAX_S = 10, 600
_STUCK = timedelta(seconds=15)
"""A pod that should have been gone for so long is on a node that does not answer."""
_RECENT = timedelta(minutes=15)
_MESSAGE_CHARS = 300


class Kind(StrEnum):
    """Everything that keeps a run from moving, or ended a part of it, as far as the cluster knows."""

    IMAGE = "image"
    SECRET = "secret"  # noqa: S105 - the name of a cause
    UNSCHEDULABLE = "unschedulable"
    QUOTA = "quota"
    ADMISSION = "admission"
    NODE = "node"
    BACKOFF = "back-off"
    MEMORY = "out of memory"
    DEADLINE = "deadline"
    SUSPENDED = "suspended"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class _Case:
    """A snapshot as the rules want it: the newest pod of each shard, warnings by the name of their object."""

    run: str
    kubectl: str
    peaks: Mapping[str, int]
    job: Object
    pods: Mapping[int, Object]
    every: tuple[Object, ...]
    warnings: Mapping[str, tuple[Object, ...]]
    now: datetime


def diagnose(
    snapshot: Snapshot, now: datetime, *, kubectl: str = "kubectl", peaks: Mapping[str, int] | None = None
) -> tuple[Cause, ...]:
    """Return the causes to be seen in a snapshot, gravest first; none for a run that moves, or has no Job.

    `kubectl` is that command with what leads it to the namespace, `peaks` the bytes that workers last told of, by the
    uid of their pod.
    """
    if snapshot.job is None:
        return ()
    metadata = snapshot.job["metadata"]
    warnings: dict[str, tuple[Object, ...]] = {}
    for event in snapshot.events:
        name = event["involvedObject"]["name"]
        warnings[name] = (*warnings.get(name, ()), event)
    done = parse_indexes(snapshot.job.get("status", {}).get("completedIndexes", ""))
    newest = {index: pod for index, pod in newest_by_index(snapshot.pods).items() if index not in done}
    run = metadata["name"]
    case = _Case(run, kubectl, peaks or {}, snapshot.job, newest, snapshot.pods, warnings, now)
    return tuple(cause for rule in _RULES for cause in rule(case))


def _merged(found: Iterable[tuple[int, Kind, str, str]]) -> Iterator[Cause]:
    """Yield one cause for all shards of which the same is to be said."""
    shards: dict[tuple[Kind, str, str], list[int]] = {}
    for shard, kind, message, step in found:
        shards.setdefault((kind, message, step), []).append(shard)
    for (kind, message, step), each in shards.items():
        yield Cause(kind, message, step, tuple(sorted(each)))


def _ended(case: _Case) -> Iterator[Cause]:
    failed = condition(case.job, "Failed") or condition(case.job, "FailureTarget")
    reason = failed.get("reason") if failed else None
    if reason == "DeadlineExceeded":
        limit = case.job["spec"].get("activeDeadlineSeconds")
        yield Cause(
            Kind.DEADLINE,
            f"the Job ran longer than its activeDeadlineSeconds ({limit}), which a --values file may raise",
            f"runner retry {case.run}",
        )
    elif failed and reason == "PodFailurePolicy":
        words = [message for pod in case.every if (message := (terminated(pod) or {}).get("message"))]
        why = "; ".join(sorted(set(words))) or failed.get("message", "")
        yield Cause(Kind.REFUSED, f"a worker ended the run: {_short(why)}", f"runner logs {case.run} --failed")


def _suspended(case: _Case) -> Iterator[Cause]:
    if case.job["spec"].get("suspend"):
        yield Cause(
            Kind.SUSPENDED,
            "the Job is suspended: by hand, or until a queue admits it",
            f"""{case.kubectl} patch job {case.run} --type merge -p '{{"spec":{{"suspend":false}}}}'""",
        )


def _creation(case: _Case) -> Iterator[Cause]:
    """Pods that the Job cannot create. Old warnings of a Job that has all its pods say nothing any more."""
    status, spec = case.job.get("status", {}), case.job["spec"]
    left = spec["completions"] - status.get("succeeded", 0) - len(parse_indexes(status.get("failedIndexes", "")))
    if status.get("active", 0) >= min(spec["parallelism"], left) or condition(case.job, "Failed"):
        return
    refused = [e for e in case.warnings.get(case.run, ()) if e.get("reason") == "FailedCreate"]
    if not refused or case.now - time_of(event_time(refused[-1])) > _RECENT:
        return
    message = _short(refused[-1].get("message", ""))
    if "exceeded quota" in message:
        step = f"{case.kubectl} describe resourcequota"
        yield Cause(Kind.QUOTA, f"the namespace's quota is used up: {message}", step)
    else:
        step = f"{case.kubectl} get events --field-selector involvedObject.name={case.run}"
        yield Cause(Kind.ADMISSION, f"the cluster refuses the pods: {message}", step)


def _not_started(case: _Case) -> Iterator[Cause]:
    yield from _merged(
        found for index, pod in case.pods.items() if not is_over(pod) for found in _why_not_started(case, index, pod)
    )


def _why_not_started(case: _Case, index: int, pod: Object) -> Iterator[tuple[int, Kind, str, str]]:
    describe = f"{case.kubectl} describe pod -l {labels(case.run, index)}"
    scheduled = condition(pod, "PodScheduled", status="False")
    if scheduled and scheduled.get("reason") == "Unschedulable":
        message = _short(scheduled.get("message", ""))
        yield index, Kind.UNSCHEDULABLE, message, _fit(case, message)
    for status in statuses(pod):
        waiting = status.get("state", {}).get("waiting", {})
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _IMAGE_REASONS:
            text = f"image {status.get('image')} cannot be had: {_short(message or reason)}"
            yield index, Kind.IMAGE, text, _again(case, "--image IMAGE")
        elif reason in _NO_START_REASONS:
            yield index, Kind.IMAGE, f"image {status.get('image')} does not start: {_short(message)}", describe
        elif reason == "CreateContainerConfigError":
            yield index, Kind.SECRET, _short(message), _make_secret(case, message, pod) or describe
    mounts = [e for e in case.warnings.get(pod["metadata"]["name"], ()) if e.get("reason") == "FailedMount"]
    if mounts and pod.get("status", {}).get("phase") == "Pending":
        message = mounts[-1].get("message", "")
        if step := _make_secret(case, message, pod):
            yield index, Kind.SECRET, _mount(message), step


def _make_secret(case: _Case, message: str, pod: Object) -> str:
    """Return the command that makes what is missing, or nothing when the message is about something else."""
    found = _SECRET.search(message)
    if not found:
        return ""
    name = found["name"] or found["of"] or _mounted_secret(pod, "secretName") or "NAME"
    key = found["key"] or found["lost"] or _mounted_secret(pod, "key") or "api-key"
    if found["name"]:
        return f"{case.kubectl} create secret generic {name} --from-file={key}=FILE"
    change = "--dry-run=client -o yaml"
    return f"{case.kubectl} create secret generic {name} --from-file={key}=FILE {change} | {case.kubectl} apply -f -"


def _mounted_secret(pod: Object, what: str) -> str:
    for volume in pod["spec"].get("volumes", ()):
        sources = [volume.get("secret"), *(s.get("secret") for s in volume.get("projected", {}).get("sources", ()))]
        for secret in filter(None, sources):
            items = secret.get("items") or [{}]
            values = {"secretName": secret.get("secretName") or secret.get("name"), "key": items[0].get("key")}
            if values[what]:
                return str(values[what])
    return ""


def _lost_nodes(case: _Case) -> Iterator[Cause]:
    shards: dict[str, list[int]] = {}
    for pod in case.every:
        index = index_of(pod)
        if index is not None and not is_over(pod) and _is_stuck(case, pod):
            shards.setdefault(pod["spec"].get("nodeName", ""), []).append(index)
    for node, indexes in sorted(shards.items()):
        yield Cause(
            Kind.NODE,
            f"node {node} does not answer; its pods are replaced once the cluster gives it up",
            f"kubectl get node {node}; if it is gone for good: kubectl delete node {node}",
            tuple(sorted(indexes)),
        )


def _is_stuck(case: _Case, pod: Object) -> bool:
    if not pod["spec"].get("nodeName"):
        return False
    if deadline := pod["metadata"].get("deletionTimestamp"):
        return case.now - time_of(deadline) > _STUCK
    ready = condition(pod, "Ready", status="False")
    runs = any("running" in status.get("state", {}) for status in statuses(pod))
    unready = any(e.get("reason") == "NodeNotReady" for e in case.warnings.get(pod["metadata"]["name"], ()))
    return bool(ready) and runs and unready


def _died(case: _Case) -> Iterator[Cause]:
    """Shards whose newest pod was killed for memory, or waits for its next try."""
    if condition(case.job, "Complete"):
        return
    yield from _merged(_killed(case))
    gone = parse_indexes(case.job.get("status", {}).get("failedIndexes", ""))
    if condition(case.job, "Failed") or condition(case.job, "FailureTarget") or case.job["spec"].get("suspend"):
        return
    waits: dict[str, dict[int, datetime]] = {}
    for index, pod in sorted(case.pods.items()):
        if index in gone or not is_over(pod) or exit_code(pod) == 0:
            continue
        annotations = pod["metadata"].get("annotations", {})
        tries = sum(int(annotations.get(name, 0)) for name in TRIES)
        until = ended_at(pod) + timedelta(seconds=min(_BACKOFF_MAX_S, _BACKOFF_S * 2**tries))
        if until > case.now:
            waits.setdefault(_code(pod), {})[index] = until
    for code, until_by_index in waits.items():
        first, last = min(until_by_index.values()), max(until_by_index.values())
        when = f"at {_clock(first)}" if first == last else f"from {_clock(first)} to {_clock(last)}"
        shards = tuple(until_by_index)
        step = log_command(case.kubectl, case.run, shards[0])
        yield Cause(Kind.BACKOFF, f"ended with {code} and starts again {when} UTC", step, shards)


def _killed(case: _Case) -> Iterator[tuple[int, Kind, str, str]]:
    last: dict[int, Object] = {}
    for pod in sorted(case.every, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))):
        index = index_of(pod)
        if index is not None and index in case.pods and is_over(pod):
            last[index] = pod
    for index, pod in sorted(last.items()):
        if is_killed_for_memory(pod):
            limit = pod["spec"]["containers"][0].get("resources", {}).get("limits", {}).get("memory", "none")
            peak = case.peaks.get(pod["metadata"]["uid"], 0) >> 20
            told = f", having told of {peak} MiB" if peak else ""
            step = f"runner wait {case.run}; runner retry {case.run} --memory {_twice(limit)}"
            yield index, Kind.MEMORY, f"killed for memory at its limit of {limit}{told}", step


_RULES: tuple[Callable[[_Case], Iterator[Cause]], ...] = (
    _ended,
    _suspended,
    _creation,
    _not_started,
    _lost_nodes,
    _died,
)


def labels(run: str, shard: int) -> str:
    """Return the selector of a shard's pods.

    >>> labels("download-3f9a1c20", 7)
    'batch.kubernetes.io/job-name=download-3f9a1c20,batch.kubernetes.io/job-completion-index=7'
    """
    return f"batch.kubernetes.io/job-name={run},batch.kubernetes.io/job-completion-index={shard}"


def log_command(kubectl: str, run: str, shard: int) -> str:
    """Return the command that shows a shard's logs without this program."""
    return f"{kubectl} logs --tail=-1 -l {labels(run, shard)}"


def is_killed_for_memory(pod: Object) -> bool:
    """Tell whether a pod's container was killed for memory."""
    return (terminated(pod) or {}).get("reason") == "OOMKilled"


def _again(case: _Case, change: str) -> str:
    """Return the commands that end a run which cannot move, and do what it left with something changed."""
    return f"runner cancel {case.run} && runner retry {case.run} {change}"


def _fit(case: _Case, message: str) -> str:
    """Return what helps a pod for which there is no node."""
    if "Insufficient memory" in message:
        change = "--memory SIZE"
    else:
        change = "--placement any" if "affinity" in message or "taint" in message else "--values FILE"
    return f"{case.kubectl} describe nodes | grep -A 8 Allocatable; to ask for less: {_again(case, change)}"


def _twice(quantity: str) -> str:
    """Return twice an amount of memory.

    >>> _twice("2Gi"), _twice("1.5Gi"), _twice("none")
    ('4Gi', 'SIZE', 'SIZE')
    """
    found = re.fullmatch(r"(\d+)([A-Za-z]*)", quantity)
    return f"{2 * int(found[1])}{found[2]}" if found else "SIZE"


def _code(pod: Object) -> str:
    code = exit_code(pod)
    return f"exit {code}" if code is not None else str(pod.get("status", {}).get("reason") or "no exit code")


def _clock(time: datetime) -> str:
    return f"{time.astimezone(UTC):%H:%M:%S}"


def _mount(message: str) -> str:
    """Return the end of a mount's message: what is missing stands there."""
    return _short(message.rsplit(" : ", 1)[-1])


def _short(message: str) -> str:
    one = " ".join(message.split())
    return one if len(one) <= _MESSAGE_CHARS else f"{one[: _MESSAGE_CHARS - 1]}…"
