"""What every store accepts and refuses, so that a store can be changed without renaming an object."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runner.errors import PreconditionError, SpecError

KEY_BYTES = 1024
"""The most UTF-8 bytes of a key: the limit of Google Cloud Storage."""

PART_BYTES = 255
"""The most UTF-8 bytes between two `/`: the limit of common file systems."""

METADATA_BYTES = 8192
"""The most that the names and values of one object's metadata may take, in UTF-8 bytes."""

RESERVED = ".runner"
"""The top-level folder that a file store keeps to itself; refused everywhere, in any case of letters."""

# A listing looks at every character of hundreds of thousands of keys.
_TORN = re.compile(r"[\ud800-\udfff]")
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_key(key: str) -> None:
    """Raise SpecError unless `key` names an object in every store.

    >>> check_key("completeness/day-2024-08-08/BINANCE.json")
    """
    fault = key_fault(key)
    if fault:
        raise SpecError(f"key {key[:80]!r} {fault}, use names joined by single '/'")


def key_fault(key: str) -> str | None:
    """Return what is wrong with a key, or None.

    >>> key_fault("a//b"), key_fault("../a"), key_fault("a/..b")
    ("has an empty part, '.' or '..'", "has an empty part, '.' or '..'", None)
    """
    parts = key.split("/")
    faults = (
        (any(part in {"", ".", ".."} for part in parts), "has an empty part, '.' or '..'"),
        (not _is_printed(key), "holds a control character or half a surrogate pair"),
        (_width(key) > KEY_BYTES, f"is longer than {KEY_BYTES} bytes"),
        (any(_width(part) > PART_BYTES for part in parts), f"has a part longer than {PART_BYTES} bytes"),
        (parts[0].lower() == RESERVED, f"lies under {RESERVED}/, which the store keeps to itself"),
    )
    return next((text for is_so, text in faults if is_so), None)


def check_metadata(key: str, metadata: Mapping[str, str]) -> None:
    """Raise SpecError unless `metadata` fits on one object: text, at most METADATA_BYTES, no empty name.

    >>> check_metadata("a", {"rows": "12"})
    """
    texts = [*metadata, *metadata.values()]
    if not all(isinstance(text, str) for text in texts) or "" in metadata:
        raise SpecError(f"metadata of {key!r} has an empty name or a value that is not text, write values as strings")
    if any(_is_torn(text) for text in texts):
        raise SpecError(f"metadata of {key!r} holds half a surrogate pair, write it as UTF-8 text")
    total = sum(_width(text) for text in texts)
    if total > METADATA_BYTES:
        raise SpecError(f"metadata of {key!r} takes {total} bytes, at most {METADATA_BYTES} fit: store less of it")


def check_range(key: str, start: int, length: int | None) -> None:
    """Raise SpecError unless [start, start + length) is a range of bytes.

    >>> check_range("a", 10, None)
    """
    if start < 0 or (length is not None and length < 0):
        raise SpecError(f"range start={start} length={length} of {key!r} is negative, count bytes from the start")


def stale(key: str, *, live: str, named: str) -> PreconditionError:
    """Return the error of a write or delete that named another generation than the live one; "" is no object.

    >>> str(stale("a", live="", named="7"))
    "object 'a' does not exist, not at generation 7: another writer was first, read it again"
    """
    is_at = f"is at generation {live}" if live else "does not exist"
    wanted = f"not at generation {named}" if named else "not absent"
    return PreconditionError(f"object {key!r} {is_at}, {wanted}: another writer was first, read it again")


def _width(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _is_torn(text: str) -> bool:
    return _TORN.search(text) is not None


def _is_printed(text: str) -> bool:
    return _UNPRINTED.search(text) is None
