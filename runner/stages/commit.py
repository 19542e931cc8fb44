"""Commit a file to the store exactly once: create it, or prove that what is there is the same.

A refused create is not an error yet: a twin, or our own lost answer, may have committed the same content. Facts that
decide are in the object's metadata, so one HEAD settles it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from runner.errors import ConflictError, NotFoundError, PreconditionError
from runner.stages import content
from runner.store import ABSENT, ObjectInfo, Store

_IDENTITY = ("outcome", "inputs", "schema", "rows", "digest")
_ATTEMPTS = 5


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
    that was read. A sealed object is never replaced by an unsealed one, nor one of a newer schema by ours: whoever has
    less succeeds without writing.
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
    raise ConflictError(f"{key} in {store.url} changed {_ATTEMPTS} times while it was being written; run it again")


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
    newer = live.get("schema", "").isdecimal() and int(live["schema"]) > int(ours.get("schema", "0"))
    return newer or (live.get("sealed") == "true" and ours.get("sealed") == "false")


def _conflict(store: Store, key: str, live: Mapping[str, str], ours: Mapping[str, str]) -> str:
    differing = [name for name in _IDENTITY if live.get(name) != ours.get(name)]
    parts = [f"{name} {live.get(name)} there, {ours.get(name)} now" for name in differing]
    return (
        f"{key} in {store.url} holds another content ({'; '.join(parts)}): it is kept; "
        "to replace it, submit the same request with --select all"
    )
