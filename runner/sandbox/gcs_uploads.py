"""How bytes reach the sandbox's buckets: in one request (media, multipart) or in chunks of a resumable session.

Protocol as https://cloud.google.com/storage/docs/performing-resumable-uploads has it: what was kept is told in a 308
with Range, bytes sent again are ignored, checksums and preconditions are judged (again) when the last byte is there.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.message import Message
from email.parser import BytesParser
from typing import Any

from runner.sandbox.gcs_objects import Checksums, Objects, Refused, Stored, check_fields, demand
from runner.sandbox.replies import Reply, Request, as_json

QUANTUM_BYTES = 256 * 1024
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)\Z")


@dataclass(slots=True)
class _Session:
    bucket: str
    name: str
    fields: Mapping[str, Any]
    query: Mapping[str, str]
    data: bytearray = field(default_factory=bytearray)
    stored: Stored | None = None


class Uploads:
    """The uploads of one sandbox and the sessions that are open."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._mutex = threading.Lock()
        self._sessions: dict[str, _Session] = {}

    def reset(self) -> None:
        """Forget all sessions."""
        with self._mutex:
            self._sessions.clear()

    def name_of(self, request: Request) -> str:
        """Return the name of the object that a request uploads, "" when it does not say."""
        session = self._sessions.get(request.query.get("upload_id", ""))
        if session is not None:
            return session.name
        try:
            return request.query.get("name") or str(_resource(request).get("name", ""))
        except Refused:
            return ""

    def answer(self, request: Request, bucket: str) -> Reply:
        """Answer a request below `/upload`."""
        if "upload_id" in request.query:
            with self._mutex:
                return self._go_on(request)
        if request.method != "POST":
            raise Refused(405, "methodNotAllowed", f"{request.method} without upload_id")
        kind, resource = request.query.get("uploadType", ""), _resource(request)
        name = str(request.query.get("name") or resource.get("name") or "")
        if kind == "resumable":
            return self._begin(request, bucket, name, resource)
        data = request.body if kind == "media" else _parts(request)[1]
        claimed = {**_claims(resource), **_hashes(request)}
        Checksums.of(data).check(claimed)
        return committed(self._objects.put(bucket, name, data, fields=resource, query=request.query))

    def part(self, request: Request) -> None:
        """Keep what arrived of a chunk before the connection broke: whole quanta, as the real one does."""
        given = _RANGE.match(request.headers.get("content-range", ""))
        with self._mutex:
            session = self._sessions.get(request.query.get("upload_id", ""))
            if session is not None and given and given[1]:
                kept = len(request.body) // QUANTUM_BYTES * QUANTUM_BYTES
                _append(session, int(given[1]), request.body[:kept])

    def _begin(self, request: Request, bucket: str, name: str, resource: Mapping[str, Any]) -> Reply:
        demand(request.query, self._objects.find(bucket, name))
        check_fields(name, resource)
        session = _Session(bucket, name, resource, dict(request.query))
        token = secrets.token_hex(16)
        with self._mutex:
            self._sessions[token] = session
        origin = f"http://{request.headers.get('host', 'localhost')}"
        place = f"{origin}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={token}"
        return Reply(200, {"Location": place, "X-GUploader-UploadID": token})

    def _go_on(self, request: Request) -> Reply:
        token = request.query["upload_id"]
        session = self._sessions.get(token)
        if session is None:
            raise Refused(404, "notFound", "No such upload session.")
        if request.method == "DELETE":
            del self._sessions[token]
            return Reply(499)
        if session.stored is not None:
            return committed(session.stored)  # its answer was lost
        given = _RANGE.match(
            request.headers.get("content-range", f"bytes 0-{len(request.body) - 1}/{len(request.body)}")
        )
        if given is None:
            raise Refused(400, "badRequest", "Invalid Content-Range.")
        total = None if given[3] == "*" else int(given[3])
        if given[1]:
            self._take(session, request.body, int(given[1]), total)
        if total is None or len(session.data) < total:
            return _more(session)
        return self._finish(token, session, request)

    def _take(self, session: _Session, body: bytes, start: int, total: int | None) -> None:
        if start > len(session.data):
            raise Refused(400, "badRequest", f"Bytes start at {start}, {len(session.data)} are here.")
        if start + len(body) != total and len(body) % QUANTUM_BYTES:
            raise Refused(400, "badRequest", f"A chunk has {len(body)} bytes, not a multiple of {QUANTUM_BYTES}.")
        _append(session, start, body)

    def _finish(self, token: str, session: _Session, request: Request) -> Reply:
        data = bytes(session.data)
        try:
            Checksums.of(data).check({**_claims(session.fields), **_hashes(request)})
            put = self._objects.put(session.bucket, session.name, data, fields=session.fields, query=session.query)
        except Refused:
            del self._sessions[token]
            raise
        self._sessions[token] = replace(session, stored=put, data=bytearray())
        return committed(put)


def committed(stored: Stored) -> Reply:
    """Return the answer to whoever has stored an object."""
    reply = as_json(stored.document())
    return replace(reply, headers={**reply.headers, "x-goog-generation": str(stored.generation)})


def _append(session: _Session, start: int, body: bytes) -> None:
    if start <= len(session.data):
        session.data += body[len(session.data) - start :]


def _more(session: _Session) -> Reply:
    """Return the 308 that tells how many bytes are kept."""
    return Reply(308, {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {})


def _hashes(request: Request) -> dict[str, str]:
    pairs = (item.strip().partition("=") for item in request.headers.get("x-goog-hash", "").split(","))
    return {name: value for name, mark, value in pairs if mark}


def _claims(resource: Mapping[str, Any]) -> dict[str, str]:
    claims = {"crc32c": resource.get("crc32c"), "md5": resource.get("md5Hash")}
    return {name: value for name, value in claims.items() if isinstance(value, str)}


def _resource(request: Request) -> dict[str, Any]:
    """Return the object resource that an upload's first request carries."""
    kind = request.query.get("uploadType")
    if kind == "media":
        return {"contentType": request.headers.get("content-type", "application/octet-stream")}
    text, content_type = request.body, request.headers.get("x-upload-content-type", "application/octet-stream")
    if kind == "multipart":
        text, _, content_type = _parts(request)
    try:
        found = json.loads(text or b"{}")
    except ValueError as error:
        raise Refused(400, "parseError", f"Metadata part is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused(400, "parseError", "Metadata part is no object.")
    return {"contentType": content_type, **found}


def _parts(request: Request) -> tuple[bytes, bytes, str]:
    """Return the two parts of a multipart/related body, the resource and the content, and the content's type."""
    header = Message()
    header["content-type"] = request.headers.get("content-type", "")
    mark = b"--" + str(header.get_param("boundary", "")).encode()
    first, second = request.body.find(mark), request.body.find(b"\r\n" + mark, len(mark))
    last = request.body.rfind(b"\r\n" + mark + b"--")
    if mark == b"--" or first != 0 or not 0 < second < last:
        raise Refused(400, "badContent", "Multipart body is malformed: it has no two parts.")
    content = request.body.find(b"\r\n\r\n", second)
    resource = request.body.find(b"\r\n\r\n")
    headers = BytesParser().parsebytes(request.body[second + 2 + len(mark) + 2 : content + 4])
    content_type = str(headers.get("content-type", "application/octet-stream"))
    return request.body[resource + 4 : second], request.body[content + 4 : last], content_type
