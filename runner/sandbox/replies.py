"""What a sandbox answers: requests, replies and bodies as plain data; `wire` puts them on the socket."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

_CHUNK_BYTES = 64 * 1024
_RACY_NS = 2_000_000_000

# What the source sends for a day on which nothing happened: a gzip member of nothing, without a header line.
EMPTY_GZIP = gzip.compress(b"", mtime=0)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the applications see it; `path` is percent-decoded and without the query."""

    method: str
    path: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    address: str
    raw_query: str = ""

    @property
    def key(self) -> str | None:
        """Return the bearer key, None when there is none."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key.strip() or None if scheme.lower() == "bearer" else None


class Body(Protocol):
    """Bytes of known length that can be read from anywhere."""

    @property
    def size(self) -> int:
        """Return the length in bytes."""

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of [start, stop)."""


@dataclass(frozen=True, slots=True)
class Content:
    """A body in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Return the length in bytes."""
        return len(self.data)

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of [start, stop)."""
        for at in range(start, stop, _CHUNK_BYTES):
            yield self.data[at : min(stop, at + _CHUNK_BYTES)]


@dataclass(frozen=True, slots=True)
class File:
    """A body on disk, with `tail` in place of its last bytes."""

    path: Path
    size: int
    tail: bytes = b""

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of [start, stop)."""
        kept = self.size - len(self.tail)
        with self.path.open("rb") as file:
            file.seek(min(start, kept))
            for at in range(start, min(stop, kept), _CHUNK_BYTES):
                yield file.read(min(_CHUNK_BYTES, min(stop, kept) - at))
        if stop > kept:
            yield self.tail[max(start - kept, 0) : stop - kept]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: status, headers without the framing ones, body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=lambda: Content(b""))


def as_json(value: Any, status: int = 200) -> Reply:
    """Return a JSON answer."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Reply(status, {"Content-Type": "application/json; charset=utf-8"}, Content(text.encode()))


def refusal(status: int, code: int, message: str, **more: int) -> Reply:
    """Return the source's error document `{"code", "message", …}`."""
    return as_json({"code": code, "message": message, **more}, status)


def line(status: int, text: str) -> Reply:
    """Return one line of plain text."""
    return Reply(status, {"Content-Type": "text/plain; charset=utf-8"}, Content(text.encode() + b"\n"))


def not_found() -> Reply:
    """Return the 404 of a path that nobody serves."""
    return refusal(404, 404, "Not found")


def md5(body: Body) -> str:
    """Return the hex MD5 of a body, read in pieces."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in body.chunks(0, body.size):
        digest.update(chunk)
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _settled_md5(path: Path, size: int, _changed_ns: int, _inode: int) -> str:
    return md5(File(path, size))


def csv_file(path: Path) -> Reply:
    """Return a day file as the source sends it; a file of no bytes at all stands for a day without rows."""
    stat = path.stat()
    if not stat.st_size:
        return csv_reply(Content(EMPTY_GZIP))
    body = File(path, stat.st_size)
    # A file changed so recently may change again within one tick of its time.
    if time.time_ns() - stat.st_ctime_ns < _RACY_NS:
        return csv_reply(body)
    return csv_reply(body, _settled_md5(path, stat.st_size, stat.st_ctime_ns, stat.st_ino))


def csv_reply(body: Body, checksum: str | None = None) -> Reply:
    """Return a 200 with the headers of a day file: the body is gzip, and no Content-Encoding says so."""
    return Reply(200, {"Content-Type": "text/csv", "x-md5": f'"{checksum or md5(body)}"'}, body)
