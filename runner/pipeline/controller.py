"""A day of a pipeline, step after step. Killed anywhere, the next controller finds what was done and goes on after it.

Nothing of where it is stands in memory alone: a step's run has one id for each pass, so that asking again finds it, at
work or ended; whether there is anything to do for a step without a run, the store tells.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum

from runner import ledger, plan, runs
from runner.backends.sight import Sight
from runner.errors import (
    Action,
    ConfigError,
    DrainedError,
    Exit,
    IncompleteError,
    NoStoreError,
    NotAllowedError,
    RunnerError,
    TransientError,
    WorkerExit,
    action_for,
)
from runner.ledger import RunRecord
from runner.pipeline import judge, record
from runner.pipeline.export import exports
from runner.pipeline.journal import Journal
from runner.pipeline.steps import STEPS, Step, parent
from runner.runs import Carrier, Watch
from runner.runs.request import request_of
from runner.runs.state import CANCELLED, FINISHED
from runner.runs.submit import State, latest_pass, submit
from runner.spec import RunSpec, Selection
from runner.stages import completeness, expected, sealing
from runner.stages.completeness import Lack
from runner.store import Store
from runner.tardis.client import Tardis
from runner.task import Entry, Outcome, Stage

log = logging.getLogger(__name__)
_LOOK_S = 0.5
_CANCEL_LOOK_S = 1.0


class Verdict(StrEnum):
    """What became of a day. NOTHING: nothing was to do. PENDING: what it lacks, the source has not exported."""

    NOTHING = "nothing to do"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    PENDING = "pending"
    REFUSED = "refused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Terms:
    """How long the export of a day is waited for and how often it is asked after, and whether the gate stands open."""

    deadline_s: float
    poll_s: float
    allow_incomplete: bool = False


class Source:
    """The source as it is now: a client reads each catalogue once, and a controller waits for them to change."""

    def __init__(self, connect: Callable[[], Tardis]) -> None:
        self._connect = connect
        self.tardis = connect()

    def renew(self) -> None:
        """Forget the catalogues that were read."""
        self.tardis.close()
        self.tardis = self._connect()


@dataclass(frozen=True, slots=True)
class Means:
    """What a controller is handed: the store, the source, who carries runs out, whether to stop, who looks on."""

    store: Store
    source: Source
    carrier_of: Callable[[RunRecord, RunSpec], Carrier]
    stop: Callable[[], bool]
    shown: Callable[[RunRecord], Callable[[Sight], None]]

    @property
    def tardis(self) -> Tardis:
        """Return the client of the moment."""
        return self.source.tardis


@dataclass(frozen=True, slots=True)
class DayEnd:
    """What became of a day, in which run, and what it lacks. `why` is what stopped it, where something did."""

    day: date
    verdict: Verdict
    run: str | None = None
    lacks: tuple[Lack, ...] = ()
    why: str = ""


def run_days(means: Means, spec: RunSpec, terms: Terms, days: Sequence[date]) -> Iterator[DayEnd]:
    """Bring each day as far as it comes, in order, and yield what became of it; a refused key ends them all.

    A day is done when it lacks anything, or when its last pass is not ended. On days before the last one nothing need
    be listed. What is wrong with the objects of one day is no matter of the days after it. Raises DrainedError when
    told to stop: the pass stays as it is, and so do its runs.
    """
    end_s = time.monotonic() + terms.deadline_s
    for day in days:
        left = replace(terms, deadline_s=max(0.0, end_s - time.monotonic()))  # one wait for all
        try:
            end = _run_day(means, spec, left, day, may_be_empty=day != days[-1])
        except RunnerError as e:
            if not _is_of_a_day(e):
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
        expected.refuse_nothing(spec, [there])
    if is_whole and not place.is_begun:
        log.info("pipeline day=%s verdict=%s: nothing to do", day, Verdict.COMPLETE)
        return DayEnd(day, Verdict.NOTHING)
    return Pass(means, spec, terms, record.begin(spec, means.store, day, place)).run()


def _is_of_a_day(error: RunnerError) -> bool:
    """Tell whether an error is about a day's own objects, rather than the set-up, the source or the store."""
    is_config = isinstance(error, ConfigError) and not isinstance(error, NoStoreError)
    return is_config or error.worker_exit is WorkerExit.TASKS_FAILED


class Pass:
    """One controller's attempt at one pass over one day."""

    def __init__(self, means: Means, spec: RunSpec, terms: Terms, run: RunRecord) -> None:
        self._means, self._spec, self._able, self._terms, self._run = means, spec, spec, terms, run
        self._day = date.fromisoformat(run.request["days"][0])
        self._task = record.task_of(self._day)
        self._journal = Journal(means.store, run, self._task, uuid.uuid4().hex[:12])
        self._asked = float("-inf")
        self._is_cancelled = False
        self._unread: tuple[str, ...] = ()

    def run(self) -> DayEnd:
        """Bring the day as far as it comes, or find that somebody has; return what became of it."""
        if is_walked := runs.ending(self._means.store, self._run.id) is None:
            try:
                self._journal.note(f"pipeline day={self._day} run={self._run.id}")
                self._journal.beat()
                self._end(tuple(self._walk()))
            except RunnerError as e:
                self._break(e)
                if not self._is_cancelled and not isinstance(e, NotAllowedError):
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
        if not self._exported():
            yield self._unexported()
            return
        self._able = self._without_unread()
        for step in STEPS:
            try:
                self._step(step)
            except RunnerError as e:
                if not step.beside or not _is_of_a_day(e):
                    raise
                self._journal.note(f"step={step.name} day={self._day + timedelta(days=step.beside)}: {e}", grave=True)
        yield from self._lacks()

    def _without_unread(self) -> RunSpec:
        """Return the request for the steps: without the venues of which nobody can tell now what they list that day."""
        out = [v for v in self._unread if not judge.is_known(self._means.store, self._day, v)]
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
            if not _is_of_a_day(e):
                raise
            yield Lack(day, "*", "*", 0, "*", str(e), f"runner pipeline --day {day} --store {self._means.store.url}")

    def _exported(self) -> bool:
        """Wait for the export of the day until the deadline; tell whether there is any venue's then."""
        deadline, is_told = time.monotonic() + self._terms.deadline_s, False
        while True:
            venues, all_late = self._late()
            left_s = deadline - time.monotonic()
            if not venues:
                return True
            if left_s <= 0:
                self._journal.note(f"export day={self._day} late venues={','.join(venues)}: the deadline", grave=True)
                return not all_late
            if not is_told:
                self._journal.note(f"export day={self._day} venues={','.join(venues)}: waiting at most {left_s:.0f} s")
                is_told = True
            self._pause(min(self._terms.poll_s, left_s))

    def _late(self) -> tuple[tuple[str, ...], bool]:
        self._means.source.renew()
        try:
            found = exports(self._spec, self._means.tardis)
        except TransientError as e:
            self._journal.note(f"export day={self._day}: {e}", grave=True)
            return self._spec.venues, True
        self._unread, venues = found.unread, found.late(self._day)
        return venues, len(venues) == len(found.until)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            self._journal.beat()
            if self._stopped():
                raise DrainedError(f"pipeline {self._run.id}: told to stop")
            time.sleep(min(_LOOK_S, left_s))

    def _stopped(self) -> bool:
        """Tell whether this process was told to stop, or somebody cancelled the pass; that is asked once a second.

        And once a step: a step that is begun after the cancelling would be one too many.
        """
        if time.monotonic() - self._asked >= _CANCEL_LOOK_S:
            self._asked = time.monotonic()
            self._is_cancelled = runs.cancelled(self._means.store, self._run.id)
        return self._is_cancelled or self._means.stop()

    def _step(self, step: Step) -> None:
        """Have the run of a step brought to its end, where there is one or something for one to do."""
        day = self._day + timedelta(days=step.beside)
        self._asked = float("-inf")
        if self._stopped():
            raise DrainedError(f"pipeline {self._run.id}: told to stop")
        spec = self._of_step(step, day)
        if spec is None:
            return
        store, carrier_of = self._means.store, self._means.carrier_of
        found = submit(spec, store, self._means.tardis, lambda known: carrier_of(known, spec).settle(known), once=True)
        if found.record is None or found.state is State.NOTHING:
            self._journal.note(f"step={step.name} day={day}: nothing to do")
            return
        verdict = self._carried_out(step, found.record, spec)
        self._journal.note(f"step={step.name} day={day} run={found.record.id} exit={int(verdict)}")

    def _carried_out(self, step: Step, known: RunRecord, spec: RunSpec) -> Exit:
        """Bring a step's run to its end; return its verdict. Raises NotAllowedError where it was refused."""
        store, shown = self._means.store, self._means.shown(known)
        if runs.ending(store, known.id) is not None:
            verdict = runs.verdict(store, known)
        else:
            self._journal.note(f"step={step.name} run={known.id} tasks={known.tasks} shards={known.shards}")

            def look(sight: Sight) -> None:
                self._journal.beat()
                shown(sight)

            verdict = self._means.carrier_of(known, spec).carry_out(known, spec, self._stopped, look)
            if verdict is Exit.INTERRUPTED and runs.ending(store, known.id) is None:
                self._left(known, spec)
        if verdict is Exit.NOT_ALLOWED:
            failures = Watch(store, known).status(Sight(alive=False)).failures
            raise NotAllowedError(f"run {known.id}: {failures[0].error if failures else 'refused'}")
        return verdict

    def _left(self, known: RunRecord, spec: RunSpec) -> None:
        """End the step's run too where the pass was cancelled, then stop; otherwise it goes on, or is resumed."""
        if self._is_cancelled and runs.cancel(self._means.store, known.id):
            self._means.carrier_of(known, spec).cancel(known, spec, self._means.stop)
        raise DrainedError(f"pipeline {self._run.id}: told to stop; run {known.id} is taken up by the next one")

    def _of_step(self, step: Step, day: date) -> RunSpec | None:
        """Return the request of a step, the same for every controller of this pass; None where it has nothing to do."""
        own = {"stage": step.stage, "start_date": day, "end_date": day, "parent": parent(self._run.id, step)}
        spec = self._able.model_copy(update={**own, "select": Selection.MISSING})
        if step.is_gated:
            return self._gated(spec, day)
        if step.beside and not self._is_to_be_judged(spec, day):
            return None
        return spec

    def _gated(self, spec: RunSpec, day: date) -> RunSpec | None:
        """Return the request for those venues alone that the gate lets through and that candles come of."""
        store = self._means.store
        there = judge.stored(spec, store, day)
        if there is None:
            return None
        shut: dict[str, list[Lack]] = {}
        for lack in () if self._terms.allow_incomplete else completeness.gate(spec, store, there):
            shut.setdefault(lack.venue, []).append(lack)
        for venue, found in shut.items():
            why = "; ".join(f"{lack.data_type} {lack.key}: {lack.reason}" for lack in found)
            self._journal.note(f"gate day={day} venue={venue} refused: {why}", grave=True)
        able = {task.key.split(":", 1)[0] for task in sealing.candle_tasks(store, [there])} - shut.keys()
        return spec.model_copy(update={"venues": tuple(v for v in spec.venues if v in able)}) if able else None

    def _is_to_be_judged(self, spec: RunSpec, day: date) -> bool:
        """Tell whether a day beside is to be validated again: this pass has begun to, or its records hold no more."""
        store = self._means.store
        if latest_pass(store, plan.run_id(spec.stage, request_of(spec, store.url, (day, day)))):
            return True
        there = judge.stored(spec, store, day)
        return there is not None and any(lack.is_stale for lack in completeness.lacks(spec, store, there))

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
            if self._is_cancelled:
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
