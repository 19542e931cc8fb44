"""Aligned columns that can be read, grepped and cut; no colour, no frame."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from runner.logs import escape

_GAP = "  "


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows below a head, columns aligned, numbers to the right; text of others is escaped.

    >>> print(table(("A", "N"), [("x", 1), ("yy", 20)]))
    A    N
    x    1
    yy  20
    """
    given = [tuple(row) for row in rows]
    lines = [tuple(head), *(tuple(escape(str(cell)) for cell in row) for row in given)]
    widths = [max(width(line[column]) for line in lines) for column in range(len(head))]
    right = [bool(given) and all(_is_number(row[column]) for row in given) for column in range(len(head))]
    return "\n".join(
        _GAP.join(
            _pad(cell, size, to_right=on_right) for cell, size, on_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def width(text: str) -> int:
    """Return the columns that text takes in a terminal.

    >>> width("BTC"), width("币安")
    (3, 4)
    """
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _pad(text: str, size: int, *, to_right: bool) -> str:
    fill = " " * (size - width(text))
    return fill + text if to_right else text + fill


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)
