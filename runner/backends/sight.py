"""What a backend sees of a run beside what the store says: is someone at work on it, and why does it not move."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """Why something does not move: `kind` is of the backend's closed list, `next` the command that helps.

    `shards` are the ones concerned; none means all of them.
    """

    kind: str
    message: str
    next: str
    shards: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a run. `at_work` are the shards that something runs for now, None where that is not known.

    `logs` is the backend's own command for a shard's logs, with `{shard}` in the shard's place.
    """

    alive: bool = True
    causes: tuple[Cause, ...] = ()
    at_work: frozenset[int] | None = None
    logs: str = ""

    def runs(self, shard: int) -> bool:
        """Tell whether something may run for a shard.

        >>> Sight().runs(3), Sight(at_work=frozenset((1,))).runs(3)
        (True, False)
        """
        return self.at_work is None or shard in self.at_work
