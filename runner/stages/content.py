"""Whether an object is what its metadata says: from the metadata alone, or by reading it again."""

from __future__ import annotations

from collections.abc import Mapping

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from runner.errors import NotFoundError, PreconditionError, TransientError
from runner.market.schema import Digest
from runner.store import ObjectInfo, Store, open_object
from runner.task import Outcome

_ATTEMPTS = 5
_BATCH_ROWS = 131_072
_CHUNK_BYTES = 1 << 20
OUTCOMES = frozenset(str(outcome) for outcome in Outcome if outcome.settled)
"""What our objects may say of themselves."""


def count(metadata: Mapping[str, str], name: str) -> int | None:
    """Return a whole number of an object's metadata, None where somebody else's object says something else.

    >>> count({"rows": "12"}, "rows"), count({"rows": "a dozen"}, "rows")
    (12, None)
    """
    text = metadata.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None


def fault(store: Store, info: ObjectInfo, *, deep: bool) -> str:
    """Return what is wrong with an object of ours, or an empty string.

    Shallow: its metadata must name a settled outcome, rows and a digest. Deep: bytes, rows and digest are counted anew,
    and the footer must name this very object.
    """
    if deep:
        return _fault_of_live(store, info)
    meta = info.metadata
    if meta.get("outcome") in OUTCOMES and meta.get("digest") and count(meta, "rows") is not None:
        return ""
    return f"{info.key} has no metadata of ours: its content is unproven"


def _fault_of_live(store: Store, info: ObjectInfo) -> str:
    live: ObjectInfo | None = info
    for _ in range(_ATTEMPTS):
        if live is None:
            return f"{info.key} was removed while it was read"
        try:
            return _deep_fault(store, live)
        except (PreconditionError, NotFoundError):
            live = store.head(info.key)  # replaced meanwhile
    raise TransientError(f"{info.key} in {store.url} changed {_ATTEMPTS} times while it was read; validate again")


def _deep_fault(store: Store, info: ObjectInfo) -> str:
    if (crc := checksum(store, info)) != info.crc32c:
        return f"{info.key} has bytes of checksum {crc:08x}, written were {info.crc32c:08x}"
    try:
        rows, digest, footer = _read(store, info)
    except (pa.ArrowException, OSError, ValueError) as e:
        return f"{info.key} cannot be read as Parquet: {str(e).splitlines()[0]}"
    if (name := footer.get("object")) != info.key:
        return f"{info.key} is the file of {name or 'another writer'}"
    stated = info.metadata or footer
    if stated.get("digest") != digest or stated.get("rows") != str(rows):
        says = f"{stated.get('rows')} of {stated.get('digest', '')[:12]}…"
        return f"{info.key} holds {rows} rows of digest {digest[:12]}…, its metadata says {says}"
    return ""


def checksum(store: Store, info: ObjectInfo) -> int:
    """Return the crc32c of an object's bytes as they are read now."""
    crc = 0
    with open_object(store, info) as file:
        while chunk := file.read(_CHUNK_BYTES):
            crc = google_crc32c.extend(crc, chunk)
    return crc


def _read(store: Store, info: ObjectInfo) -> tuple[int, str, dict[str, str]]:
    with open_object(store, info) as file, pq.ParquetFile(file, pre_buffer=False) as parquet:
        schema = parquet.schema_arrow.remove_metadata()
        digest = Digest(schema)
        for batch in parquet.iter_batches(_BATCH_ROWS, use_threads=False):
            digest.update(batch)
        footer = {k.decode(): v.decode() for k, v in (parquet.metadata.metadata or {}).items() if k != b"ARROW:schema"}
        return parquet.metadata.num_rows, digest.hexdigest(), footer
