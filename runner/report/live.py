"""Watching a run: a picture that redraws itself on a terminal, a line every ten seconds anywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from runner.backends.sight import Cause
from runner.report import grid, run, units
from runner.report.run import Pace, Places, nowhere
from runner.runs import RunStatus

REDRAW_S = 0.5
LINE_S = 10.0
_RATE_WINDOW_S = 30.0


class View(Protocol):
    """Something that shows a run's status as it changes. Enter it before the first `show`."""

    def due(self, now_s: float) -> bool:
        """Tell whether a new status would be shown at this time of a monotonic clock."""
        ...

    def show(self, status: RunStatus, now_s: float) -> None:
        """Show a status."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class Meter:
    """How fast a run goes, from what is seen of it. A retried shard starts counting bytes anew: only gains count."""

    def __init__(self) -> None:
        self._gains: deque[tuple[float, int]] = deque()
        self._last: int | None = None
        self._first: tuple[float, float] | None = None

    def pace(self, status: RunStatus, now_s: float) -> Pace:
        """Return the pace with this status taken in."""
        share = run.progress(status)
        began_s, began = self._first = self._first or (now_s, share)
        gain = max(0, status.received_bytes - self._last) if self._last is not None else 0
        self._last = status.received_bytes
        self._gains.append((now_s, gain))
        while now_s - self._gains[0][0] > _RATE_WINDOW_S:
            self._gains.popleft()
        span_s = now_s - max(began_s, now_s - _RATE_WINDOW_S)
        rate = sum(gain for _, gain in self._gains) / span_s if span_s > 0 else 0.0
        left = units.eta_s(share - began, 1 - began, now_s - began_s) if share > began else None
        return Pace(rate, left)


class Lines:
    """A line of plain text at most every ten seconds, and why it does not move, each reason once."""

    def __init__(self, say: Callable[[str], None], places: Places = nowhere) -> None:
        self._say, self._places, self._meter = say, places, Meter()
        self._said: set[Cause] = set()
        self._next_s: float | None = None

    def due(self, now_s: float) -> bool:
        """Tell whether ten seconds have passed."""
        return self._next_s is None or now_s >= self._next_s

    def show(self, status: RunStatus, now_s: float) -> None:
        """Write the line."""
        self._next_s = now_s + LINE_S
        self._say(run.line(status, self._meter.pace(status, now_s)))
        new = replace(status, causes=tuple(c for c in status.causes if c not in self._said))
        for text in run.causes(new, places=self._places):
            self._say(text)
        self._said.update(status.causes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


class Picture:
    """The grid, redrawn in place. It is gone when the watching ends: the last word is a line."""

    def __init__(self, console: Console | None = None, places: Places = nowhere) -> None:
        # Without a file rich asks for stderr each time, so that log lines can be put above the picture.
        self._console = console or Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._places, self._meter, self._next_s = places, Meter(), 0.0

    def due(self, now_s: float) -> bool:
        """Tell whether it is time to redraw."""
        return now_s >= self._next_s

    def show(self, status: RunStatus, now_s: float) -> None:
        """Redraw."""
        self._next_s = now_s + REDRAW_S
        width, height = self._console.size
        pace = self._meter.pace(status, now_s)
        pieces = run.screen(status, width=width, height=height, pace=pace, places=self._places)
        self._live.update(_text(pieces), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.stop()


def _text(pieces: tuple[tuple[str, grid.State | None], ...]) -> Text:
    text = Text(no_wrap=True, overflow="crop", end="")
    for piece, state in pieces:
        text.append(piece, style=grid.COLOURS[state] if state else "")
    return text
