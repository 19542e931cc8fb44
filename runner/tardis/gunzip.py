"""Streaming gunzip that trusts nothing: every member must end with its checksum, and nothing else may follow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from isal import isal_zlib

from runner.errors import IntegrityError

_PIECE_BYTES = 1024 * 1024
_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 31
_SHOWN_BYTES = 60
# The stub of isal declares an instance, not a class.
_DamagedError: Any = isal_zlib.IsalError


def inflated(chunks: Iterator[bytes], piece_bytes: int = _PIECE_BYTES) -> Iterator[bytes]:
    """Yield what a gzip stream of one or more members holds, in pieces of at most `piece_bytes`.

    Raises IntegrityError for an empty body, a cut, a bad checksum or length, and anything that is not gzip.
    """
    member: Any = None
    begun = False
    for chunk in chunks:
        data = chunk
        while data:
            if member is None:
                _check_magic(data, first=not begun)
                member, begun = isal_zlib.decompressobj(_GZIP_WBITS), True
            yield from _pieces(member, data, piece_bytes)
            data = member.unused_data
            member = None if member.eof else member
    if not begun:
        raise IntegrityError("an empty body, which is no gzip file")
    if member is not None:
        raise IntegrityError("the gzip stream is cut: it ends before its checksum")


def _pieces(member: Any, data: bytes, piece_bytes: int) -> Iterator[bytes]:
    while True:
        try:
            piece = member.decompress(data, piece_bytes)
        except _DamagedError as e:
            raise IntegrityError(f"damaged gzip stream: {e}") from e
        if piece:
            yield piece
        data = member.unconsumed_tail
        # a full piece may leave output behind inside the decompressor, with no input to show for it
        if member.eof or (not data and len(piece) < piece_bytes):
            return


def _check_magic(data: bytes, *, first: bool) -> None:
    # a chunk may end inside the two bytes: the decompressor judges the rest
    if data[:2] == _MAGIC[: len(data)]:
        return
    shown = " ".join(data[:_SHOWN_BYTES].decode("ascii", "replace").split())
    if not first:
        raise IntegrityError(f"garbage after the end of the gzip stream: {shown!r}")
    page = "an HTML page" if data.lstrip().startswith(b"<") else "something else"
    raise IntegrityError(f"not gzip but {page}: {shown!r}")
