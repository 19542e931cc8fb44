"""Runs: what is true of one, and carrying it out. How a request becomes one is told by `request` and `submit`."""

from runner.runs.carry import Carrier, Local, follow
from runner.runs.cluster import Cluster
from runner.runs.controlled import Controlled
from runner.runs.source import tardis_of
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
from runner.runs.tail import LogQuery, LogText, StoreLogs

__all__ = [
    "Carrier",
    "Cluster",
    "Controlled",
    "Ending",
    "Failure",
    "Local",
    "LogQuery",
    "LogText",
    "RunState",
    "RunStatus",
    "ShardState",
    "ShardStatus",
    "StoreLogs",
    "Watch",
    "cancel",
    "cancelled",
    "clean",
    "ending",
    "finish",
    "follow",
    "tardis_of",
    "verdict",
]
