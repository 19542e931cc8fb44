"""Whether an object is what its metadata says: from the metadata alone, or by reading it again."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from runner.market.schema import Digest
from runner.store import ObjectInfo, Store, open_object
from runner.task import Outcome

_BATCH_ROWS = 131_072
_OUTCOMES = frozenset(outcome for outcome in Outcome if outcome.settled)


def fault(store: Store, info: ObjectInfo, *, deep: bool) -> str:
    """Return what is wrong with an object of ours, or an empty string.

    Shallow: its metadata must name a settled outcome, rows and a digest. Deep: rows and digest are counted anew.
    """
    meta = info.metadata
    if not deep:
        if meta.get("outcome") in _OUTCOMES and meta.get("digest") and meta.get("rows", "").isdecimal():
            return ""
        return f"{info.key} has no metadata of ours: its content is unproven"
    try:
        rows, digest, footer = _read(store, info)
    except (pa.ArrowException, OSError, ValueError) as e:
        return f"{info.key} cannot be read as Parquet: {str(e).splitlines()[0]}"
    stated = meta or footer
    if stated.get("digest") != digest or stated.get("rows") != str(rows):
        says = f"{stated.get('rows')} of {stated.get('digest', '')[:12]}…"
        return f"{info.key} holds {rows} rows of digest {digest[:12]}…, its metadata says {says}"
    return ""


def _read(store: Store, info: ObjectInfo) -> tuple[int, str, dict[str, str]]:
    with open_object(store, info) as file, pq.ParquetFile(file) as parquet:
        schema = parquet.schema_arrow.remove_metadata()
        digest = Digest(schema)
        for batch in parquet.iter_batches(_BATCH_ROWS, use_threads=False):
            digest.update(batch)
        footer = {k.decode(): v.decode() for k, v in (parquet.metadata.metadata or {}).items() if k != b"ARROW:schema"}
        return parquet.metadata.num_rows, digest.hexdigest(), footer
