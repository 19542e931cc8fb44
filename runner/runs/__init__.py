"""Runs: a request's states, what is true of a run, and carrying it out."""

from runner.runs.carry import Local
from runner.runs.request import Draft, draft, tardis_of
from runner.runs.state import (
    Ending,
    Failure,
    RunState,
    RunStatus,
    ShardState,
    ShardStatus,
    Watch,
    cancel,
    clean,
    ending,
    logs,
    verdict,
)
from runner.runs.submit import State, Submission, create, submit

__all__ = [
    "Draft",
    "Ending",
    "Failure",
    "Local",
    "RunState",
    "RunStatus",
    "ShardState",
    "ShardStatus",
    "State",
    "Submission",
    "Watch",
    "cancel",
    "clean",
    "create",
    "draft",
    "ending",
    "logs",
    "submit",
    "tardis_of",
    "verdict",
]
