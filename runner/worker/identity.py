"""Who this worker is, told by its environment alone."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.errors import SpecError
from runner.spec import RunSpec, tardis_key


@dataclass(frozen=True, slots=True)
class Identity:
    """A worker's place in its run.

    `workers` is how many share this machine; `parent` the process that must live on, 0 where none must;
    `scratch` the directory to make this worker's own in; `own_threads` how many tasks at a time it was given,
    0 where that follows from the machine.
    """

    run: str
    shard: int
    attempt: str
    spec: RunSpec
    key: str | None
    workers: int = 1
    parent: int = 0
    scratch: Path | None = None
    own_threads: int = 0

    @property
    def threads(self) -> int:
        """Return how many tasks this worker does at a time: as given, else its part of the machine's cores."""
        return self.own_threads or max(1, len(os.sched_getaffinity(0)) // self.workers)


def identity(env: Mapping[str, str]) -> Identity:
    """Return who the environment says this worker is. Raises SpecError naming the variable that is wrong."""
    for name in ("RUNNER_RUN", "RUNNER_SPEC", "JOB_COMPLETION_INDEX"):
        if not env.get(name):
            raise SpecError(f"worker: {name} is not set; workers are started by `runner submit` or by a Job")
    scratch = env.get("RUNNER_SCRATCH")
    return Identity(
        run=env["RUNNER_RUN"],
        shard=_count(env, "JOB_COMPLETION_INDEX", 0),
        attempt=env.get("RUNNER_ATTEMPT") or uuid.uuid4().hex,
        spec=RunSpec.from_json(env["RUNNER_SPEC"]),
        key=tardis_key(env),
        workers=max(1, _count(env, "RUNNER_WORKERS", 1)),
        parent=_count(env, "RUNNER_PARENT", 0),
        scratch=Path(scratch) if scratch else None,
        own_threads=_count(env, "RUNNER_THREADS", 0),
    )


def _count(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdecimal():
        raise SpecError(f"worker: {name} is {text!r}, not a whole number from 0")
    return int(text)
