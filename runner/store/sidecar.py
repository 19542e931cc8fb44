"""What the file store knows of a file: its status, and the sidecar with what a plain file cannot say of itself.

A sidecar is found by the file's key and modification time, which no two files of one key share; a generation begins
with that time in hexadecimal, so a generation finds its sidecar too. A copy that keeps times keeps its sidecars.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from runner.errors import IntegrityError
from runner.store.disk import Scratch, forget, make_folder, sync_folder, write_note

NO_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What the system says of a path that leads to no file; ELOOP is a link to itself."""


@dataclass(frozen=True, slots=True)
class Live:
    """A file as it was looked at, with its sidecar unless somebody else put the file there."""

    status: os.stat_result
    sidecar: Mapping[str, Any] | None

    @property
    def generation(self) -> str:
        """Return the sidecar's generation, or one made of what changes with a foreign file."""
        if self.sidecar is not None:
            return str(self.sidecar["generation"])
        return f"{self.status.st_mtime_ns:x}-file-{self.status.st_ino:x}-{self.status.st_size:x}"


def identity(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what differs between two files, and between two states of one."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def read_note(path: Path) -> Mapping[str, Any]:
    """Return what a writer noted; nothing when it died while writing it, which is before anything else."""
    try:
        note: Mapping[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return note


class Sidecars:
    """All sidecars of a store's files, in folders by the first byte of a hash of the key."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._folder = folder

    def look(self, key: str) -> Live | None:
        """Return the live file and its sidecar, of one generation; None when there is no plain file.

        A missing sidecar means a swap or delete since the first look, unless the same file is still there: then the
        sidecar was missing while the file was live, so it is a file that somebody put here.
        """
        status = self._status(key)
        while status is not None:
            live = self.bind(key, status)
            if live.sidecar is not None:
                return live
            again = self._status(key)
            if again is not None and identity(again) == identity(status):
                return live
            status = again
        return None

    def bind(self, key: str, status: os.stat_result) -> Live:
        """Return the file of this status with the sidecar of exactly this file, if that is still there."""
        sidecar = self._read(key, status.st_mtime_ns)
        return Live(status, sidecar if sidecar is not None and sidecar["size"] == status.st_size else None)

    def write(self, scratch: Scratch, facts: Mapping[str, Any], *, now_ns: int) -> Mapping[str, Any]:
        """Give the body a time that no file of this key has, and its sidecar that name; return the sidecar.

        The link refuses a name that is taken; coarse clocks of file systems need wider steps, hence the doubling.
        """
        token = secrets.token_hex(8)
        step_ns = 0
        while True:
            mtime_ns = scratch.stamp(now_ns + step_ns)
            sidecar = {**facts, "generation": f"{mtime_ns:x}-{token}", "mtime_ns": mtime_ns}
            path = self._path(str(facts["key"]), mtime_ns)
            make_folder(path.parent)
            write_note(scratch.note, sidecar)
            try:
                os.link(scratch.note, path)
            except FileExistsError:
                step_ns = step_ns * 2 or 1
                continue
            sync_folder(path.parent)
            return sidecar

    def forget(self, key: str, generation: str) -> None:
        """Remove the sidecar of a generation, unless that is live."""
        live = self.look(key)
        if live is not None and live.generation == generation:
            return
        mtime_ns = int(generation.partition("-")[0], 16)
        sidecar = self._read(key, mtime_ns)
        if sidecar is not None and sidecar["generation"] == generation:
            forget(self._path(key, mtime_ns))

    def _status(self, key: str) -> os.stat_result | None:
        try:
            status = (self._root / key).stat()
        except OSError as error:
            if error.errno in NO_FILE:
                return None
            raise
        return status if stat.S_ISREG(status.st_mode) else None

    def _read(self, key: str, mtime_ns: int) -> Mapping[str, Any] | None:
        path = self._path(key, mtime_ns)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            sidecar: Mapping[str, Any] = json.loads(text)
        except ValueError as error:
            raise IntegrityError(f"sidecar {path} is damaged: {error}, remove it and write {key!r} anew") from error
        return sidecar

    def _path(self, key: str, mtime_ns: int) -> Path:
        name = blake2b(key.encode(), digest_size=16).hexdigest()
        return self._folder / name[:2] / f"{name}.{mtime_ns:x}.json"
