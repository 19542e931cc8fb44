"""Runs: a request's states, what is true of a run, and carrying it out."""

from runner.runs.carry import Carrier, Local, follow
from runner.runs.cluster import Cluster
from runner.runs.controlled import Controlled
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
    cancelled,
    clean,
    ending,
    finish,
    verdict,
)
from runner.runs.submit import State, Submission, commit, create, latest_pass, submit
from runner.runs.tail import LogQuery, LogText, StoreLogs

__all__ = [
    "Carrier",
    "Cluster",
    "Controlled",
    "Draft",
    "Ending",
    "Failure",
    "Local",
    "LogQuery",
    "LogText",
    "RunState",
    "RunStatus",
    "ShardState",
    "ShardStatus",
    "State",
    "StoreLogs",
    "Submission",
    "Watch",
    "cancel",
    "cancelled",
    "clean",
    "commit",
    "create",
    "draft",
    "ending",
    "finish",
    "follow",
    "latest_pass",
    "submit",
    "tardis_of",
    "verdict",
]
