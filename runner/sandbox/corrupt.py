"""Kinds of corruption: what fault `corrupt` can make of a good answer, by name. Some are sound files all the same.

Unless a kind says otherwise, Content-Length and x-md5 fit the changed body, so that only a look at it finds the fault.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from runner.sandbox.replies import EMPTY_GZIP, Body, Content, File, Reply, md5
from runner.sandbox.spoilt_rows import ROW_KINDS, Change, spoilt

_MAGIC = b"\x1f\x8b"
_BOMB_PART_BYTES, _BOMB_PARTS = 16 * 1024 * 1024, 64
_MANY_ROWS = 1_000_000
_BLOCK_BYTES = 1024 * 1024
_HTML = (
    b"<!DOCTYPE html>\n<html><head><title>Just a moment...</title></head><body>Checking your browser</body></html>\n"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: what it is, and the answer that it makes of a good one."""

    what: str
    spoil: Callable[[Reply], Reply]


def _with_body(reply: Reply, body: Body) -> Reply:
    """Return a reply with another body; a checksum, where there was one, fits it."""
    fitting = {"x-md5": f'"{md5(body)}"'} if "x-md5" in reply.headers else {}
    return replace(reply, body=body, headers={**reply.headers, **fitting})


def _bytes(reply: Reply) -> bytes:
    return b"".join(reply.body.chunks(0, reply.body.size))


def _text(reply: Reply) -> bytes:
    body = _bytes(reply)
    return gzip.decompress(body) if body.startswith(_MAGIC) else body


def _packed(text: bytes) -> bytes:
    return gzip.compress(text, 1, mtime=0)


def _of_bytes(change: Callable[[bytes], bytes]) -> Callable[[Reply], Reply]:
    return lambda reply: _with_body(reply, Content(change(_bytes(reply))))


def _of_rows(change: Change) -> Callable[[Reply], Reply]:
    return lambda reply: _with_body(reply, Content(_packed(spoilt(_text(reply), change))))


def _same_checksum(spoil: Callable[[Reply], Reply]) -> Callable[[Reply], Reply]:
    """Return a kind that keeps the x-md5 of the whole body."""
    return lambda reply: replace(spoil(reply), headers=reply.headers)


def _trailer(start: int, stop: int) -> Callable[[Reply], Reply]:
    """Return a kind that flips some of a gzip file's last eight bytes: four of the CRC, four of the length."""

    def spoil(reply: Reply) -> Reply:
        size = reply.body.size
        tail = bytearray(b"".join(reply.body.chunks(max(0, size - 8), size)))
        tail[start:stop] = bytes(byte ^ 0xFF for byte in tail[start:stop])
        if isinstance(reply.body, File):
            return _with_body(reply, replace(reply.body, tail=bytes(tail)))
        return _with_body(reply, Content(b"".join(reply.body.chunks(0, max(0, size - 8))) + bytes(tail)))

    return spoil


def _html(reply: Reply) -> Reply:
    return Reply(reply.status, {"Content-Type": "text/html; charset=UTF-8"}, Content(_HTML))


def _wrong_md5(reply: Reply) -> Reply:
    wrong = hashlib.md5(b"another file", usedforsecurity=False).hexdigest()
    return replace(reply, headers={**reply.headers, "x-md5": f'"{wrong}"'})


def _halves(text: bytes) -> tuple[bytes, bytes]:
    """Return a text cut in two at a line end near its middle."""
    cut = text.find(b"\n", len(text) // 2) + 1
    return text[:cut], text[cut:]


def _two_members(reply: Reply) -> Reply:
    return _with_body(reply, Content(b"".join(_packed(half) for half in _halves(_text(reply)))))


def _first_member(reply: Reply) -> Reply:
    whole = _two_members(reply)
    return replace(whole, body=Content(_packed(_halves(_text(reply))[0])))


def _many_rows(reply: Reply) -> Reply:
    header, _, rows = _text(reply).partition(b"\n")
    if not rows:
        return reply
    block = rows * max(1, _BLOCK_BYTES // len(rows))
    times = -(-_MANY_ROWS // block.count(b"\n"))
    return _with_body(reply, Content(_packed(header + b"\n") + _packed(block) * times))


def _bomb(_body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return (packer.compress(bytes(_BOMB_PART_BYTES)) + packer.flush()) * _BOMB_PARTS


def _drifted(reply: Reply) -> Reply:
    """Return an exchange's document whose symbols all end a day earlier; another body stays as it is."""
    try:
        document = json.loads(_text(reply))
        for item in document["datasets"]["symbols"]:
            until = datetime.fromisoformat(item["availableTo"]) - timedelta(days=1)
            item["availableTo"] = f"{until:%Y-%m-%dT%H:%M:%S.000Z}"
    except (ValueError, KeyError, TypeError):
        return reply
    packed: Callable[[bytes], bytes] = _packed if "Content-Encoding" in reply.headers else bytes
    return _with_body(reply, Content(packed(json.dumps(document).encode())))


_FILE_KINDS: Mapping[str, Kind] = {
    "html": Kind("a page with status 200, as a firewall sends", _html),
    "empty_body": Kind("no byte at all", _of_bytes(lambda _: b"")),
    "wrong_md5": Kind("x-md5 is another file's", _wrong_md5),
    "truncated_gzip": Kind("the first two thirds, of fitting length", _of_bytes(lambda b: b[: len(b) * 2 // 3])),
    "gzip_trailer": Kind("a wrong CRC", _trailer(0, 4)),
    "gzip_length": Kind("a wrong length after the CRC", _trailer(4, 8)),
    "trailing_garbage": Kind("bytes after the last member", _of_bytes(lambda body: body + b"\x00garbage")),
    "gzip_bomb": Kind("a gigabyte of zeros in a megabyte", _of_bytes(_bomb)),
    "fewer_rows": Kind(
        "a sound file without its second half; x-md5 is of all",
        _same_checksum(_of_rows(lambda c: _halves(_lines(c))[0])),
    ),
    "first_member": Kind("the first of two members; x-md5 is of both", _first_member),
    "replaced": Kind("another sound file: without its last row", _of_rows(lambda c: _lines(c[:-1]))),
    "two_members": Kind("a sound file of two gzip members", _two_members),
    "many_rows": Kind("a sound file of a million rows", _many_rows),
    "empty_gzip": Kind("a sound file of a day without rows", _of_bytes(lambda _: EMPTY_GZIP)),
    "header_only": Kind("a sound file of a header and no rows", _of_rows(lambda c: _lines(c[:1]))),
    "catalogue_drift": Kind("an exchange's document: its symbols end a day earlier", _drifted),
}


def _lines(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


BODIES: Mapping[str, Kind] = {
    **_FILE_KINDS,
    **{name: Kind(what, _of_rows(change)) for name, (what, change) in ROW_KINDS.items()},
}
"""Kinds that make another answer of a good one."""

ANSWERS: Mapping[str, str] = {
    "hang_up": "the connection ends before a byte of the answer",
    "silence": "the connection stays open and nothing is answered",
    "slow_head": "the headers come byte by byte, one in a tenth of a second",
}
"""Kinds that concern the connection: `wire` carries them out."""

CORRUPTIONS: Mapping[str, str] = {**{name: kind.what for name, kind in BODIES.items()}, **ANSWERS}
"""Every kind by name, and what it is."""
