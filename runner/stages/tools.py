"""What a stage is handed to do a task with: the network and the disk, and nothing that is read from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.stages.commit import Mode
from runner.store import Store
from runner.tardis.client import Tardis


@dataclass(frozen=True, slots=True)
class Tools:
    """A worker's tools. `scratch` is an empty directory of this worker alone."""

    store: Store
    tardis: Tardis
    scratch: Path
    mode: Mode = Mode.KEEP
    deep: bool = False
