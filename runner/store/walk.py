"""Keys of the plain files in a folder, in the order of an object store's listing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from runner.store.keys import key_fault

_SCANS = 3


def walk(root: Path, prefix: str) -> Iterator[str]:
    """Yield the keys below `root` that start with `prefix`, ascending by UTF-8 bytes, a folder at a time.

    Names that are no keys are passed over, so is a folder that vanishes. Memory is bounded by the widest folder.
    """
    folder, slash, start = prefix.rpartition("/")
    if not slash or not key_fault(folder):
        yield from _walk(root, folder + slash, start)


def _walk(root: Path, folder: str, start: str) -> Iterator[str]:
    # A folder sorts as its name with the `/`, because that is how the keys below it go on.
    for name in sorted(_names(root / folder), key=os.fsencode):
        key = folder + name.rstrip("/")
        if not name.startswith(start) or key_fault(key):
            continue
        if name.endswith("/"):
            yield from _walk(root, f"{key}/", "")
        else:
            yield key


def _names(folder: Path) -> set[str]:
    """Return the names in a folder, those of folders with a `/`.

    Some file systems move a name to another place when its file is swapped, so that one pass can miss it; a folder
    that changed during the pass is therefore read again.
    """
    names: set[str] = set()
    for _ in range(_SCANS):
        try:
            before = folder.stat().st_mtime_ns
            with os.scandir(folder) as entries:
                names.update(f"{entry.name}/" if _is_folder(entry) else entry.name for entry in entries)
            if folder.stat().st_mtime_ns == before:
                break
        except (FileNotFoundError, NotADirectoryError):
            break
    return names


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself: no folder, and no file either when it is looked at
