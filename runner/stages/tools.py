"""What a stage is handed to do a task with: the network and the disk, and nothing that is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runner.spec import RunSpec
from runner.stages.commit import Mode
from runner.stages.expected import exchanges_of
from runner.stages.instruments import Catalogues
from runner.stages.reasons import Reasons
from runner.store import Store
from runner.tardis.client import Tardis


@dataclass(frozen=True, slots=True)
class Tools:
    """A worker's tools. `scratch` is an empty directory of this worker alone; `spec` is the request it works for.

    `reasons` and `catalogues` are read once for all threads, when first asked.
    """

    store: Store
    tardis: Tardis
    scratch: Path
    mode: Mode = Mode.KEEP
    deep: bool = False
    spec: RunSpec = field(default_factory=RunSpec)
    reasons: Reasons = field(init=False)
    catalogues: Catalogues = field(init=False)

    def __post_init__(self) -> None:
        first, last = self.spec.start_date, self.spec.end_date or self.spec.start_date
        days = (first, last) if first and last else None
        object.__setattr__(self, "reasons", Reasons(self.store, days))
        object.__setattr__(self, "catalogues", Catalogues(self.tardis, exchanges_of(self.spec)))
