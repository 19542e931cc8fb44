"""A day of a pipeline, step after step. Killed anywhere, the next controller finds what was done and goes on after it.

Nothing of where it is stands in memory alone: a step's run has one id for each pass, so that asking again finds it, at
work or ended; whether there is anything to do for a step without a run, the store tells.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta

from runner import ledger, runs
from runner.errors import Action, IncompleteError, NotAllowedError, RunnerError, WorkerExit, action_for
from runner.pipeline import judge, record
from runner.pipeline.halt import Halt
from runner.pipeline.journal import Journal
from runner.pipeline.steps import STEPS
from runner.pipeline.terms import DayEnd, Means, Terms, Verdict, is_of_a_day
from runner.pipeline.waiting import Wait
from runner.pipeline.walking import Walk
from runner.run_record import RunRecord
from runner.runs.state import CANCELLED, FINISHED
from runner.spec import RunSpec
from runner.stages import completeness, expected
from runner.stages.completeness import Lack
from runner.task import Entry, Outcome, Stage

log = logging.getLogger(__name__)


def run_days(means: Means, spec: RunSpec, terms: Terms, days: Sequence[date]) -> Iterator[DayEnd]:
    """Bring each day as far as it comes, in order, and yield what became of it; a refused key ends them all.

    A day is taken up when it lacks anything, or when its last pass is not ended. On days before the last one nothing
    need be listed. What is wrong with the objects of one day is no matter of the days after it. Raises DrainedError
    when told to stop: the pass stays as it is, and so do its runs.
    """
    end_s = time.monotonic() + terms.deadline_s
    for day in days:
        left = replace(terms, deadline_s=max(0.0, end_s - time.monotonic()))  # one wait for all
        try:
            end = _run_day(means, spec, left, day, may_be_empty=day != days[-1])
        except RunnerError as e:
            if not is_of_a_day(e):
                raise
            log.error("pipeline day=%s verdict=%s: %s", day, Verdict.INCOMPLETE, e)
            end = DayEnd(day, Verdict.INCOMPLETE, why=str(e))
        yield end
        if end.verdict in (Verdict.REFUSED, Verdict.CANCELLED):
            return


def _run_day(means: Means, spec: RunSpec, terms: Terms, day: date, *, may_be_empty: bool) -> DayEnd:
    means.source.renew()
    place = record.find(spec, means.store, day, allow_incomplete=terms.allow_incomplete)
    there = judge.look(spec, means.store, means.tardis, day)
    is_whole = judge.is_whole(spec, means.store, means.tardis, there)
    if not may_be_empty and (there.tasks or is_whole):
        expected.refuse_nothing(spec, [there], may_lose=True)
    if is_whole and not place.is_begun:
        log.info("pipeline day=%s verdict=%s: nothing to do", day, Verdict.COMPLETE)
        return DayEnd(day, Verdict.NOTHING)
    return Pass(means, spec, terms, record.begin(spec, means.store, day, place)).run()


class Pass:
    """One controller's attempt at one pass over one day."""

    def __init__(self, means: Means, spec: RunSpec, terms: Terms, run: RunRecord) -> None:
        self._means, self._spec, self._terms, self._run = means, spec, terms, run
        self._day = date.fromisoformat(run.request["days"][0])
        self._task = record.task_of(self._day)
        self._journal = Journal(means.store, run, self._task, uuid.uuid4().hex[:12])
        self._halt = Halt(means.store, run.id, means.stop)

    def run(self) -> DayEnd:
        """Bring the day as far as it comes, or find that somebody has; return what became of it."""
        if is_walked := runs.ending(self._means.store, self._run.id) is None:
            try:
                self._journal.note(f"pipeline day={self._day} run={self._run.id}")
                with self._journal.at_work():
                    lacks = tuple(self._walk())
                self._end(lacks)
            except RunnerError as e:
                self._break(e)
                if not self._halt.is_cancelled and not isinstance(e, NotAllowedError):
                    raise
        end = self._told()
        venues = f" venues={','.join(dict.fromkeys(lack.venue for lack in end.lacks))}" if end.lacks else ""
        grave = end.verdict is not Verdict.COMPLETE
        self._journal.note(f"pipeline day={self._day} verdict={end.verdict}{venues}", grave=grave)
        if is_walked:
            self._journal.flush()
        return end

    def _walk(self) -> Iterator[Lack]:
        """Do every step and return what the day lacks thereafter."""
        wait = Wait(self._means, self._spec, self._journal, self._halt)
        if not wait.exported(self._day, self._terms):
            yield self._unexported()
            return
        spec = self._without(wait.unread)
        walk = Walk(self._means, self._run, self._journal, self._halt, allow_incomplete=self._terms.allow_incomplete)
        for step in STEPS:
            try:
                walk.do(step, spec)
            except RunnerError as e:
                if not step.beside or not is_of_a_day(e):
                    raise
                self._journal.note(f"step={step.name} day={self._day + timedelta(days=step.beside)}: {e}", grave=True)
        yield from self._lacks()

    def _without(self, unread: tuple[str, ...]) -> RunSpec:
        """Return the request for the steps: without the venues of which nobody can tell now what they list that day."""
        out = [v for v in unread if not judge.is_known(self._means.store, self._day, v)]
        if out:
            self._journal.note(f"export day={self._day} unknown venues={','.join(out)}: no catalogue", grave=True)
        return self._spec.model_copy(update={"venues": tuple(v for v in self._spec.venues if v not in out)})

    def _unexported(self) -> Lack:
        """Return what a day lacks of which nothing is exported."""
        again = f"runner pipeline --day {self._day} --store {self._means.store.url}"
        venues = ",".join(self._spec.venues)
        lack = Lack(self._day, venues, "*", 0, "*", "pending: not exported yet", again, is_pending=True)
        return completeness.placed(lack, self._spec)

    def _lacks(self) -> Iterator[Lack]:
        return (completeness.placed(lack, self._spec) for lack in self._found())

    def _found(self) -> Iterator[Lack]:
        means = self._means
        there = judge.look(self._spec, means.store, means.tardis, self._day)
        yield from judge.lacks(self._spec, means.store, means.tardis, there)
        for beside in sorted({step.beside for step in STEPS} - {0}):
            yield from self._behind(self._day + timedelta(days=beside))

    def _behind(self, day: date) -> Iterator[Lack]:
        try:
            yield from judge.behind(self._spec, self._means.store, day)
        except RunnerError as e:
            if not is_of_a_day(e):
                raise
            yield Lack(day, "*", "*", 0, "*", str(e), f"runner pipeline --day {day} --store {self._means.store.url}")

    def _end(self, lacks: tuple[Lack, ...]) -> None:
        entry = Entry(self._task.id, str(Stage.PIPELINE), Outcome.DONE, {"lacks": len(lacks)})
        if lacks and all(lack.is_pending for lack in lacks):
            entry = Entry(self._task.id, str(Stage.PIPELINE), Outcome.PENDING, {"lacks": len(lacks)})
        elif lacks:
            first, more = lacks[0], f"; and {len(lacks) - 1} more" if len(lacks) > 1 else ""
            what = f"{first.day} {first.venue} {first.data_type} {first.key}: {first.reason}"
            entry = ledger.failure(entry, IncompleteError(f"{what}; {first.command}{more}"))
        code = WorkerExit.TASKS_FAILED if entry.outcome is Outcome.FAILED else WorkerExit.SETTLED
        self._journal.end(code, [entry])
        runs.finish(self._means.store, self._run.id, FINISHED, {0: int(code)})

    def _break(self, error: RunnerError) -> None:
        """Write what stopped this controller; the pass ends with it only where another try would meet the same."""
        code = error.worker_exit
        if action_for(code) is not Action.FAIL_RUN:
            self._journal.end(code, error=str(error))
            if self._halt.is_cancelled:
                runs.finish(self._means.store, self._run.id, CANCELLED, {})
            return
        blank = Entry(self._task.id, str(Stage.PIPELINE), Outcome.FAILED)
        self._journal.end(code, [ledger.failure(blank, error)], error=str(error))
        runs.finish(self._means.store, self._run.id, FINISHED, {0: int(code)})

    def _told(self) -> DayEnd:
        """Return what the store says of the ended pass, whoever ended it."""
        store, run = self._means.store, self._run.id
        how = runs.ending(store, run)
        found = ledger.fold(ledger.read_attempts(store, run)).entries.get((self._task.id, str(Stage.PIPELINE)))
        if how is not None and how.state == CANCELLED:
            return DayEnd(self._day, Verdict.CANCELLED, run, why="cancelled")
        if found is not None and found.outcome is Outcome.DONE:
            return DayEnd(self._day, Verdict.COMPLETE, run)
        why = str(found.facts.get("error", "")) if found else ""
        if how is not None and int(WorkerExit.NOT_ALLOWED) in how.exits.values():
            return DayEnd(self._day, Verdict.REFUSED, run, why=why)
        is_pending = found is not None and found.outcome is Outcome.PENDING
        lacks = tuple(self._lacks())
        if is_pending and not any(lack.is_pending for lack in lacks):
            lacks = (self._unexported(),)
        return DayEnd(self._day, Verdict.PENDING if is_pending else Verdict.INCOMPLETE, run, lacks, why)
