"""Every error this program raises on purpose, and the exit codes they end in.

    RunnerError
    ├── SpecError            the request or a flag is wrong            CLI 2   worker 64
    ├── ConfigError          plan, run record or set-up contradict     CLI 1   worker 78
    │   └── NoStoreError     the bucket itself is not there        CLI 5   worker 78
    ├── NotAllowedError      key or permission refused                 CLI 4   worker 77
    │   └── ObjectRefusedError  one object is, though the bucket grants all     worker 65
    ├── NotFoundError        no such run, task, instrument, object     CLI 5   worker 78
    ├── TransientError       the outside failed; another try may work  CLI 1   worker 75
    │   └── IntegrityError   a whole answer came, and it is not the file        worker 65
    ├── SourceError          the source refuses this one task for good CLI 1   worker 65
    ├── IncompleteError      something that is expected is not there   CLI 3   worker 65
    ├── PoisonError          a task whose worker died at it too often  CLI 1   worker 65
    ├── DrainedError         told to stop                              CLI 130 worker 143
    ├── PreconditionError    an object is not at the generation named  CLI 1   worker 70
    └── ConflictError        the store holds another content           CLI 1   worker 65

A message says what failed, on what, why, and what to do. `WORKER_EXITS` is the one table of worker exit codes:
it decides the local backend's retries and what the cluster does with a pod.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INCOMPLETE = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    TIMED_OUT = 6
    INTERRUPTED = 130


class WorkerExit(IntEnum):
    """Exit codes of a worker, the API between a shard and whatever runs it."""

    SETTLED = 0
    BAD_SPEC = 64
    TASKS_FAILED = 65
    BUG = 70
    TRANSIENT = 75
    NOT_ALLOWED = 77
    CONFIG = 78
    DRAINED = 143


class Action(StrEnum):
    """What whoever runs a shard does after an exit code."""

    COMPLETE = "complete"
    FAIL_SHARD = "fail_shard"
    FAIL_RUN = "fail_run"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class ExitRule:
    """One row of the table: a worker's exit code, what it means, what follows."""

    code: WorkerExit
    meaning: str
    action: Action


# In order of precedence: when several apply to one worker, the first in this table wins.
WORKER_EXITS: tuple[ExitRule, ...] = (
    ExitRule(WorkerExit.NOT_ALLOWED, "credentials or permission refused", Action.FAIL_RUN),
    ExitRule(WorkerExit.CONFIG, "plan or configuration contradicts itself", Action.FAIL_RUN),
    ExitRule(WorkerExit.BAD_SPEC, "bad run specification", Action.FAIL_RUN),
    ExitRule(WorkerExit.DRAINED, "told to stop, tasks remain", Action.RETRY),
    ExitRule(WorkerExit.BUG, "a bug in this program", Action.RETRY),
    ExitRule(WorkerExit.TRANSIENT, "the outside failed, try again", Action.RETRY),
    ExitRule(WorkerExit.TASKS_FAILED, "some tasks failed for good", Action.FAIL_SHARD),
    ExitRule(WorkerExit.SETTLED, "every task settled, or pending", Action.COMPLETE),
)


def gravest(codes: set[WorkerExit]) -> WorkerExit:
    """Return the code that wins when several apply.

    >>> gravest({WorkerExit.TRANSIENT, WorkerExit.TASKS_FAILED}).value
    75
    >>> gravest(set()).value
    0
    """
    return next((rule.code for rule in WORKER_EXITS if rule.code in codes), WorkerExit.SETTLED)


def action_for(code: int) -> Action:
    """Return what follows a process exit code; a code outside the table (a signal, a crash) is retried.

    >>> action_for(65), action_for(-9)
    (<Action.FAIL_SHARD: 'fail_shard'>, <Action.RETRY: 'retry'>)
    """
    return next((rule.action for rule in WORKER_EXITS if rule.code == code), Action.RETRY)


class RunnerError(Exception):
    """Base of every error raised on purpose."""

    exit_code = Exit.FAILED
    worker_exit = WorkerExit.BUG


class SpecError(RunnerError):
    """The request, a flag or a configuration value is wrong."""

    exit_code = Exit.USAGE
    worker_exit = WorkerExit.BAD_SPEC


class ConfigError(RunnerError):
    """A plan, a run record or the set-up contradicts itself."""

    worker_exit = WorkerExit.CONFIG


class NoStoreError(ConfigError):
    """The place that is to hold the objects is not there: no empty store, and never made by us."""

    exit_code = Exit.NOT_FOUND


class NotAllowedError(RunnerError):
    """A key or a permission was refused."""

    exit_code = Exit.NOT_ALLOWED
    worker_exit = WorkerExit.NOT_ALLOWED


class ObjectRefusedError(NotAllowedError):
    """The store refuses this one object, though it grants all that is needed; other tasks are not affected."""

    worker_exit = WorkerExit.TASKS_FAILED


class NotFoundError(RunnerError):
    """No such run, task, instrument or object."""

    exit_code = Exit.NOT_FOUND
    worker_exit = WorkerExit.CONFIG


class TransientError(RunnerError):
    """The outside failed in a way that another try may mend."""

    worker_exit = WorkerExit.TRANSIENT


class IntegrityError(TransientError):
    """A whole answer came, but its content is not the file: worth another try, then the task has failed."""

    worker_exit = WorkerExit.TASKS_FAILED


class SourceError(RunnerError):
    """The source refuses this one task for good; other tasks are not affected."""

    worker_exit = WorkerExit.TASKS_FAILED


class IncompleteError(RunnerError):
    """Something that is expected is not there."""

    exit_code = Exit.INCOMPLETE
    worker_exit = WorkerExit.TASKS_FAILED


class PoisonError(RunnerError):
    """A task's worker died, or was interrupted, too often while at it."""

    worker_exit = WorkerExit.TASKS_FAILED


class DrainedError(RunnerError):
    """This process was told to stop."""

    exit_code = Exit.INTERRUPTED
    worker_exit = WorkerExit.DRAINED


class PreconditionError(RunnerError):
    """An object is not at the generation that a write or delete named."""


class ConflictError(RunnerError):
    """The store already holds another content under this key."""

    worker_exit = WorkerExit.TASKS_FAILED
