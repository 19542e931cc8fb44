"""A run's status as text: one line, or a screen that fits its terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.logs import escape
from runner.report import grid, units
from runner.runs import Failure, RunState, RunStatus, ShardState, ShardStatus

FAILURES_SHOWN = 5
_SHARDS_SHOWN = 3
_PLACES = {
    ShardState.WAITING: grid.State.WAITING,
    ShardState.RUNNING: grid.State.RUNNING,
    ShardState.RETRYING: grid.State.RETRIED,
    ShardState.DONE: grid.State.DONE,
    ShardState.FAILED: grid.State.FAILED,
}
Places = Callable[[str], str]
"""The options that lead a command, by its name, to a run: its file, store, source and cluster."""
# Lines of a screen that are not grid: the head, the legend, an empty one.
_OTHER_LINES = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a run goes, as seen by one viewer: bytes per second, seconds left (None while unknown)."""

    bytes_per_s: float = 0.0
    eta_s: float | None = None


def nowhere(command: str) -> str:
    """Return no options: the command finds the run by the settings of the place it is pasted in."""
    del command
    return ""


def progress(status: RunStatus) -> float:
    """Return the share of a run that is done, from 0 to 1, shards weighted by their predicted bytes."""
    whole = sum(_weight(shard) for shard in status.shards)
    part = sum(_weight(shard) * (shard.done + shard.failed) / max(1, shard.total) for shard in status.shards)
    return part / whole if whole else 1.0


def line(status: RunStatus, pace: Pace = Pace()) -> str:
    """Return the state of a run in one line of plain text."""
    return "  ".join((_how_far(status), _how_fast(status, pace)))


def cell_states(shards: Sequence[ShardStatus]) -> tuple[grid.State, ...]:
    """Return the grid state of each shard."""
    return tuple(_place(shard) for shard in shards)


def failures(status: RunStatus, limit: int = FAILURES_SHOWN, *, places: Places = nowhere) -> tuple[str, ...]:
    """Return a line for each of the first failures, how many there are if more, and how to see their logs."""
    if not status.failures:
        return ()
    shown = [_failure(failure) for failure in status.failures[:limit]]
    total = len(status.failures)
    all_of_them = _pasted(f"runner status {escape(status.id)} -o json", status, places)
    more = [f"        and {total - len(shown):,} more of {total:,}; all: {all_of_them}"] if total > len(shown) else []
    shards = sorted({failure.shard for failure in status.failures[:limit]})
    logs = [_pasted(f"logs    runner logs {escape(status.id)} --shard {shards[0]}", status, places)]
    logs += [f"        {status.logs.format(shard=shards[0])}"] if status.logs else []
    return (*shown, *more, *logs)


def explained(status: RunStatus, *, places: Places) -> tuple[str, ...]:
    """Return the lines of causes and failures."""
    return (*causes(status, places=places), *failures(status, places=places))


def causes(status: RunStatus, *, places: Places = nowhere) -> tuple[str, ...]:
    """Return for each cause that keeps the run from moving a line with it and one with the command that helps."""
    lines = []
    for cause in status.causes:
        where = f"  {_shards(cause.shards)}" if cause.shards else ""
        then = _pasted(cause.next, status, places)
        lines += [escape(f"why     {cause.kind}: {cause.message}{where}"), escape(f"        {then}")]
    return tuple(lines)


def screen(
    status: RunStatus, *, width: int, height: int, pace: Pace = Pace(), places: Places = nowhere
) -> tuple[tuple[str, grid.State | None], ...]:
    """Return the pieces of a screen no larger than the terminal; pieces of the grid carry their state.

    Lines end with a newline in the last piece of each.
    """
    head = [line(status, pace)]
    if len(head[0]) >= width and height > _OTHER_LINES + 1:
        head = [_how_far(status), _how_fast(status, pace)]
    others = _OTHER_LINES - 1 + len(head)
    said = explained(status, places=places)
    below = [cut(text, width) for text in said][: max(0, height - others - 1)]
    states = cell_states(status.shards)
    rows = grid.rows(states, width - 1, max(1, height - others - len(below)))
    pieces: list[tuple[str, grid.State | None]] = [(f"{cut(text, width)}\n", None) for text in head]
    for row in rows:
        pieces += [(text, state) for state, text in grid.spans(row)]
        pieces.append(("\n", None))
    _, each = grid.cells(states, min(grid.MAX_CELLS, max(1, width - 1) * max(1, len(rows))))
    scale = f"  (a cell is {each:,} shards, the worst shows)" if each > 1 else ""
    pieces.append((f"{cut(grid.legend(states) + scale, width)}\n", None))
    return (*pieces, *((f"{text}\n", None) for text in below))


def text(status: RunStatus, *, width: int, height: int) -> str:
    """Return the screen without colour."""
    return "".join(piece for piece, _ in screen(status, width=width, height=height))


def cut(text: str, width: int) -> str:
    """Return text no longer than a line of the terminal.

    >>> cut("abcdef", 5), cut("abc", 5)
    ('abc…', 'abc')
    """
    return text if len(text) < width else f"{text[: max(0, width - 2)]}…"


def _pasted(command: str, status: RunStatus, places: Places) -> str:
    """Return a command with what leads it to the run's store and cluster behind each `runner … RUN` in it."""

    def led(found: re.Match[str]) -> str:
        return f"{found[0]} {options}" if (options := places(found[1])) else found[0]

    return re.sub(rf"\brunner (\w+) {re.escape(status.id)}(?![\w-])", led, command)


def _shards(numbers: tuple[int, ...]) -> str:
    """Return shard numbers in few words.

    >>> _shards((3,)), _shards((1, 2, 3, 4, 5, 6))
    ('shard 3', '6 shards: 1, 2, 3, …')
    """
    shown = ", ".join(map(str, numbers[:_SHARDS_SHOWN]))
    if len(numbers) == 1:
        return f"shard {shown}"
    return f"{len(numbers)} shards: {shown}{', …' if len(numbers) > _SHARDS_SHOWN else ''}"


def _place(shard: ShardStatus) -> grid.State:
    if shard.state is ShardState.RUNNING and not shard.done + shard.failed:
        return grid.State.STARTING
    return _PLACES[shard.state]


def _weight(shard: ShardStatus) -> int:
    return max(1, shard.predicted_bytes)


def _failure(failure: Failure) -> str:
    return escape(f"failed  shard {failure.shard}  {failure.task_id} {failure.data_type}: {failure.error}")


def _how_far(status: RunStatus) -> str:
    ended = sum(shard.state in (ShardState.DONE, ShardState.FAILED) for shard in status.shards)
    facts = [
        f"run {escape(status.id)}",
        str(status.state),
        f"{status.done:,}/{status.total:,} tasks ({units.percent(status.done, status.total)} %)",
        f"{status.failed:,} failed" if status.failed else "",
        f"{status.pending:,} pending, not exported yet" if status.pending else "",
        f"{ended:,}/{len(status.shards):,} shards",
    ]
    return "  ".join(fact for fact in facts if fact)


def _how_fast(status: RunStatus, pace: Pace) -> str:
    facts = [units.size(status.received_bytes)]
    if status.state is RunState.RUNNING:
        facts.append(f"{units.size(pace.bytes_per_s)}/s" if pace.bytes_per_s else "")
        facts.append(f"eta {units.duration(pace.eta_s)}" if pace.eta_s is not None else "")
    return "  ".join(fact for fact in facts if fact)
