"""Candles as objects of the store: Parquet bytes with the list of inputs in the footer, and metadata with its hash."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from runner.market.names import OPTIONS_CHAIN
from runner.market.schema import Digest, writer_options
from runner.stages.convert import Ticks
from runner.stages.inputs import Inputs
from runner.stages.subject import Span, Subject, facts_of, footer_of
from runner.task import Stage

Object = tuple[bytes, dict[str, str]]
"""Bytes and metadata."""


def candle_object(ticks: Ticks, *, key: str) -> Object:
    """Return the unsealed candles under `key`, made from these ticks alone."""
    subject = ticks.subject
    inputs = [{"data_type": subject.data_type, "day": str(subject.task.day), "digest": ticks.metadata["digest"]}]
    # Option features go by the clock that day files are cut by: no other file has anything to add.
    sealed = "true" if subject.data_type == OPTIONS_CHAIN else "false"
    own = {name: ticks.metadata[name] for name in ("outcome", "source_md5")} | {"sealed": sealed}
    return _object(subject, key, ticks.candles[key], inputs, own)


def candle_objects(
    subject: Subject, tables: Mapping[str, pa.Table], given: Inputs, facts: Mapping[str, str]
) -> Mapping[str, Object]:
    """Return the objects of tables by timeframe, by key. `facts`, the outcome among them, go into the metadata of each.

    `sealed` tells whether every input is settled; `stage` that neighbours and joined types were asked for.
    """
    own = {"sealed": "true" if given.sealed else "false", **facts}
    if subject.data_type != OPTIONS_CHAIN:  # whose download makes the very same
        own["stage"] = str(Stage.CANDLES)
    keys = {subject.derived[name]: table for name, table in tables.items()}
    return {key: _object(subject, key, table, given.document, own) for key, table in keys.items()}


def _object(subject: Subject, key: str, table: pa.Table, inputs: object, own: Mapping[str, str]) -> Object:
    digest, span = Digest(table.schema), Span()
    digest.update(table)
    span.add(table)
    metadata = facts_of(digest, span, inputs, own)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, **writer_options(table.schema)) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
        writer.add_key_value_metadata({**footer_of(subject, metadata, inputs), "object": key})
    return sink.getvalue(), metadata
