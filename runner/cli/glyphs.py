"""What a stream gets in place of a character that its encoding does not have."""

from __future__ import annotations

import codecs
from collections.abc import Mapping

ERRORS = "runner.glyphs"
"""The name to give as `errors` of a stream, once `register` was called."""

# The characters that we draw and punctuate with; one column for one, so that tables and pictures stay aligned.
_PLAIN: Mapping[str, str] = {
    "·": "-",
    "▒": ":",
    "▓": "+",
    "■": "#",
    "█": "#",
    "│": "|",
    "┼": "+",
    "…": "~",
    "→": ">",
}


def register() -> None:
    """Make ERRORS known: our own characters become ASCII ones, all others escapes."""
    codecs.register_error(ERRORS, _plain)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lost), error.end
