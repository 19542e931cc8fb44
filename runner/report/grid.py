"""Shards as a grid of cells. The glyph carries the state; colour only repeats it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import groupby

MAX_CELLS = 2_000


class State(StrEnum):
    """Where a shard stands, from best to worst: where one cell stands for several shards, the worst shows."""

    DONE = "done"
    RUNNING = "running"
    STARTING = "starting"
    WAITING = "waiting"
    RETRIED = "retried"
    FAILED = "failed"


GLYPHS = {
    State.WAITING: "·",
    State.STARTING: "▒",
    State.RUNNING: "▓",
    State.DONE: "■",
    State.RETRIED: "R",
    State.FAILED: "!",
}
COLOURS = {
    State.WAITING: "dim",
    State.STARTING: "cyan",
    State.RUNNING: "blue",
    State.DONE: "green",
    State.RETRIED: "yellow",
    State.FAILED: "bold red",
}
_BADNESS = {state: rank for rank, state in enumerate(State)}


def cells(states: Sequence[State], limit: int = MAX_CELLS) -> tuple[tuple[State, ...], int]:
    """Return at most `limit` cells and how many shards each stands for; the worst state of a cell's shards wins.

    >>> cells([State.DONE, State.FAILED, State.DONE], 2)
    ((<State.FAILED: 'failed'>, <State.DONE: 'done'>), 2)
    """
    limit = max(1, limit)
    each = max(1, -(-len(states) // limit))
    groups = [states[start : start + each] for start in range(0, len(states), each)]
    return tuple(max(group, key=_BADNESS.__getitem__) for group in groups), each


def rows(states: Sequence[State], width: int, height: int) -> tuple[tuple[State, ...], ...]:
    """Return the cells in rows that fit `width` columns and `height` lines."""
    width, height = max(1, width), max(1, height)
    shown, _ = cells(states, min(MAX_CELLS, width * height))
    return tuple(shown[start : start + width] for start in range(0, len(shown), width))


def spans(row: Iterable[State]) -> tuple[tuple[State, str], ...]:
    """Return runs of equal cells as (state, glyphs): few pieces to draw, however many cells.

    >>> spans([State.DONE, State.DONE, State.WAITING])
    ((<State.DONE: 'done'>, '■■'), (<State.WAITING: 'waiting'>, '·'))
    """
    return tuple((state, GLYPHS[state] * len(list(group))) for state, group in groupby(row))


def legend(states: Iterable[State]) -> str:
    """Return the count of each state that occurs, best first.

    >>> legend([State.WAITING, State.DONE, State.DONE])
    '■ 2 done  · 1 waiting'
    """
    found = Counter(states)
    return "  ".join(f"{GLYPHS[state]} {found[state]:,} {state}" for state in State if found[state])
