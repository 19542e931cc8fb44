"""Where objects live. `Store` is the protocol; its comments are the specification that tests/contract checks.

An object is bytes plus string metadata, committed together and at once: a reader sees the whole object or none.
Nothing is ever written without a precondition. Keys are `/`-separated, without a leading `/`, `.` or `..` parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

ABSENT = ""
"""The generation of an object that does not exist: `put(..., if_generation=ABSENT)` creates, never replaces."""

METADATA_BYTES = 8192
"""The most that the names and values of one object's metadata may take, in UTF-8 bytes."""


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
    """Objects by key. Methods are safe to call from many threads and processes at once."""

    @property
    def url(self) -> str:
        """Return the canonical URL: equal for two handles on the same place, without a trailing `/`."""
        ...

    def put(
        self, key: str, body: bytes | Path, *, if_generation: str = ABSENT, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Commit bytes (or a local file's content) and metadata in one atomic step, durably; return the new facts.

        Succeeds only when the live object's generation is `if_generation`; of N concurrent writers that name the
        same generation exactly one succeeds. Bytes read from `body` are checked against crc32c on the way.
        Raises PreconditionError when the live generation is another one (the store is unchanged), SpecError when the
        key is malformed or the metadata too large, TransientError when the medium fails. A writer that dies leaves
        nothing visible.
        """
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Return the live object's facts, or None."""
        ...

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes [start, start + length) of the live object, fewer at its end; the whole of it by default.

        Raises NotFoundError when there is no such object.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the facts of every live object whose key starts with `prefix`, ascending by UTF-8 bytes of the key.

        Pages lazily. An object that exists before the call and is not deleted during it is yielded exactly once.
        """
        ...

    def delete(self, key: str, *, if_generation: str | None = None) -> bool:
        """Delete the object and tell whether there was one.

        With `if_generation`, raises PreconditionError when the live object is at another.
        """
        ...
