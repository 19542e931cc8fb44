"""Runs that a controller carries out, a pipeline's, wherever that is: everything is told from the store alone."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from runner import ledger
from runner.backends.sight import Sight
from runner.errors import Exit, SpecError
from runner.run_record import RunRecord
from runner.runs import state
from runner.runs.carry import OfStore
from runner.spec import RunSpec
from runner.spec.resolve import place_words

SILENT = timedelta(seconds=60)
"""Controllers write every ten seconds: one that was silent for so long has died."""
_LOOK_S = 0.5


class Controlled(OfStore):
    """The pipelines of a store. They are begun and taken up by `runner pipeline` alone."""

    def placed(self, spec: RunSpec) -> RunSpec:
        """Return the spec as it is."""
        return spec

    def start(self, record: RunRecord, spec: RunSpec) -> bool:
        """Raise SpecError: not from here."""
        del spec
        words = ["--day", record.request["days"][0], "--store", self._store.url, *place_words(record.spec, anew=True)]
        raise SpecError(f"run {record.id} is a pipeline; go on with it: runner pipeline {shlex.join(words)}")

    def carry_out(
        self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool], look: Callable[[Sight], None]
    ) -> Exit:
        """Raise SpecError: not from here."""
        del stop, look
        self.start(record, spec)
        return Exit.FAILED

    def settle(self, record: RunRecord) -> Sight:
        """Return whether a controller has said anything in the last minute of a pipeline that is not ended."""
        return Sight(alive=state.ending(self._store, record.id) is None and self._heard(record))

    def _heard(self, record: RunRecord) -> bool:
        since = datetime.now(UTC) - SILENT
        attempts = ledger.read_counts(self._store, record.id)
        if not attempts:
            return record.created is not None and record.created >= since
        return any(a.exit is None and a.updated is not None and a.updated >= since for a in attempts)

    def cancel(self, record: RunRecord, spec: RunSpec, stop: Callable[[], bool]) -> None:
        """Wait for the controller, which ends the run of its stage too; where there is none, write the end."""
        del spec
        while self.settle(record).alive:
            if stop():
                return
            time.sleep(_LOOK_S)
        state.finish(self._store, record.id, state.CANCELLED, {})

    def abandon(self, record: RunRecord) -> None:
        """Write the end of a run, asking nobody. Raises SpecError while a controller still writes."""
        if self.settle(record).alive:
            raise SpecError(f"run {record.id}: its controller wrote less than a minute ago; cancel it there")
        state.finish(self._store, record.id, state.CANCELLED, {})
