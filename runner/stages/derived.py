"""Candles as objects of the store: Parquet bytes with the list of inputs in the footer, and metadata with its hash."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from runner.ledger import canonical
from runner.market.schema import SCHEMA_VERSION, Digest, writer_options
from runner.stages.inputs import Inputs
from runner.task import Stage, Task

Objects = Mapping[str, tuple[bytes, dict[str, str]]]
"""Bytes and metadata by key."""


def candle_objects(
    task: Task, data_type: str, tables: Mapping[str, pa.Table], given: Inputs, facts: Mapping[str, str]
) -> Objects:
    """Return the objects of these tables by key. `facts` go into the metadata of each.

    `sealed` tells whether every input is settled; `stage` that neighbours and joined types were asked for.
    """
    common = {
        "source_md5": "",
        "min_ts": "",
        "max_ts": "",
        "inputs": given.hash,
        "schema": str(SCHEMA_VERSION),
        "sealed": "true" if given.sealed else "false",
        "stage": str(Stage.CANDLES),
        **facts,
    }
    own = {"day": str(task.day), "data_type": data_type, "venue": task.key.split(":", 1)[0], "key": task.key}
    return {key: _object(key, table, common, own, given) for key, table in tables.items()}


def _object(
    key: str, table: pa.Table, common: Mapping[str, str], own: Mapping[str, str], given: Inputs
) -> tuple[bytes, dict[str, str]]:
    digest = Digest(table.schema)
    digest.update(table)
    metadata = {**common, "rows": str(table.num_rows), "digest": digest.hexdigest()}
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, **writer_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        footer = {**metadata, **own, "object": key, "inputs": canonical(given.document).decode()}
        writer.add_key_value_metadata(footer)
    return sink.getvalue(), metadata
