"""The wait for the export of a day: until it is there or the deadline has passed, told to stop at any time."""

from __future__ import annotations

import time
from datetime import date

from runner.errors import TransientError
from runner.pipeline.export import exports
from runner.pipeline.halt import Halt
from runner.pipeline.journal import Journal
from runner.pipeline.terms import Means, Terms
from runner.spec import RunSpec

_LOOK_S = 0.5


class Wait:
    """The wait of one pass. `unread` are the venues whose catalogue could not be read when it ended."""

    def __init__(self, means: Means, spec: RunSpec, journal: Journal, halt: Halt) -> None:
        self._means, self._spec, self._journal, self._halt = means, spec, journal, halt
        self.unread: tuple[str, ...] = ()

    def exported(self, day: date, terms: Terms) -> bool:
        """Wait for the export of the day until the deadline; tell whether there is any venue's then."""
        deadline, is_told = time.monotonic() + terms.deadline_s, False
        while True:
            venues, all_late = self._late(day)
            left_s = deadline - time.monotonic()
            if not venues:
                return True
            if left_s <= 0:
                self._journal.note(f"export day={day} late venues={','.join(venues)}: the deadline", grave=True)
                return not all_late
            if not is_told:
                self._journal.note(f"export day={day} venues={','.join(venues)}: waiting at most {left_s:.0f} s")
                is_told = True
            self._pause(min(terms.poll_s, left_s))

    def _late(self, day: date) -> tuple[tuple[str, ...], bool]:
        self._means.source.renew()
        try:
            found = exports(self._spec, self._means.tardis)
        except TransientError as e:
            self._journal.note(f"export day={day}: {e}", grave=True)
            return self._spec.venues, True
        self.unread, venues = found.unread, found.late(day)
        return venues, len(venues) == len(found.until)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            if self._halt():
                raise self._halt.drained()
            time.sleep(min(_LOOK_S, left_s))
