"""Sidecars of the file store: what a plain file cannot say of itself, found by the file's key and time.

A generation begins with that time in hexadecimal, so a generation finds its sidecar too.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from runner.errors import IntegrityError
from runner.store.disk import Scratch, forget, make_folder, sync_folder


def foreign_generation(status: os.stat_result) -> str:
    """Return the generation of a file that somebody else put into the store."""
    return f"{status.st_mtime_ns:x}-file-{status.st_ino:x}-{status.st_size:x}"


def read_note(path: Path) -> Mapping[str, Any]:
    """Return what a dead writer noted, nothing when it died while writing it, before anything else."""
    try:
        note: Mapping[str, Any] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return note


class Sidecars:
    """All sidecars of a store, in folders by the first byte of a hash of the key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: str, mtime_ns: int) -> Mapping[str, Any] | None:
        """Return the sidecar of a key's file with that time, or None."""
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
            scratch.write_note(sidecar)
            try:
                os.link(scratch.note, path)
            except FileExistsError:
                step_ns = step_ns * 2 or 1
                continue
            sync_folder(path.parent)
            return sidecar

    def forget(self, key: str, generation: str) -> None:
        """Remove the sidecar of a generation that is live no more."""
        mtime_ns = int(generation.partition("-")[0], 16)
        sidecar = self.read(key, mtime_ns)
        if sidecar is not None and sidecar["generation"] == generation:
            forget(self._path(key, mtime_ns))

    def _path(self, key: str, mtime_ns: int) -> Path:
        name = blake2b(key.encode(), digest_size=16).hexdigest()
        return self._folder / name[:2] / f"{name}.{mtime_ns:x}.json"
