"""Grouped files: the rows of all symbols of a type in one file, merged by time of arrival from the members' files."""

from __future__ import annotations

import gzip
import heapq
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

GROUPS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "SPOT": ("spot", ("trades",)),
    "PERPETUALS": ("perpetual", ("trades", "derivative_ticker", "liquidations")),
    "FUTURES": ("future", ("trades", "incremental_book_L2", "derivative_ticker", "liquidations")),
    "OPTIONS": ("option", ("trades", "options_chain", "quotes", "liquidations")),
}
"""Symbol of a grouped file to the type of its members and the data types that there are grouped files of."""

_GZIP_LEVEL, _GZIP_WBITS = 1, 31
_LOCAL_TIMESTAMP = 3
_CHUNK_LINES = 10_000


def merged_chunks(paths: Sequence[Path]) -> Iterator[bytes]:
    """Yield the bytes of a grouped file, gzip'd CSV; equal times in the order of `paths`."""
    out = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WBITS)
    with ExitStack() as stack:
        files = [stack.enter_context(gzip.open(path)) for path in paths]
        headers = [header for file in files if (header := next(file, b""))]
        held = headers[:1]
        for line in heapq.merge(*files, key=_arrival):
            held.append(line)
            if len(held) >= _CHUNK_LINES:
                yield out.compress(b"".join(held))
                held = []
        yield out.compress(b"".join(held))
    yield out.flush()


def _arrival(line: bytes) -> int:
    return int(line.split(b",", _LOCAL_TIMESTAMP + 1)[_LOCAL_TIMESTAMP])
