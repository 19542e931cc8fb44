"""What a controller of a pipeline is handed, and what it returns of a day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from runner.backends.sight import Sight
from runner.errors import ConfigError, NoStoreError, RunnerError, WorkerExit
from runner.run_record import RunRecord
from runner.runs import Carrier
from runner.spec import RunSpec
from runner.stages.completeness import Lack
from runner.store import Store
from runner.tardis.client import Tardis


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


def is_of_a_day(error: RunnerError) -> bool:
    """Tell whether an error is about a day's own objects, rather than the set-up, the source or the store."""
    is_config = isinstance(error, ConfigError) and not isinstance(error, NoStoreError)
    return is_config or error.worker_exit is WorkerExit.TASKS_FAILED
