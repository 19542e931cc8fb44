"""A store in a folder: an object is the plain file of its key, which any reader can open.

Metadata and generation lie in a sidecar under `.runner/`. A sidecar is durable before its file appears and goes after
its file went, so whoever sees a file finds its sidecar. The commit of a new object is a hard link, that of a swap a
rename under the key's lock. A file without a sidecar (somebody copied it here) is an object too: no metadata,
generation and checksum from the file, which is read for it each time.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
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
    write_note,
)
from runner.store.keys import RESERVED, check_key, check_metadata, check_range, stale
from runner.store.sidecar import NO_FILE, Sidecars, identity, read_note
from runner.store.walk import walk

_LOCKS = 4096
STALE_S = 600.0
_COMMIT_TRIES = 100
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def folder_of(place: str) -> Path:
    """Return the folder that the part of a file URL after `file://` names.

    >>> folder_of("/data/a%20b").as_posix(), folder_of("./data").as_posix()
    ('/data/a b', 'data')
    """
    if not place.startswith(("/", "./", "../")) and place not in {".", ".."}:
        raise SpecError(f"store 'file://{place}' names a host, write file:///directory or file://./directory")
    return Path(unquote(place))


class FileStore:
    """`runner.store.Store` over a folder of a POSIX file system with hard links and flock."""

    def __init__(self, root: Path, *, stale_s: float = STALE_S) -> None:
        """Hold no descriptor and start nothing, so that a handle survives fork and pickle.

        Leftovers of dead writers are removed when they are older than `stale_s`.
        """
        self._stale_s = stale_s
        self._root = Path(os.path.realpath(root))
        if self._root == self._root.parent:
            raise SpecError(f"store {str(root)!r} is the root of the file system, write file:///directory")
        self._scratch = self._root / RESERVED / "tmp"
        self._locks = self._root / RESERVED / "locks"
        self._sidecars = Sidecars(self._root, self._root / RESERVED / "meta")
        self._is_swept = False

    @property
    def url(self) -> str:
        """Return `file://` and the real path, percent-encoded."""
        return f"file://{quote(str(self._root))}"

    def put(
        self, key: str, body: bytes | Path, *, if_generation: str = ABSENT, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """See `Store.put`."""
        check_key(key)
        check_metadata(key, metadata or {})
        with explained(f"write {self._root / key}"):
            self._demand(key, if_generation)  # before copying gigabytes; the commit asks again
            self._sweep_once()
            with Scratch(self._scratch) as scratch:
                try:
                    size, crc = scratch.fill(body)
                    facts = {"key": key, "size": size, "crc32c": crc, "metadata": dict(metadata or {})}
                    sidecar = self._sidecars.write(scratch, {**facts, "replaces": if_generation}, now_ns=time.time_ns())
                    self._commit(key, scratch.body, if_generation)
                except BaseException:
                    self._tidy(scratch.note)
                    raise
        return _info_of(sidecar)

    def head(self, key: str) -> ObjectInfo | None:
        """See `Store.head`."""
        check_key(key)
        with explained(f"read {self._root / key}"):
            return self._facts(key)

    def get(self, key: str, *, start: int = 0, length: int | None = None, if_generation: str | None = None) -> bytes:
        """See `Store.get`."""
        check_key(key)
        check_range(key, start, length)
        with explained(f"read {self._root / key}"):
            fd = self._open(key)
            if fd is None:
                raise NotFoundError(f"no object {key!r} in {self.url}, list its prefix to see what there is")
            try:
                if if_generation is not None:
                    live = self._sidecars.bind(key, os.fstat(fd))
                    if live.generation != if_generation:
                        raise stale(key, live=live.generation, named=if_generation)
                return _read(fd, start, length)
            finally:
                os.close(fd)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        with explained(f"list {self._root / prefix.lstrip('/')}"):
            if self._root.is_file():
                raise SpecError(f"store {self.url} is a file; give a directory")
            for key in walk(self._root, prefix):
                info = self._facts(key)
                if info is not None:
                    yield info

    def delete(self, key: str, *, if_generation: str | None = None) -> bool:
        """See `Store.delete`."""
        check_key(key)
        path = self._root / key
        with explained(f"delete {path}"):
            if self._sidecars.look(key) is None:
                return False
            self._sweep_once()
            with self._lock(key):
                live = self._sidecars.look(key)
                if live is None:
                    return False
                if if_generation is not None and live.generation != if_generation:
                    raise stale(key, live=live.generation, named=if_generation)
                self._unlink(key, live.generation)
            prune_folders(path.parent, self._root)
            return True

    def _unlink(self, key: str, generation: str) -> None:
        path = self._root / key
        note = self._scratch / f"{secrets.token_hex(12)}.json"
        with suppress(OSError):  # for whoever sweeps after our death; a full disk must not keep us from deleting
            write_note(note, {"key": key, "generation": generation})
        try:
            path.unlink()
            sync_folder(path.parent)
            self._sidecars.forget(key, generation)
        finally:
            forget(note)

    # Reading.

    def _open(self, key: str) -> int | None:
        """Return a descriptor of the live file, or None. Never blocks on what is no file."""
        try:
            fd = os.open(self._root / key, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in NO_FILE:
                return None
            raise
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def _facts(self, key: str) -> ObjectInfo | None:
        while True:
            live = self._sidecars.look(key)
            if live is None:
                return None
            if live.sidecar is not None:
                return _info_of(live.sidecar)
            crc = self._checksum(key, live.status)
            if crc is not None:
                return ObjectInfo(key, live.status.st_size, live.generation, crc, _utc(live.status.st_mtime_ns))

    def _checksum(self, key: str, status: os.stat_result) -> int | None:
        """Return the crc32c of a foreign file, or None when it is no longer the one looked at."""
        fd = self._open(key)
        if fd is None:
            return None
        try:
            if identity(os.fstat(fd)) != identity(status):
                return None
            crc = at = 0
            while chunk := _read(fd, at, min(COPY_BYTES, status.st_size - at)):
                crc, at = google_crc32c.extend(crc, chunk), at + len(chunk)
        finally:
            os.close(fd)
        return crc

    # Writing.

    def _demand(self, key: str, if_generation: str) -> None:
        live = self._sidecars.look(key)
        generation = live.generation if live else ABSENT
        if generation != if_generation:
            raise stale(key, live=generation, named=if_generation)

    def _commit(self, key: str, body: Path, if_generation: str) -> None:
        if if_generation == ABSENT:
            self._create(key, body)
            return
        with self._lock(key):
            self._demand(key, if_generation)
            path = self._root / key
            body.replace(path)
            sync_folder(path.parent)
            self._sidecars.forget(key, if_generation)

    def _create(self, key: str, body: Path) -> None:
        """Link the body to its name. Needs no lock: a link never replaces, and only what exists is swapped."""
        path = self._root / key
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
            make_folder((self._root / key).parent)
        except FileNotFoundError:
            return  # pruned in between: the link fails and it is tried again
        except NotADirectoryError as error:
            above = Path(error.filename)
            if self._root not in above.parents:
                raise
            raise SpecError(f"key {key!r} lies under the object {above.name!r}, choose another key") from error

    def _refuse_existing(self, key: str) -> None:
        live = self._sidecars.look(key)
        if live is not None:
            raise stale(key, live=live.generation, named=ABSENT)
        try:
            (self._root / key).rmdir()  # an empty folder is no object
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise
            raise SpecError(f"key {key!r} is the folder of other objects, choose another key") from error

    def _lock(self, key: str, *, wait_s: float = LOCK_WAIT_S) -> AbstractContextManager[None]:
        make_folder(self._locks)
        digest = blake2b(key.encode(), digest_size=8).digest()
        return locked(self._locks / f"{int.from_bytes(digest) % _LOCKS:03x}", wait_s=wait_s)

    # Leftovers of killed writers.

    def _sweep_once(self) -> None:
        """Remove, once per handle, what writers left that died a while ago."""
        if self._is_swept:
            return
        self._is_swept = True
        for path in sorted(self._scratch.glob("*")):
            with suppress(OSError, TransientError):  # swept by another, or not ours to remove: no reason not to write
                if path.suffix == ".body":
                    self._sweep(path)
                elif not path.with_suffix(".body").exists():
                    self._tidy(path)  # of a delete, or of a swap that died after its commit: the body was renamed
                    forget(path)

    def _sweep(self, body: Path) -> None:
        """Remove a dead writer's leftovers; the living hold a lock on their body, soon after they made it."""
        fd = os.open(body, os.O_RDWR | os.O_CLOEXEC)
        try:
            if time.time() - os.fstat(fd).st_mtime >= self._stale_s and try_lock(fd):
                note = body.with_suffix(".json")
                self._tidy(note)
                forget(note)
                forget(body)
        finally:
            os.close(fd)

    def _tidy(self, path: Path) -> None:
        """Remove the sidecars that a writer without success left: its own and what it replaced, unless live."""
        note = read_note(path)
        for name in ("generation", "replaces"):
            if note.get(name, ABSENT) != ABSENT:
                self._sidecars.forget(str(note["key"]), str(note[name]))


def _info_of(sidecar: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(
        key=sidecar["key"],
        size=sidecar["size"],
        generation=sidecar["generation"],
        crc32c=sidecar["crc32c"],
        updated=_utc(sidecar["mtime_ns"]),
        metadata=dict(sidecar["metadata"]),
    )


def _utc(time_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def _read(fd: int, start: int, length: int | None) -> bytes:
    left = max(0, os.fstat(fd).st_size - start)
    left = left if length is None else min(left, length)
    chunks = []
    while left and (chunk := os.pread(fd, left, start)):
        chunks.append(chunk)
        start, left = start + len(chunk), left - len(chunk)
    return b"".join(chunks)
