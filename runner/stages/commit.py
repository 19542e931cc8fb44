"""Commit a file to the store exactly once: create it, or prove that what is there is the same.

A refused create is not an error yet: a twin, or our own lost answer, may have committed the same content. Facts that
decide are in the object's metadata, so one HEAD settles it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import ConflictError, NotFoundError, PreconditionError, RunnerError, TransientError
from runner.stages import content
from runner.stages.inputs import Inputs
from runner.store import ABSENT, ObjectInfo, Store, open_object
from runner.task import Stage

_IDENTITY = ("outcome", "inputs", "schema", "rows", "digest")
_ATTEMPTS = 5


class StaleError(RunnerError):
    """The ticks that candles were made of are no longer those of the store: make them anew."""


class Mode(StrEnum):
    """What to do with an object that holds another content."""

    KEEP = "keep"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Committed:
    """The live object after a commit, and whether this commit wrote it."""

    info: ObjectInfo
    written: bool


def commit(store: Store, key: str, body: Path | bytes, metadata: Mapping[str, str], *, mode: Mode) -> Committed:
    """Put an object that is a function of its inputs; return the live one, ours or an equal one.

    With `Mode.REPLACE` another content, and bytes that are no longer what was written, are swapped at the generation
    that was read. What stage candles made is never replaced by candles of one file alone, nor an object of a newer
    schema by ours: whoever has less succeeds without writing.
    Raises ConflictError when another content is there and is to be kept.
    """
    generation = ABSENT
    for _ in range(_ATTEMPTS):
        try:
            return Committed(store.put(key, body, if_generation=generation, metadata=metadata), written=True)
        except PreconditionError:
            live = store.head(key)
        if live is None:
            generation = ABSENT
        elif mode is Mode.REPLACE and _damaged(store, live):
            generation = live.generation
        elif same(live.metadata, metadata) or _has_more(live.metadata, metadata):
            return Committed(live, written=False)
        elif mode is Mode.KEEP:
            raise ConflictError(_conflict(store, key, live.metadata, metadata))
        else:
            generation = live.generation
    raise TransientError(f"{key} in {store.url} changed {_ATTEMPTS} times while it was being written; run it again")


def commit_candles(
    store: Store,
    objects: Mapping[str, tuple[bytes, Mapping[str, str]]],
    made_of: Inputs,
    *,
    still: Callable[[], bool],
    mode: Mode,
) -> int:
    """Put the candle objects of one (task, data type), all made of the same inputs; return how many were written.

    What is there is swapped at the generation read before, once `still` has told, after that reading, that the inputs
    are still the store's; a writer that slept since is refused by the generation. It stays when it is the same, is of
    a newer schema, or is made of all these inputs and more.
    Raises StaleError when the inputs are no longer the store's, ConflictError when there is another content of the
    same inputs and schema (with `Mode.REPLACE` that is swapped as well).
    """
    written, left = 0, dict(objects)
    for _ in range(_ATTEMPTS):
        found = {key: store.head(key) for key in left}
        live = {key: info for key, info in found.items() if _gives_way(store, info, left[key][1], made_of, mode)}
        if not live:
            return written
        if not still():
            raise StaleError(f"{next(iter(live))}: its ticks were replaced while it was made; it is made anew")
        left = {key: objects[key] for key in live}
        for key, info in live.items():
            body, metadata = objects[key]
            with suppress(PreconditionError):
                store.put(key, body, if_generation=info.generation if info else ABSENT, metadata=metadata)
                del left[key]
                written += 1
    raise TransientError(
        f"{next(iter(left))} in {store.url} changed {_ATTEMPTS} times while it was written; run it again"
    )


def _gives_way(store: Store, live: ObjectInfo | None, ours: Mapping[str, str], made_of: Inputs, mode: Mode) -> bool:
    """Tell whether a live candle object is to be replaced by ours."""
    if live is None or (mode is Mode.REPLACE and _damaged(store, live)):
        return True
    if same(live.metadata, ours) or _newer(live.metadata, ours):
        return False
    if _newer(ours, live.metadata):
        return True
    if live.metadata.get("inputs") == ours["inputs"]:
        if mode is Mode.KEEP:
            raise ConflictError(_conflict(store, live.key, live.metadata, ours))
        return True
    return not made_of.within(_inputs_of(store, live))


def _damaged(store: Store, live: ObjectInfo) -> bool:
    try:
        return content.checksum(store, live) != live.crc32c
    except (PreconditionError, NotFoundError):
        return False  # no longer live: the swap will tell


def refuse_other(store: Store, key: str, metadata: Mapping[str, str]) -> None:
    """Raise ConflictError when another content is there: asked before the first of several objects is committed."""
    live = store.head(key)
    if live is not None and not same(live.metadata, metadata) and not _has_more(live.metadata, metadata):
        raise ConflictError(_conflict(store, key, live.metadata, metadata))


def same(ours: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Tell whether two objects' metadata name the same content from the same inputs.

    >>> same({"digest": "a", "rows": "1"}, {"digest": "a", "rows": "1", "source_md5": "x"})
    True
    """
    return all(ours.get(name) == theirs.get(name) for name in _IDENTITY)


def _has_more(live: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    by_stage = live.get("stage") == Stage.CANDLES != ours.get("stage")
    return _newer(live, ours) or by_stage or (live.get("sealed") == "true" and ours.get("sealed") == "false")


def _newer(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return (content.count(one, "schema") or 0) > (content.count(other, "schema") or 0)


def _inputs_of(store: Store, live: ObjectInfo) -> list[dict[str, str]]:
    """Return the list of inputs in an object's footer, an empty one where there is none of ours."""
    try:
        with open_object(store, live) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
            found = json.loads((parquet.metadata.metadata or {}).get(b"inputs", b"[]"))
    except (pa.ArrowException, OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _conflict(store: Store, key: str, live: Mapping[str, str], ours: Mapping[str, str]) -> str:
    differing = [name for name in _IDENTITY if live.get(name) != ours.get(name)]
    parts = [f"{name} {live.get(name)} there, {ours.get(name)} now" for name in differing]
    return (
        f"{key} in {store.url} holds another content ({'; '.join(parts)}): it is kept; "
        "to replace it, submit the same request with --select all"
    )
