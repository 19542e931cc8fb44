"""Durable steps on a POSIX file system, each atomic or repeatable; the file store is built of these.

Locks are `flock`: the kernel drops them when their holder dies, so a killed process blocks nobody.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import google_crc32c

from runner.errors import NotAllowedError, NotFoundError, RunnerError, SpecError, TransientError

COPY_BYTES = 1 << 20
LOCK_WAIT_S = 60.0
_LOCK_POLL_S = (0.0005, 0.05)

_KINDS: Mapping[int, tuple[type[RunnerError], str]] = {
    errno.EACCES: (NotAllowedError, "grant this user access or choose another place"),
    errno.EPERM: (NotAllowedError, "grant this user access or choose another place"),
    errno.EROFS: (NotAllowedError, "mount it writable or choose another place"),
    errno.ENOTDIR: (SpecError, "a part of the path is a file, choose another place"),
    errno.EISDIR: (SpecError, "it is a folder, name a file"),
    errno.ELOOP: (SpecError, "its links go in a circle, choose another place"),
    errno.ENAMETOOLONG: (SpecError, "the path is too long, choose a shorter place"),
    errno.ENOSPC: (TransientError, "free some space, then try again"),
    errno.EDQUOT: (TransientError, "free some space, then try again"),
    errno.EFBIG: (TransientError, "raise the limit of file sizes, then try again"),
}


@contextmanager
def explained(action: str) -> Iterator[None]:
    """Turn an OSError inside into the error of ours that says what to do, in one line."""
    try:
        yield
    except OSError as error:
        kind, way_out = _KINDS.get(error.errno or 0, (TransientError, "look at the disk, then try again"))
        where = f" ({error.filename})" if error.filename and str(error.filename) not in action else ""
        raise kind(f"cannot {action}: {error.strerror or error}{where}, {way_out}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; a folder that is gone, or cannot be synced by design, needs nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably.

    Raises NotADirectoryError when a part is a file, FileNotFoundError when another removes one meanwhile.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir() and os.path.lexists(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    sync_folder(path.parent)


def prune_folders(path: Path, top: Path) -> None:
    """Remove a folder and those above it below `top`, as far as they are empty."""
    while path != top:
        try:
            path.rmdir()
        except OSError:
            return  # not empty, already gone, or not ours to remove: an empty folder harms nobody
        path = path.parent


def forget(path: Path) -> None:
    """Unlink a file that nobody needs any more; what stays is swept later."""
    with suppress(OSError):
        path.unlink()


@contextmanager
def locked(path: Path, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the lock of that file, which stays for ever: removing it would give two holders.

    Raises TransientError when another holds it for longer than `wait_s` (frozen, most likely).
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _wait_for(fd, path, wait_s)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # closing alone would not, if this process forked meanwhile
    finally:
        os.close(fd)


def _wait_for(fd: int, path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    pause, most = _LOCK_POLL_S
    while not try_lock(fd):
        if time.monotonic() >= deadline:
            raise TransientError(
                f"lock {path} is held by another process for {wait_s:g} s, see with lslocks who, then try again"
            )
        time.sleep(pause)
        pause = min(pause * 2, most)


def try_lock(fd: int) -> bool:
    """Take the lock of an open file unless another open file has it; tell whether it was taken."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Scratch:
    """The leftovers-to-be of one writer: `<random>.body`, locked while the writer lives, and `<random>.json`.

    A free lock therefore means a dead writer, however slow the living are. The body is the last to go.
    """

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.body = folder / f"{secrets.token_hex(12)}.body"
        self.note = self.body.with_suffix(".json")
        self._fd = os.open(self.body, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> Self:
        try_lock(self._fd)
        return self

    def __exit__(self, *_: object) -> None:
        forget(self.note)
        forget(self.body)
        os.close(self._fd)

    def fill(self, body: bytes | Path) -> tuple[int, int]:
        """Write the body; return its (size, crc32c)."""
        size = crc = 0
        for chunk in chunks(body):
            _write(self._fd, chunk)
            crc = google_crc32c.extend(crc, chunk)
            size += len(chunk)
        return size, crc

    def stamp(self, at_ns: int) -> int:
        """Set the body's time and make it durable; return the time that the file system kept."""
        os.utime(self._fd, ns=(at_ns, at_ns))
        os.fsync(self._fd)
        return os.fstat(self._fd).st_mtime_ns


def write_note(path: Path, note: Mapping[str, Any]) -> None:
    """Write a small JSON file, durably but not atomically."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        _write(fd, json.dumps(note, sort_keys=True).encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def chunks(body: bytes | Path) -> Iterator[bytes]:
    """Yield the content in pieces of at most COPY_BYTES; NotFoundError when there is no such local file."""
    if not isinstance(body, Path):
        yield from (body[at : at + COPY_BYTES] for at in range(0, len(body), COPY_BYTES))
        return
    with explained(f"read {body}"):
        try:
            source = body.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise NotFoundError(f"no local file {body} to store, look what removed it") from error
        with source:
            while chunk := source.read(COPY_BYTES):
                yield chunk


def _write(fd: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(fd, rest) :]
