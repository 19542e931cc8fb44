"""What the documents say is so: sizes, links, files, commands, exit codes, and the lines a reader would type."""

from __future__ import annotations

import re

import pytest

from runner.cli.app import COMMANDS
from runner.errors import Exit
from tests.docs.conftest import ROOT, Terminal

MOST_LINES = {"README.md": 200, "ARCHITECTURE.md": 150, "CONTRIBUTING.md": 60}
FOLDERS = ("runner/", "tests/", "scripts/", "examples/")


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def shell_lines(document: str) -> list[str]:
    """Return the lines of a document's `sh` blocks that call our command."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text(document), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith(".venv/bin/runner ")]


@pytest.mark.parametrize("document", MOST_LINES)
def test_document_is_short(document: str) -> None:
    assert len(text(document).splitlines()) <= MOST_LINES[document]


@pytest.mark.parametrize("document", MOST_LINES)
def test_files_named_by_a_document_exist(document: str) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", text(document))
    code = [word.rstrip(":,") for span in re.findall(r"`([^`\n]+)`", text(document)) for word in span.split()]
    named = links + [word for word in code if word.startswith(FOLDERS) and not re.search(r"[<>*{]", word)]
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", MOST_LINES)
def test_commands_named_by_a_document_exist(document: str) -> None:
    named = set(re.findall(r"(?<![\w/-])(?:\.venv/bin/)?runner ([a-z]+)\b(?=[^\n]*`)", text(document)))
    assert named <= set(COMMANDS)


def test_readme_lists_every_exit_code() -> None:
    section = text("README.md").partition("## Exit codes")[2].partition("\n## ")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", section, flags=re.MULTILINE)] == [int(e) for e in Exit]


@pytest.mark.timeout(400)  # real days are done, by several processes: a machine with other work needs longer
def test_lines_of_the_readme_work_in_their_order(terminal: Terminal) -> None:
    lines = [line for line in shell_lines("README.md") if " demo" not in line]
    assert lines
    for line in lines:
        done = terminal(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
