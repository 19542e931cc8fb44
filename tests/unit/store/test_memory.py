from __future__ import annotations

import uuid

import pytest

from runner.errors import SpecError
from runner.store import open_store


def test_list_spans_pages_while_keys_come_and_go() -> None:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    old = [f"k/{i:05}" for i in range(2500)]
    for key in old:
        store.put(key, b"")
    seen = []
    for info in store.list("k/"):
        seen.append(info.key)
        if len(seen) % 500 == 0:
            store.put(f"{info.key}+", b"")  # just behind: may or may not be seen
            store.put(f"j/{info.key}", b"")
            store.delete(info.key)
    assert [key for key in seen if not key.endswith("+")] == old
    assert seen == sorted(set(seen))


def test_names_are_separate_stores() -> None:
    one, two = (open_store(f"memory://{uuid.uuid4().hex}") for _ in range(2))
    one.put("a", b"")
    assert two.head("a") is None


def test_store_needs_a_name() -> None:
    with pytest.raises(SpecError, match="memory://name"):
        open_store("memory:///")
