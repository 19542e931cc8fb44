"""What a check is: something a run needs, whether it is there, and the command that mends it where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from runner.errors import RunnerError


class Verdict(StrEnum):
    """What a check found. UNKNOWN: it cannot be known from here, or not with our rights."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One fact that a run needs. `mend` is a command, or in few words what to do; empty where all is well."""

    name: str
    verdict: Verdict
    finding: str
    mend: str = ""


def ok(name: str, finding: str) -> Check:
    """Return a check that found all well."""
    return Check(name, Verdict.OK, finding)


def warn(name: str, finding: str, mend: str) -> Check:
    """Return a check that found what may do harm."""
    return Check(name, Verdict.WARN, finding, mend)


def fail(name: str, finding: str, mend: str) -> Check:
    """Return a check that found what stops a run."""
    return Check(name, Verdict.FAIL, finding, mend)


def unknown(name: str, finding: str, mend: str) -> Check:
    """Return a check that found out nothing; `mend` is how to see for oneself."""
    return Check(name, Verdict.UNKNOWN, finding, mend)


def tried(name: str, work: Callable[[], Check], *, mend: str, otherwise: Verdict = Verdict.FAIL) -> Check:
    """Return the check that `work` makes; an error of ours is itself the finding, with the verdict `otherwise`."""
    try:
        return work()
    except RunnerError as e:
        return Check(name, otherwise, str(e), mend)
