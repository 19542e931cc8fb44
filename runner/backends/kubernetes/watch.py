"""A run's Job, pods and warnings as the cluster has them: looked at once, or kept up to date while a run is followed.

Following is LIST, then WATCH, LIST again when the version is too old; a request a minute and kind, whatever the number
of pods. What a run does is always told by a whole snapshot: a change only makes the next snapshot.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from runner.backends.kubernetes import pods
from runner.backends.kubernetes.client import Changes, Client, GoneError, Listing, Object
from runner.errors import RunnerError, TransientError

_WATCH_S = 50
_LEAST_S = 1.0
_PAUSE_S = (0.5, 5.0)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the cluster had at one moment. `lost` tells why it may be old: the cluster cannot be reached."""

    job: Object | None
    pods: tuple[Object, ...] = ()
    events: tuple[Object, ...] = ()
    lost: str = ""


@dataclass(frozen=True, slots=True)
class _Wanted:
    kind: str
    labels: str = ""
    fields: str = ""
    keep: Callable[[Object], Object] = lambda item: item

    def of(self, client: Client) -> Listing:
        return client.list(self.kind, labels=self.labels, fields=self.fields, keep=self.keep)


def look(client: Client, run: str) -> Snapshot:
    """Return what the cluster has of a run now."""
    return _snapshot(run, {each.kind: each.of(client).items for each in _wanted(run)})


def fold(objects: Mapping[str, Object], change: Object) -> dict[str, Object]:
    """Return the objects by uid with one change of a watch taken in; a bookmark changes none.

    >>> pod = {"metadata": {"uid": "u", "name": "p"}}
    >>> fold({}, {"type": "ADDED", "object": pod}) == {"u": pod}
    True
    >>> fold({"u": pod}, {"type": "DELETED", "object": pod})
    {}
    """
    kind, uid = change["type"], change["object"]["metadata"].get("uid", "")
    if kind == "DELETED":
        return {key: value for key, value in objects.items() if key != uid}
    return {**objects, uid: change["object"]} if kind in ("ADDED", "MODIFIED") else dict(objects)


class Watcher:
    """Keeps a snapshot of one run; a context manager. Entering lists everything once, and fails where that is refused.

    A cluster that does not answer is asked again, from the beginning too.
    """

    def __init__(self, client: Client, run: str) -> None:
        self._run = run
        self._mirrors = [_Mirror(client, each) for each in _wanted(run)]

    def __enter__(self) -> Self:
        try:
            for mirror in self._mirrors:
                mirror.begin()
        except RunnerError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for mirror in self._mirrors:
            mirror.stop()

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot. Raises NotAllowedError when the cluster refuses to be watched."""
        found = {mirror.wanted.kind: mirror.objects() for mirror in self._mirrors}
        lost = next((mirror.lost for mirror in self._mirrors if mirror.lost), "")
        return _snapshot(self._run, found, lost)


class _Mirror:
    """The objects of one kind, as the newest change leaves them. A thread of its own waits for changes."""

    def __init__(self, client: Client, wanted: _Wanted) -> None:
        self.wanted, self._client = wanted, client
        self.lost = ""
        self._objects: dict[str, Object] = {}
        self._version = ""
        self._changes: Changes | None = None
        self._error: RunnerError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def begin(self) -> None:
        try:
            self.list()
        except TransientError as e:
            self.lost = str(e)
        self._thread.start()

    def list(self) -> None:
        found = self.wanted.of(self._client)
        self._objects = {item["metadata"]["uid"]: item for item in found.items}
        self._version = found.version

    def stop(self) -> None:
        self._stop.set()
        if self._changes is not None:
            self._changes.shutdown()
        if self._thread.is_alive():
            self._thread.join(_PAUSE_S[1])

    def objects(self) -> tuple[Object, ...]:
        if self._error is not None:
            raise self._error
        if not self._thread.is_alive() and not self._stop.is_set():
            raise RunnerError(f"the watch of {self.wanted.kind} ended by itself: a bug; run the command again")
        return tuple(self._objects.values())

    def _keep(self) -> None:
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self._watch()
                self.lost, failures = "", 0
                self._stop.wait(max(0.0, _LEAST_S - (time.monotonic() - began)))
            except GoneError:
                self._version = ""
                self._stop.wait(_LEAST_S)
            except TransientError as e:
                self.lost, failures = str(e), failures + 1
                pause = min(_PAUSE_S[1], _PAUSE_S[0] * 2**failures)
                self._stop.wait(pause * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, no secret
            except RunnerError as e:
                self._error = e
                return

    def _watch(self) -> None:
        """Take changes in until the server ends the watch."""
        each = self.wanted
        if not self._version:
            self.list()
        with self._client.watch(
            each.kind, self._version, labels=each.labels, fields=each.fields, seconds=_WATCH_S
        ) as changes:
            self._changes = changes
            self.lost = ""
            for change in changes:
                if self._stop.is_set():
                    return
                self._objects = fold(self._objects, {**change, "object": each.keep(change["object"])})
                self._version = change["object"]["metadata"].get("resourceVersion", self._version)


def _wanted(run: str) -> tuple[_Wanted, ...]:
    return (
        _Wanted("jobs", fields=f"metadata.name={run}"),
        _Wanted("pods", labels=f"batch.kubernetes.io/job-name={run}", keep=pods.lean),
        _Wanted("events", fields="type=Warning", keep=pods.lean_event),
    )


def _snapshot(run: str, found: Mapping[str, Iterable[Object]], lost: str = "") -> Snapshot:
    """Return the snapshot of objects by kind; warnings only of the run's own Job and pods, oldest first."""
    ours = tuple(found["pods"])
    mine = {run, *(pod["metadata"]["name"] for pod in ours)}
    events = (event for event in found["events"] if event.get("involvedObject", {}).get("name") in mine)
    return Snapshot(next(iter(found["jobs"]), None), ours, tuple(sorted(events, key=event_time)), lost)


def event_time(event: Object) -> str:
    """Return when an event was last seen, as the cluster writes times: text that sorts."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
