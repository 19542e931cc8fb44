"""Every example runs as it stands, and a second time finds nothing to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.conftest import ROOT, Terminal

EXAMPLES = sorted((ROOT / "examples").iterdir())


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs_whole_and_then_has_nothing_to_do(example: Path, terminal: Terminal, tmp_path: Path) -> None:
    submit = f".venv/bin/runner submit -f examples/{example.name}"
    assert submit in example.read_text(encoding="utf-8")
    first = terminal(submit)
    assert first.returncode == 0, first.stderr
    assert list((tmp_path / "data").rglob("*.parquet"))
    again = terminal(submit)
    assert again.returncode == 0, again.stderr
    assert "nothing to do" in again.stdout + again.stderr


def test_examples_are_numbered() -> None:
    assert [int(path.name[:2]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))
    assert all(re.fullmatch(r"\d\d-[a-z-]+\.yaml", path.name) for path in EXAMPLES)
