"""Typed YAML: only what all readers read the same; and text in quotes wherever one of them could take it for more."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import SpecError
from runner.spec.files import dump, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, PLAIN, min_size=1, max_size=4))
def test_what_is_written_is_read_back_by_us_and_by_others(document: dict) -> None:
    text = dump(document, quoted=True)
    assert text.isascii()
    assert parse(text, name="x", typed=True) == yaml.safe_load(text) == document


@given(st.text("0123456789+-._:eExXoObBaAfFnN", min_size=1, max_size=8))
def test_what_looks_like_a_number_is_one_to_all_or_refused_or_text(text: str) -> None:
    """The oracle: JSON's whole numbers; YAML 1.1 (PyYAML) must not see more than text where we do."""
    try:
        ours = parse(f"a: {text}", name="x", typed=True)["a"]
    except SpecError:
        return
    other = yaml.safe_load(f"a: {text}")["a"]
    if isinstance(ours, int):
        assert ours == json.loads(text) == other
    else:
        assert not isinstance(other, int | float)
        assert ours == other


@pytest.mark.parametrize(
    "text", ["yes", "No", "ON", "y", "017", "0o17", "0x1f", "0b1", "1_0", "1e3", "1.5", "1:30", ".inf"]
)
def test_disputed_words_are_refused_plain_and_taken_in_quotes(text: str) -> None:
    with pytest.raises(SpecError, match="x:1: readers of YAML differ"):
        parse(f"a: {text}", name="x", typed=True)
    with pytest.raises(SpecError, match="x:1: readers of YAML differ"):
        parse(f"{text}: a", name="x", typed=True)
    assert parse(f"a: '{text}'", name="x", typed=True) == {"a": text}
    assert parse(f'a: "{text}"', name="x", typed=True) == {"a": text}


def test_run_files_have_no_types() -> None:
    assert parse("a: yes\nb: 017\nc: 1e3\nd:\ne: true", name="x") == {
        "a": "yes",
        "b": "017",
        "c": "1e3",
        "d": None,
        "e": "true",
    }


@pytest.mark.parametrize("text", ["<<: {a: b}", "a: 1\na: 2", "a: &b 1", "a: !!str 1", "? [a]\n: 1"])
def test_clever_yaml_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="x:"):
        parse(text, name="x", typed=True)
