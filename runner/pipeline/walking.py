"""A step of a pass: the run that does it, found or submitted, and brought to its end."""

from __future__ import annotations

from datetime import date, timedelta

from runner import plan, runs
from runner.backends.sight import Sight
from runner.errors import Exit, NotAllowedError
from runner.pipeline import judge
from runner.pipeline.halt import Halt
from runner.pipeline.journal import Journal
from runner.pipeline.steps import Step, parent
from runner.pipeline.terms import Means
from runner.run_record import RunRecord
from runner.runs import Watch
from runner.runs.request import request_of
from runner.runs.submit import State, latest_pass, submit
from runner.spec import RunSpec, Selection
from runner.stages import completeness, sealing
from runner.stages.completeness import Lack


class Walk:
    """The steps of one pass over a day, done in whatever order they are asked for."""

    def __init__(self, means: Means, run: RunRecord, journal: Journal, halt: Halt, *, allow_incomplete: bool) -> None:
        self._means, self._run, self._journal, self._halt = means, run, journal, halt
        self._day = date.fromisoformat(run.request["days"][0])
        self._allow_incomplete = allow_incomplete

    def do(self, step: Step, request: RunSpec) -> None:
        """Have the run of a step brought to its end, where there is one or something for one to do."""
        day = self._day + timedelta(days=step.beside)
        self._halt.check()
        spec = self._of_step(step, request, day)
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
        store = self._means.store
        if runs.ending(store, known.id) is not None:
            verdict = runs.verdict(store, known)
        else:
            self._journal.note(f"step={step.name} run={known.id} tasks={known.tasks} shards={known.shards}")
            verdict = self._means.carrier_of(known, spec).carry_out(known, spec, self._halt, self._means.shown(known))
            if verdict is Exit.INTERRUPTED and runs.ending(store, known.id) is None:
                self._left(known, spec)
        if verdict is Exit.NOT_ALLOWED:
            failures = Watch(store, known).status(Sight(alive=False)).failures
            raise NotAllowedError(f"run {known.id}: {failures[0].error if failures else 'refused'}")
        return verdict

    def _left(self, known: RunRecord, spec: RunSpec) -> None:
        """End the step's run too where the pass was cancelled, then stop; otherwise it goes on, or is resumed."""
        if self._halt.is_cancelled and runs.cancel(self._means.store, known.id):
            self._means.carrier_of(known, spec).cancel(known, spec, self._means.stop)
        raise self._halt.drained(f"; run {known.id} is taken up by the next one")

    def _of_step(self, step: Step, request: RunSpec, day: date) -> RunSpec | None:
        """Return the request of a step, the same for every controller of this pass; None where it has nothing to do."""
        own = {"stage": step.stage, "start_date": day, "end_date": day, "parent": parent(self._run.id, step)}
        spec = request.model_copy(update={**own, "select": Selection.MISSING})
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
        for lack in () if self._allow_incomplete else completeness.gate(spec, store, there):
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
