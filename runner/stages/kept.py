"""What of tasks the store itself shows to be settled, whatever the ledgers say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from runner.stages import outputs, sealing
from runner.store import Store
from runner.task import Entry, Stage, Task

_KEPT: Mapping[Stage, Callable[[Store, Iterable[Task]], Iterator[Entry]]] = {
    Stage.DOWNLOAD: outputs.kept,
    Stage.CANDLES: sealing.kept,
}
"""What the store proves of tasks, by stage, told by listings; other stages do their tasks again."""


def kept(store: Store, tasks: Iterable[Task]) -> Iterator[Entry]:
    """Yield an entry for every (task, data type) of one stage that the store shows to be settled."""
    tasks = tuple(tasks)
    if tasks and (look := _KEPT.get(tasks[0].stage)) is not None:
        yield from look(store, tasks)
