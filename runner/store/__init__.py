"""Where objects live. `Store` is the protocol; its comments are the specification that tests/contract checks.

An object is bytes plus string metadata, committed together and at once: a reader sees the whole object or none.
Nothing is ever written without a precondition. Keys are `/`-separated, without a leading `/`, `.` or `..` parts,
control characters or a top-level `.runner`; at most 1024 bytes, 255 a part; exact in case. A medium
that cannot hold both `a` and `a/b` refuses the second; no caller may need both.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from runner.errors import SpecError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ABSENT = ""
"""The generation of an object that does not exist: `put(..., if_generation=ABSENT)` creates, never replaces."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Facts of one live object.

    `generation` is opaque and changes with every commit; `updated` is the time of the commit by the store's clock, UTC.
    """

    key: str
    size: int
    generation: str
    crc32c: int
    updated: datetime
    metadata: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """Objects by key. Methods are safe to call from many threads and processes at once.

    Besides what each method names, any of them raises SpecError for a malformed key, NotAllowedError when permission is
    refused (ObjectRefusedError when of this object alone), NoStoreError when there is no bucket and TransientError when
    the medium fails.
    """

    @property
    def url(self) -> str:
        """Return the canonical URL: equal for two handles on the same place, without a trailing `/`."""
        ...

    def put(
        self, key: str, body: bytes | Path, *, if_generation: str = ABSENT, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Commit bytes (or a local file's content) and metadata in one atomic step, durably; return the new facts.

        Succeeds only when the live object's generation is `if_generation`; of N concurrent writers that name the
        same generation exactly one succeeds. A generation never comes back, also not after a delete. A local file is
        streamed and stays where it is. The new metadata replaces the old as a whole.
        Raises PreconditionError when the live generation is another one (the store is unchanged), SpecError when the
        key is malformed or refused (see above) or the metadata too large. A writer that dies leaves nothing visible;
        one whose answer is lost may have committed: compare by `head`.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Return the live object's facts, all of one generation, or None."""
        ...

    def get(self, key: str, *, start: int = 0, length: int | None = None, if_generation: str | None = None) -> bytes:
        """Return bytes [start, start + length) of the live object, fewer at its end; the whole of it by default.

        All bytes of one call are of one generation. Raises NotFoundError when there is no such object and, with
        `if_generation`, PreconditionError when the live object is at another.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the facts of every live object whose key starts with `prefix`, ascending by UTF-8 bytes of the key.

        The prefix may end within a name; "" lists all, one that no key can start with lists nothing. Pages lazily.
        An object that exists before the call and is not deleted during it is yielded exactly once, also when it is
        swapped meanwhile; no key is yielded twice.
        """
        ...

    def delete(self, key: str, *, if_generation: str | None = None) -> bool:
        """Delete the object and tell whether there was one.

        With `if_generation`, raises PreconditionError when the live object is at another; an absent one is False.
        """
        ...


def open_store(url: str, *, refusal_s: float = 0.0) -> Store:
    """Open the store at `file:///dir`, `file://./dir`, a plain path, `gs://bucket/prefix` or `memory://name`.

    Nothing is created by this, and nothing asked. A bucket's refusal of credentials or a permission is believed once
    it has lasted `refusal_s`: workers wait, as young pods and new grants are refused for a while, people do not.

    Raises SpecError for another scheme or an empty place.
    """
    scheme, mark, place = url.partition("://")
    if not url.strip() or (mark and not place):
        raise SpecError(f"store {url!r} names no place, use file:///directory or gs://bucket/prefix")
    if not mark or scheme == "file":
        from runner.store.file import FileStore, folder_of  # noqa: PLC0415 - only the store in use is imported

        return FileStore(folder_of(place) if mark else Path(url))
    if scheme == "memory":
        from runner.store.memory import memory_store  # noqa: PLC0415 - only the store in use is imported

        return memory_store(place)
    if scheme == "gs":
        from runner.store.gcs import GcsStore  # noqa: PLC0415 - only the store in use is imported
        from runner.store.gcs_client import Patience  # noqa: PLC0415 - only the store in use is imported

        return GcsStore(place, patience=Patience(refusal_s=refusal_s))
    raise SpecError(f"store {url!r}: no store for {scheme}://, use file:///directory, gs://bucket or memory://name")


def open_object(store: Store, info: ObjectInfo) -> BinaryIO:
    """Open one generation of an object as a seekable read-only file over ranged gets.

    Reads of it raise PreconditionError once the object is at another generation, NotFoundError once it is deleted.
    """
    return io.BufferedReader(_RangedReader(store, info), _READ_AHEAD_BYTES)


_READ_AHEAD_BYTES = 65_536


class _RangedReader(io.RawIOBase):
    """Reads go to the store; the position is all it remembers."""

    def __init__(self, store: Store, info: ObjectInfo) -> None:
        self._store = store
        self._info = info
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset} in {self._info.key!r}: before its start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(0, self._info.size - self._at))
        if not wanted:
            return 0
        info = self._info
        got = self._store.get(info.key, start=self._at, length=wanted, if_generation=info.generation)
        view[: len(got)] = got
        self._at += len(got)
        return len(got)
