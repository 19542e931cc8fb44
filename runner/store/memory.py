"""A store in this process's memory, for tests; every handle on one name sees the same objects. Not shared over fork."""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import google_crc32c

from runner.errors import NotFoundError, SpecError
from runner.store import ABSENT, ObjectInfo
from runner.store.disk import chunks
from runner.store.keys import check_key, check_metadata, check_range, stale

_PAGE = 1000
_stores: dict[str, MemoryStore] = {}
_stores_lock = threading.Lock()


def memory_store(name: str) -> MemoryStore:
    """Return this process's store of that name, made at its first mention; SpecError when the name is empty."""
    name = name.rstrip("/")
    if not name:
        raise SpecError("store 'memory://' has no name, write memory://name")
    with _stores_lock:
        return _stores.setdefault(name, MemoryStore(name))


@dataclass(frozen=True, slots=True)
class _Object:
    info: ObjectInfo
    body: bytes

    def facts(self) -> ObjectInfo:
        """Return the facts with metadata that the caller may change."""
        return replace(self.info, metadata=dict(self.info.metadata))


class MemoryStore:
    """`runner.store.Store` over a dictionary, one lock around every step."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._objects: dict[str, _Object] = {}
        self._keys: list[str] = []  # sorted by code point, which is the order of UTF-8 bytes

    @property
    def url(self) -> str:
        """Return `memory://name`."""
        return f"memory://{self._name}"

    def put(
        self, key: str, body: bytes | Path, *, if_generation: str = ABSENT, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """See `Store.put`."""
        check_key(key)
        check_metadata(key, metadata or {})
        content = b"".join(chunks(body))
        crc = google_crc32c.value(content)
        with self._lock:
            self._demand(key, if_generation)
            self._refuse_folder(key)
            info = ObjectInfo(key, len(content), secrets.token_hex(12), crc, datetime.now(UTC), dict(metadata or {}))
            if key not in self._objects:
                insort(self._keys, key)
            self._objects[key] = made = _Object(info, content)
        return made.facts()

    def head(self, key: str) -> ObjectInfo | None:
        """See `Store.head`."""
        check_key(key)
        with self._lock:
            found = self._objects.get(key)
        return found.facts() if found else None

    def get(self, key: str, *, start: int = 0, length: int | None = None, if_generation: str | None = None) -> bytes:
        """See `Store.get`."""
        check_key(key)
        check_range(key, start, length)
        with self._lock:
            found = self._objects.get(key)
            if not found:
                raise NotFoundError(f"no object {key!r} in {self.url}, list its prefix to see what there is")
            if if_generation is not None:
                self._demand(key, if_generation)
        return found.body[start:] if length is None else found.body[start : start + length]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        after = prefix
        while page := self._page(prefix, after):
            yield from (found.facts() for found in page)
            after = page[-1].info.key + "\0"  # the least text above it: no key holds NUL

    def delete(self, key: str, *, if_generation: str | None = None) -> bool:
        """See `Store.delete`."""
        check_key(key)
        with self._lock:
            if key not in self._objects:
                return False
            if if_generation is not None:
                self._demand(key, if_generation)
            del self._objects[key]
            del self._keys[bisect_left(self._keys, key)]
        return True

    def _page(self, prefix: str, after: str) -> tuple[_Object, ...]:
        with self._lock:
            first = bisect_left(self._keys, after)
            keys = self._keys[first : first + _PAGE]
            return tuple(self._objects[key] for key in keys if key.startswith(prefix))

    def _demand(self, key: str, if_generation: str) -> None:
        found = self._objects.get(key)
        live = found.info.generation if found else ABSENT
        if live != if_generation:
            raise stale(key, live=live, named=if_generation)

    def _refuse_folder(self, key: str) -> None:
        """Refuse what a file system could not hold, so that a test in memory is as strict as a run on disk."""
        above = key
        while "/" in above:
            above = above.rpartition("/")[0]
            if above in self._objects:
                raise SpecError(f"key {key!r} lies under the object {above!r} in {self.url}, choose another key")
        below = bisect_left(self._keys, f"{key}/")
        if self._keys[below : below + 1] and self._keys[below].startswith(f"{key}/"):
            raise SpecError(f"key {key!r} is the folder of other objects in {self.url}, choose another key")
