"""The logs of a run on a cluster: of its pods while these are there, of the store where they are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from runner.backends.kubernetes import pods
from runner.backends.kubernetes.client import Client, Object
from runner.errors import ConfigError, TransientError
from runner.runs.tail import LogQuery, LogText, StoreLogs
from runner.store import Store

PACE_S = 1.0
_AT_ONCE = 5
"""So many pods that still run are read in a round, those first that were not read for longest."""
_KNOWN_LINES = 50

log = logging.getLogger(__name__)


class PodLogs:
    """Reads again and again what is new. An attempt's id is its pod's uid, and its log in the store has the same lines.

    `pause` waits, and tells whether to stop.
    """

    def __init__(
        self, store: Store, connect: Callable[[], Client], run: str, query: LogQuery, pause: Callable[[float], bool]
    ) -> None:
        self._connect, self._run, self._query, self._pause = connect, run, query, pause
        self._stored = StoreLogs(store, run, query)
        self._since: dict[str, str] = {}
        self._last: dict[str, list[str]] = {}
        self._read_at: dict[str, int] = {}
        self._there: frozenset[str] = frozenset()
        self._whole: set[str] = set()
        self._from_store: set[str] = set()
        self._rounds = 0
        self._is_lost = False

    def new(self) -> Iterator[LogText]:
        """Yield what is new since the last call. Only the first one asks for more than one pod a second."""
        for pod in self._chosen(self._pods()):
            if self._rounds and self._pause(PACE_S):
                return
            if text := self._text(pod):
                yield text
        self._rounds += 1
        for each in self._stored.new(without=self._there | self._whole):
            self._from_store.add(each.attempt)
            if text := self._after_known(each):
                yield text

    def _pods(self) -> tuple[Object, ...]:
        try:
            labels = f"batch.kubernetes.io/job-name={self._run}"
            found = self._connect().list("pods", labels=labels, keep=pods.lean).items
        except (ConfigError, TransientError) as e:
            self._lose(e)
            return ()
        self._is_lost = False
        self._there = frozenset(pod["metadata"]["uid"] for pod in found) - self._from_store
        return found

    def _lose(self, error: Exception) -> None:
        """Say once, not each second, that pods cannot be read."""
        if not self._is_lost:
            log.warning("logs of pods are not read, only those of the store: %s", error)
        self._is_lost = True

    def _chosen(self, found: tuple[Object, ...]) -> list[Object]:
        wanted = [pod for pod in found if self._wanted(pod)]
        if not self._rounds:
            return sorted(wanted, key=lambda pod: (pods.index_of(pod) or 0, pod["metadata"]["creationTimestamp"]))
        at_work = [pod for pod in wanted if not pods.is_over(pod)]
        at_work.sort(key=lambda pod: self._read_at.get(pod["metadata"]["uid"], -1))
        return [pod for pod in wanted if pods.is_over(pod)] + at_work[:_AT_ONCE]

    def _wanted(self, pod: Object) -> bool:
        index, uid = pods.index_of(pod), pod["metadata"]["uid"]
        if index is None or self._query.shard not in (None, index) or uid in self._whole | self._from_store:
            return False
        if pod.get("status", {}).get("phase") == "Pending":
            return False
        return not self._query.failed or (pods.is_over(pod) and pods.exit_code(pod) != 0)

    def _text(self, pod: Object) -> LogText | None:
        uid, since = pod["metadata"]["uid"], self._since.get(pod["metadata"]["uid"], "")
        self._read_at[uid] = self._rounds
        try:
            body = self._connect().log(pod["metadata"]["name"], since=since)
        except TransientError as e:
            self._lose(e)
            return None
        if body is None:
            # It is there and has no log, as when its node is gone: the store may know more.
            self._there -= {uid}
            return None
        if pods.is_over(pod):
            self._whole.add(uid)
        # The cluster takes whole seconds: what stands before the last line seen comes again.
        stamped = [line.partition(" ") for line in body.splitlines()]
        fresh = [(at, text) for at, _, text in stamped if at > since]
        if not fresh:
            return None
        self._since[uid] = fresh[-1][0]
        self._last[uid] = [*self._last.get(uid, ()), *(text for _, text in fresh)][-_KNOWN_LINES:]
        return LogText(pods.index_of(pod) or 0, uid, "".join(f"{text}\n" for _, text in fresh))

    def _after_known(self, each: LogText) -> LogText | None:
        """Return what the store has of a log after the last line that was read of its pod."""
        known, lines = set(self._last.pop(each.attempt, ())), each.text.splitlines(keepends=True)
        last = max((n for n, line in enumerate(lines) if line.rstrip("\n") in known), default=-1)
        rest = "".join(lines[last + 1 :])
        return LogText(each.shard, each.attempt, rest) if rest else None
