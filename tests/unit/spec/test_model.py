import json
import subprocess
import sys
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runner.errors import SpecError, WorkerExit
from runner.spec import RunSpec, TardisSpec


@given(
    shards=st.integers(1, 100_000),
    days=st.dates(min_value=date(2019, 1, 1), max_value=date(2029, 1, 1)),
    instruments=st.lists(st.from_regex(r"[A-Z0-9:*_]{1,20}", fullmatch=True), max_size=5),
    stall_s=st.floats(0.001, 1e6),
)
def test_a_spec_survives_its_json(shards: int, days: object, instruments: list[str], stall_s: float) -> None:
    spec = RunSpec(
        store="memory://x",
        shards=shards,
        start_date=days,
        end_date=days,
        instruments=instruments,
        tardis=TardisSpec(stall_s=stall_s),
    )
    text = spec.to_json()
    assert RunSpec.from_json(text) == spec
    assert RunSpec.from_json(text).to_json() == text
    assert "\n" not in text


def test_json_has_camel_case_sorted_keys() -> None:
    document = json.loads(RunSpec(store="memory://x").to_json())
    assert list(document) == sorted(document)
    assert {"startDate", "dataTypes", "logFormat"} <= set(document)
    assert {"stallSeconds", "minBytesPerSecond"} <= set(document["tardis"])
    assert not any("key" in name.lower() for name in (*document, *document["tardis"]))


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        RunSpec().shards = 3


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "RUNNER_SPEC"),
        ('{"x": 1}', "RUNNER_SPEC:x: no such key"),
        ('{"tardis": {"stallSecond": 1}}', "did you mean tardis.stallSeconds?"),
        ('{"shards": 0}', "RUNNER_SPEC:shards 0: must be a whole number"),
        ('{"stage": "load"}', "no stage is called load"),
    ],
)
def test_a_bad_spec_of_a_worker_is_exit_64_and_names_the_key(text: str, part: str) -> None:
    with pytest.raises(SpecError, match="RUNNER_SPEC") as caught:
        RunSpec.from_json(text)
    assert part in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.worker_exit is WorkerExit.BAD_SPEC


def test_a_spec_is_read_without_pyarrow_or_numpy() -> None:
    code = "import sys, runner.spec; print(sorted({'pyarrow', 'numpy', 'rich', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_json_is_what_helm_writes() -> None:
    spec = RunSpec(store="memory://x", instruments="币安-USDT", tardis=TardisSpec(stall_s=2.5, connect_s=30.0))
    text = spec.to_json()
    assert '"instruments":["币安-USDT"]' in text
    assert '"connectSeconds":30,' in text
    assert '"stallSeconds":2.5,' in text


def test_the_schema_takes_the_defaults_and_what_reads_to_itself() -> None:
    """The bounds of the schema are those of the readers: a value at them is read, one beyond them refused by both."""
    schema = RunSpec.model_json_schema()["properties"]["shards"]
    for value, is_good in ((schema["minimum"], True), (schema["maximum"], True), (0, False), (100_001, False)):
        if is_good:
            assert RunSpec(shards=value).shards == value
        else:
            with pytest.raises(ValidationError):
                RunSpec(shards=value)
