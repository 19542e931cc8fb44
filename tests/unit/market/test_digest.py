"""The digest: what it must not notice, and what it must."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.market.schema import Digest

TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("timestamp", TIME),
        ("id", pa.string()),
        ("side", pa.string()),
        ("price", pa.float64()),
        ("flag", pa.bool_()),
        ("count", pa.int32()),
        ("types", pa.list_(pa.string())),
    ]
)
rows = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": st.none() | st.integers(0, 2**50),
            "id": st.none() | st.text(max_size=3),
            "side": st.none() | st.sampled_from(["buy", "sell"]),
            "price": st.none() | st.floats(allow_nan=False),
            "flag": st.none() | st.booleans(),
            "count": st.none() | st.integers(-5, 5),
            "types": st.none() | st.lists(st.none() | st.text(max_size=2), max_size=2),
        }
    ),
    max_size=20,
)


def table(content: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(content, schema=SCHEMA)


def digest(*parts: pa.Table | pa.RecordBatch, schema: pa.Schema | None = None) -> str:
    one = Digest(schema or parts[0].schema)
    for part in parts:
        one.update(part)
    return one.hexdigest()


@given(content=rows, data=st.data())
def test_batches_and_slices_do_not_matter(content: list[dict[str, object]], data: st.DataObject) -> None:
    whole = table(content)
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=5))
    parts = [whole.slice(start, end - start) for start, end in itertools.pairwise([0, *sorted(cuts), len(content)])]
    assert digest(*parts) == digest(whole)
    padded = table([*content[:3], *content, *content[:2]]).slice(len(content[:3]), len(content))
    assert digest(padded) == digest(whole)


@given(left=rows, right=rows)
def test_digests_are_equal_exactly_when_the_rows_are(
    left: list[dict[str, object]], right: list[dict[str, object]]
) -> None:
    def bits(content: list[dict[str, object]]) -> str:
        return repr(table(content).to_pylist())

    assert (digest(table(left)) == digest(table(right))) == (bits(left) == bits(right))


@given(content=rows)
def test_dictionary_encoding_does_not_matter(content: list[dict[str, object]]) -> None:
    plain = table(content)
    encoded = plain
    for at in (1, 2, 3):
        encoded = encoded.set_column(at, SCHEMA.field(at).name, plain.column(at).dictionary_encode())
    assert digest(encoded) == digest(plain) == digest(encoded, schema=SCHEMA)


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"use_dictionary": False, "data_page_size": 64}])
def test_a_file_read_back_has_the_digest_of_what_was_written(tmp_path: Path, options: dict[str, object]) -> None:
    content: list[dict[str, object]] = [
        {"timestamp": n, "id": str(n), "side": None if n % 3 else "buy", "price": n / 7, "types": ["a"] * (n % 3)}
        for n in range(1_000)
    ]
    pq.write_table(table(content), tmp_path / "x.parquet", row_group_size=77, **options)
    with pq.ParquetFile(tmp_path / "x.parquet") as file:
        assert digest(*file.iter_batches(batch_size=31)) == digest(table(content))


def test_what_lies_under_a_null_does_not_matter() -> None:
    dirty = pa.array(np.array([1.0, 2.0]), mask=np.array([False, True]))
    clean = pa.array([1.0, None])
    assert bytes(dirty.buffers()[1]) != bytes(clean.buffers()[1])
    assert digest(pa.table({"a": dirty})) == digest(pa.table({"a": clean}))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.array([0.0]), pa.array([None], pa.float64())),
        (pa.array([""]), pa.array([None], pa.string())),
        (pa.array([None, 1.0]), pa.array([1.0, None])),
        (pa.array([0.0]), pa.array([-0.0])),
        (pa.array(["a", "bc"]), pa.array(["ab", "c"])),
        (pa.array([[1], []]), pa.array([[], [1]])),
        (pa.array([[1, 2]]), pa.array([[1], [2]])),
        (pa.array([1], pa.int32()), pa.array([1], pa.int64())),
        (pa.array([1], TIME), pa.array([1], pa.timestamp("ns", tz="UTC"))),
        (pa.array([1], TIME), pa.array([1], pa.timestamp("us"))),
        (pa.array([1.0]), pa.array([1.0, 1.0])),
        (pa.array([], pa.float64()), pa.array([], pa.string())),
        (pa.array([True, False]), pa.array([False, True])),
    ],
)
def test_different_values_or_types_differ(left: pa.Array, right: pa.Array) -> None:
    assert digest(pa.table({"a": left})) != digest(pa.table({"a": right}))


def test_names_and_order_of_columns_matter() -> None:
    column = pa.array([1.0])
    tables = [{"a": column, "b": column}, {"b": column, "a": column}, {"a": column, "c": column}, {"a": column}]
    assert len({digest(pa.table(one)) for one in tables}) == 4


def test_metadata_leaves_no_trace() -> None:
    one = pa.table({"a": pa.array([math.nan])})
    assert digest(one) == digest(one.replace_schema_metadata({"k": "v"}))


def test_rows_of_another_schema_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        digest(pa.table({"a": [1.0]}), schema=SCHEMA)


def test_a_digest_may_be_read_on_the_way() -> None:
    one, column = Digest(pa.schema([("a", pa.float64())])), pa.table({"a": [1.0]})
    one.update(column)
    early = one.hexdigest()
    assert early == one.hexdigest()
    one.update(column)
    assert one.hexdigest() == digest(column, column) != early


def test_the_digest_of_known_rows_never_changes() -> None:
    known = table([{"timestamp": 1, "id": "a", "side": "buy", "price": 2.5, "flag": True, "count": 7, "types": ["x"]}])
    assert digest(known) == "b9cbc0f1cb775c07b87138a88a6802ed7c532b5be990ca26f9c41fb6f31e5946"
