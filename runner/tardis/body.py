"""Bodies: a file's, hashed and counted while it is read, and a JSON document's."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from runner.errors import IntegrityError
from runner.tardis.wire import Reply

_JSON_BYTES = 256 * 1024 * 1024


class Body:
    """The compressed chunks of one answer, to be read once; afterwards its size, and its MD5 as lower-case hex."""

    def __init__(self, reply: Reply, on_bytes: Callable[[int], None]) -> None:
        self.size = 0
        self._reply = reply
        self._on_bytes = on_bytes
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._ended = False
        self.chunks = self._read()

    @property
    def md5(self) -> str:
        """Return the MD5 of what was read so far."""
        return self._md5.hexdigest()

    def _read(self) -> Iterator[bytes]:
        for piece in self._reply.chunks():
            self.size += len(piece)
            self._md5.update(piece)
            self._on_bytes(len(piece))
            yield piece
        self._ended = True

    def finish(self, *, drain: bool = False) -> None:
        """Check that all was read (`drain`: read it now), that there was something, and `x-md5` where sent."""
        unread = next(self.chunks, None) is not None
        while drain and next(self.chunks, None) is not None:
            pass
        if not self._ended or (unread and not drain):
            raise IntegrityError(f"the reader stopped after {self.size} bytes, before the end of the body")
        if self.size == 0:
            raise IntegrityError("an empty body, which is no gzip file")
        if self._reply.md5 is not None and self._reply.md5 != self.md5:
            raise IntegrityError(f"the body's MD5 is {self.md5}, x-md5 says {self._reply.md5}")


def document(reply: Reply) -> Any:
    """Return the JSON body of an answer; IntegrityError when it is none."""
    body = bytearray()
    gzipped = reply.headers.get("Content-Encoding", "").strip().lower() == "gzip"
    inflate = zlib.decompressobj(31)
    try:
        for piece in reply.chunks():
            body += inflate.decompress(piece, _JSON_BYTES + 1) if gzipped else piece
            if len(body) > _JSON_BYTES:
                raise IntegrityError(f"more than {_JSON_BYTES} bytes of JSON")
        if gzipped and not inflate.eof:
            raise IntegrityError("the gzip stream of the JSON is cut")
        return json.loads(body)
    except (zlib.error, ValueError, RecursionError) as e:
        raise IntegrityError(f"no valid JSON: {e}") from e


def objects(items: Any) -> list[dict[str, Any]]:
    """Return a JSON array of objects as it is; IntegrityError for anything else."""
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise IntegrityError("valid JSON, but not the objects expected; check the Tardis API URL")
    return items
