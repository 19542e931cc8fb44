"""Candles as objects of the store: Parquet bytes with the list of inputs in the footer, and metadata with its hash."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from runner.ledger import canonical
from runner.market.names import OPTIONS_CHAIN
from runner.market.schema import SCHEMA_VERSION, Digest, writer_options
from runner.stages.convert import Subject
from runner.stages.inputs import Inputs
from runner.task import Stage

Objects = Mapping[str, tuple[bytes, dict[str, str]]]
"""Bytes and metadata by key."""


def candle_objects(
    subject: Subject, tables: Mapping[str, pa.Table], given: Inputs, facts: Mapping[str, str]
) -> Objects:
    """Return the objects of tables by timeframe. `facts` go into the metadata of each.

    `sealed` tells whether every input is settled; `stage` that neighbours and joined types were asked for.
    """
    common = {
        "source_md5": "",
        "min_ts": "",
        "max_ts": "",
        "inputs": given.hash,
        "schema": str(SCHEMA_VERSION),
        "sealed": "true" if given.sealed else "false",
        **facts,
    }
    if subject.data_type != OPTIONS_CHAIN:  # whose download makes the very same
        common["stage"] = str(Stage.CANDLES)
    own = {
        "day": str(subject.task.day),
        "data_type": subject.data_type,
        "venue": subject.venue,
        "key": subject.key,
        "inputs": canonical(given.document).decode(),
    }
    return {subject.derived[name]: _object(subject.derived[name], table, common, own) for name, table in tables.items()}


def _object(
    key: str, table: pa.Table, common: Mapping[str, str], own: Mapping[str, str]
) -> tuple[bytes, dict[str, str]]:
    digest = Digest(table.schema)
    digest.update(table)
    metadata = {**common, "rows": str(table.num_rows), "digest": digest.hexdigest()}
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, **writer_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata({**metadata, **own, "object": key})
    return sink.getvalue(), metadata
