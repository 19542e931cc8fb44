"""A store in a folder: an object is the plain file of its key, which any reader can open.

Metadata and generation lie beside it in `.runner/meta`, in a sidecar bound to the file by the file's time, which no
two files of one key share. A sidecar is durable before its file appears and goes after its file went, so whoever sees
a file finds its sidecar. The commit of a new object is a hard link, that of a swap a rename under the key's lock.
A file without a sidecar (somebody copied it here) is an object too: no metadata, generation and checksum from the file.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import google_crc32c

from runner.errors import NotFoundError, SpecError, TransientError
from runner.store import ABSENT, ObjectInfo
from runner.store.disk import (
    COPY_BYTES,
    LOCK_WAIT_S,
    Scratch,
    explained,
    forget,
    locked,
    make_folder,
    prune_folders,
    sync_folder,
    try_lock,
)
from runner.store.keys import RESERVED, check_key, check_metadata, check_range, key_fault, stale
from runner.store.sidecar import Sidecars, foreign_generation, read_note

_LOCKS = 4096
_STALE_S = 3600.0
_COMMIT_TRIES = 100
_SCANS = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def folder_of(place: str) -> Path:
    """Return the folder that the part of a file URL after `file://` names.

    >>> folder_of("/data/a%20b").as_posix(), folder_of("./data").as_posix()
    ('/data/a b', 'data')
    """
    if not place.startswith(("/", "./", "../")) and place not in {".", ".."}:
        raise SpecError(f"store 'file://{place}' names a host, write file:///directory or file://./directory")
    return Path(unquote(place))


@dataclass(frozen=True, slots=True)
class _Live:
    """A file as it was looked at, with its sidecar if it has one."""

    status: os.stat_result
    sidecar: Mapping[str, Any] | None

    @property
    def generation(self) -> str:
        if self.sidecar is not None:
            return str(self.sidecar["generation"])
        return foreign_generation(self.status)


class FileStore:
    """`runner.store.Store` over a folder of a POSIX file system with hard links and flock."""

    def __init__(self, root: Path) -> None:
        """Hold no descriptor and start nothing, so that a handle survives fork and pickle."""
        self._root = Path(os.path.realpath(root))
        if self._root == self._root.parent:
            raise SpecError(f"store {str(root)!r} is the root of the file system, write file:///directory")
        self._scratch = self._root / RESERVED / "tmp"
        self._locks = self._root / RESERVED / "locks"
        self._sidecars = Sidecars(self._root / RESERVED / "meta")
        self._is_swept = False

    @property
    def url(self) -> str:
        """Return `file:///` and the real path, percent-encoded."""
        return f"file://{quote(str(self._root))}"

    def put(
        self, key: str, body: bytes | Path, *, if_generation: str = ABSENT, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """See `Store.put`."""
        check_key(key)
        check_metadata(key, metadata or {})
        with explained(f"write {self._path(key)}"):
            self._demand(key, if_generation)  # before copying gigabytes; the commit asks again
            self._sweep_once()
            with Scratch(self._scratch) as scratch:
                size, crc = scratch.fill(body)
                facts = {"key": key, "size": size, "crc32c": crc, "metadata": dict(metadata or {})}
                sidecar = self._sidecars.write(scratch, {**facts, "replaces": if_generation}, now_ns=time.time_ns())
                try:
                    self._commit(key, scratch.body, if_generation)
                except BaseException:
                    self._forget_unless_live(key, sidecar["generation"])
                    raise
        return _info_of(sidecar)

    def head(self, key: str) -> ObjectInfo | None:
        """See `Store.head`."""
        check_key(key)
        with explained(f"read {self._path(key)}"):
            return self._facts(key)

    def get(self, key: str, *, start: int = 0, length: int | None = None, if_generation: str | None = None) -> bytes:
        """See `Store.get`."""
        check_key(key)
        check_range(key, start, length)
        with explained(f"read {self._path(key)}"):
            fd = self._open(key)
            if fd is None:
                raise NotFoundError(f"no object {key!r} in {self.url}, list its prefix to see what there is")
            with os.fdopen(fd, "rb", buffering=0) as file:
                if if_generation is not None:
                    live = self._bind(key, os.fstat(fd)).generation
                    if live != if_generation:
                        raise stale(key, live=live, named=if_generation)
                return _read(file.fileno(), start, length)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See `Store.list`. Memory is bounded by the widest folder's names."""
        folder, slash, name = prefix.rpartition("/")
        if slash and key_fault(folder):
            return
        with explained(f"list {self._path(prefix)}"):
            for key in self._walk(folder + slash, name):
                info = self._facts(key)
                if info is not None:
                    yield info

    def delete(self, key: str, *, if_generation: str | None = None) -> bool:
        """See `Store.delete`."""
        check_key(key)
        path = self._path(key)
        with explained(f"delete {path}"):
            if self._look(key) is None:
                return False
            self._sweep_once()
            with Scratch(self._scratch) as scratch, self._lock(key):
                live = self._look(key)
                if live is None:
                    return False
                if if_generation is not None and live.generation != if_generation:
                    raise stale(key, live=live.generation, named=if_generation)
                scratch.write_note({"key": key, "generation": live.generation, "replaces": ABSENT})
                path.unlink()
                sync_folder(path.parent)
                self._sidecars.forget(key, live.generation)
            prune_folders(path.parent, self._root)
            return True

    # Reading.

    def _path(self, key: str) -> Path:
        return self._root / key

    def _open(self, key: str) -> int | None:
        """Return a descriptor of the live file, or None. Never blocks on what is no file."""
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def _status(self, key: str) -> os.stat_result | None:
        try:
            status = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def _bind(self, key: str, status: os.stat_result) -> _Live:
        """Return the file with the sidecar of exactly this file, if it is still there."""
        sidecar = self._sidecars.read(key, status.st_mtime_ns)
        return _Live(status, sidecar if sidecar is not None and sidecar["size"] == status.st_size else None)

    def _look(self, key: str) -> _Live | None:
        """Return the live file and its sidecar, of one generation.

        A missing sidecar means a swap or delete since the first look, unless the same file is still there: then the
        sidecar was missing while the file was live, so it is a file that somebody put here.
        """
        status = self._status(key)
        while status is not None:
            live = self._bind(key, status)
            if live.sidecar is not None:
                return live
            again = self._status(key)
            if again is not None and _identity(again) == _identity(status):
                return live
            status = again
        return None

    def _facts(self, key: str) -> ObjectInfo | None:
        while True:
            live = self._look(key)
            if live is None:
                return None
            if live.sidecar is not None:
                return _info_of(live.sidecar)
            crc = self._checksum(key, live.status)
            if crc is not None:
                updated = _EPOCH + timedelta(microseconds=live.status.st_mtime_ns // 1000)
                return ObjectInfo(key, live.status.st_size, live.generation, crc, updated)

    def _checksum(self, key: str, status: os.stat_result) -> int | None:
        """Return the crc32c of a foreign file, or None when it is no longer the one looked at."""
        fd = self._open(key)
        if fd is None:
            return None
        with os.fdopen(fd, "rb", buffering=0) as file:
            if _identity(os.fstat(fd)) != _identity(status):
                return None
            crc, left = 0, status.st_size
            while left and (chunk := file.read(min(left, COPY_BYTES))):
                crc, left = google_crc32c.extend(crc, chunk), left - len(chunk)
        return crc

    def _walk(self, folder: str, start: str) -> Iterator[str]:
        """Yield keys in `folder` ("" or ending in `/`) whose next name starts with `start`, in order.

        A folder sorts as its name with the `/`, because that is how the keys below it go on.
        """
        for name in sorted(self._names(folder), key=os.fsencode):
            key = folder + name.rstrip("/")
            if not name.startswith(start) or key_fault(key):
                continue
            if name.endswith("/"):
                yield from self._walk(f"{key}/", "")
            else:
                yield key

    def _names(self, folder: str) -> set[str]:
        """Return the names in a folder, those of folders with a `/`.

        Some file systems move a name to another place when its file is swapped, so that one pass can miss it; a folder
        that changed during the pass is therefore read again.
        """
        path = self._path(folder)
        names: set[str] = set()
        for _ in range(_SCANS):
            try:
                before = path.stat().st_mtime_ns
                with os.scandir(path) as entries:
                    names.update(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
                if path.stat().st_mtime_ns == before:
                    break
            except (FileNotFoundError, NotADirectoryError):
                break
        return names

    # Writing.

    def _demand(self, key: str, if_generation: str) -> _Live | None:
        live = self._look(key)
        generation = live.generation if live else ABSENT
        if generation != if_generation:
            raise stale(key, live=generation, named=if_generation)
        return live

    def _commit(self, key: str, body: Path, if_generation: str) -> None:
        if if_generation == ABSENT:
            self._create(key, body)
            return
        with self._lock(key):
            self._demand(key, if_generation)
            path = self._path(key)
            body.replace(path)
            sync_folder(path.parent)
            self._sidecars.forget(key, if_generation)

    def _create(self, key: str, body: Path) -> None:
        """Link the body to its name. Needs no lock: a link never replaces, and only what exists is swapped."""
        path = self._path(key)
        for _ in range(_COMMIT_TRIES):
            self._make_folder_of(key)
            try:
                os.link(body, path)
            except FileNotFoundError:
                continue  # a deleter pruned the folder in between
            except FileExistsError:
                self._refuse_existing(key)
                continue
            sync_folder(path.parent)
            return
        raise TransientError(f"cannot create {path}: its folder changes all the time, look who deletes, then try again")

    def _make_folder_of(self, key: str) -> None:
        try:
            make_folder(self._path(key).parent)
        except FileNotFoundError:
            return  # pruned in between: the link fails and it is tried again
        except NotADirectoryError as error:
            above = Path(error.filename)
            if self._root not in above.parents:
                raise
            raise SpecError(
                f"key {key!r} lies under the object {above.name!r} in {self.url}, choose another key"
            ) from error

    def _refuse_existing(self, key: str) -> None:
        live = self._look(key)
        if live is not None:
            raise stale(key, live=live.generation, named=ABSENT)
        try:
            self._path(key).rmdir()  # an empty folder is no object
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise
            raise SpecError(f"key {key!r} is the folder of other objects in {self.url}, choose another key") from error

    def _lock(self, key: str, *, wait_s: float = LOCK_WAIT_S) -> AbstractContextManager[None]:
        make_folder(self._locks)
        digest = blake2b(key.encode(), digest_size=8).digest()
        return locked(self._locks / f"{int.from_bytes(digest) % _LOCKS:03x}", wait_s=wait_s)

    # Leftovers of killed writers.

    def _sweep_once(self) -> None:
        """Remove, once per handle, what writers left that died long ago; the living hold a lock on their body."""
        if self._is_swept:
            return
        self._is_swept = True
        for body in sorted(self._scratch.glob("*.body")):
            with suppress(FileNotFoundError, TransientError):  # swept by another, or its key is in use: next time
                self._sweep(body)

    def _sweep(self, body: Path) -> None:
        fd = os.open(body, os.O_RDWR | os.O_CLOEXEC)
        try:
            if time.time() - os.fstat(fd).st_mtime > _STALE_S and try_lock(fd):
                note = read_note(body.with_suffix(".json"))
                for generation in {note.get("generation", ABSENT), note.get("replaces", ABSENT)} - {ABSENT}:
                    with self._lock(str(note["key"]), wait_s=0):
                        self._forget_unless_live(str(note["key"]), str(generation))
                forget(body.with_suffix(".json"))
                forget(body)
        finally:
            os.close(fd)

    def _forget_unless_live(self, key: str, generation: str) -> None:
        live = self._look(key)
        if live is None or live.generation != generation:
            self._sidecars.forget(key, generation)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _info_of(sidecar: Mapping[str, Any]) -> ObjectInfo:
    updated = _EPOCH + timedelta(microseconds=sidecar["mtime_ns"] // 1000)
    return ObjectInfo(
        sidecar["key"], sidecar["size"], sidecar["generation"], sidecar["crc32c"], updated, dict(sidecar["metadata"])
    )


def _read(fd: int, start: int, length: int | None) -> bytes:
    left = max(0, os.fstat(fd).st_size - start)
    left = left if length is None else min(left, length)
    chunks = []
    while left and (chunk := os.pread(fd, left, start)):
        chunks.append(chunk)
        start, left = start + len(chunk), left - len(chunk)
    return b"".join(chunks)
