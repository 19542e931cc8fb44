"""What a stage is handed to do a task with: the network and the disk, and nothing that is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from runner.stages.commit import Mode
from runner.stages.reasons import Reasons
from runner.store import Store
from runner.tardis.client import Tardis


@dataclass(frozen=True, slots=True)
class Tools:
    """A worker's tools. `scratch` is an empty directory of this worker alone; `reasons` are read once per worker."""

    store: Store
    tardis: Tardis
    scratch: Path
    mode: Mode = Mode.KEEP
    deep: bool = False
    reasons: Reasons = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reasons", Reasons(self.store))
