"""What a controller writes of itself while it is at work."""

import threading
from datetime import date

import pytest

from runner import ledger
from runner.errors import TransientError, WorkerExit
from runner.pipeline import journal, record
from runner.pipeline.journal import Journal
from runner.run_record import RunRecord
from runner.store.memory import MemoryStore


class Heard(MemoryStore):
    """Counts the times that progress was written, and fails the second of them."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.times, self.often = 0, threading.Event()

    def put(self, key, body, **more):
        if "/progress/" in key:
            self.times += 1
            if self.times == 2:
                raise TransientError("the store is away")
            if self.times == 5:
                self.often.set()
        return super().put(key, body, **more)


def test_somebody_is_heard_of_whatever_he_does_and_though_the_store_was_away(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "BEAT_S", 0.001)
    store = Heard(request.node.name)
    task = record.task_of(date(2024, 8, 8))
    run = RunRecord("pipeline-1", {}, {}, ledger.pin(b""), ())
    notes = Journal(store, run, task, "a")
    notes.note("begun")
    with notes.at_work():
        assert store.often.wait(60)
    (attempt,) = ledger.read_attempts(store, run.id)
    assert (attempt.exit, attempt.in_flight) == (None, (task.id,))
    heard = store.times
    notes.note("ended")
    notes.end(WorkerExit.SETTLED)
    assert store.times == heard
    (log,) = store.list("_runs/pipeline-1/logs/")
    assert [line.rsplit(" ", 1)[1] for line in store.get(log.key).decode().splitlines()] == ["begun", "ended"]
