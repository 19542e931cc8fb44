"""The JSON API of the sandbox's buckets, as much of it as Google's client uses; what is not here is answered so."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

from runner.sandbox.gcs_objects import Objects, Refused, Stored
from runner.sandbox.gcs_uploads import Uploads, committed
from runner.sandbox.replies import Body, Content, Reply, Request, as_json

PAGE = 1000
_UNSUPPORTED = ("versions", "softDeleted", "matchGlob", "includeTrailingDelimiter")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")
_UPLOAD_PARTS = 6
_KINDS = {0: "buckets", 1: "bucket", 2: "objects", 3: "object"}
# A mark that sorts after every name that starts with what stands before it.
_LAST = "\U0010ffff"
# What a permission is needed for, on an object that no fault is about.
_OBJECT = "/storage/v1/b/{}/o/\0"
_USES = {"storage.objects.create": "/upload/storage/v1/b/{}/o/\0", "storage.objects.list": "/storage/v1/b/{}/o"}


@dataclass(frozen=True, slots=True)
class Api:
    """What answers below `/storage/v1`, `/upload` and `/download`; a page of a list has at most `page_size` objects.

    `denies`: whether a permission is withdrawn from all that a path stands for.
    """

    objects: Objects
    uploads: Uploads
    page_size: int
    denies: Callable[[str], bool]

    def answer(self, request: Request) -> Reply:
        """Answer one request."""
        try:
            return self._routed(request)
        except Refused as refused:
            return _error(refused)

    def label(self, request: Request) -> str:
        """Return the path that statistics and faults know a request by: always with the object's name."""
        if request.parts[0] != "upload":
            return request.path
        return f"/{'/'.join(request.parts)}/{self.uploads.name_of(request)}"

    def commits(self, request: Request, reply: Reply) -> bool:
        """Tell whether a request has changed an object."""
        return request.method != "GET" and "x-goog-generation" in reply.headers

    def _routed(self, request: Request) -> Reply:
        parts = request.parts
        if parts[0] == "upload" and len(parts) == _UPLOAD_PARTS and parts[1:4] == ("storage", "v1", "b"):
            self.objects.require(parts[4])
            return self.uploads.answer(request, parts[4])
        is_media = parts[0] == "download" or request.query.get("alt") == "media"
        parts = parts[1:] if parts[0] == "download" else parts
        rest = parts[3:]
        kind = "permissions" if rest[1:] == ("iam", "testPermissions") else _KINDS.get(len(rest), "")
        action = _ROUTES.get((request.method, "media" if kind == "object" and is_media else kind))
        if parts[:3] != ("storage", "v1", "b") or action is None or rest[1:2] not in {(), ("o",), ("iam",)}:
            raise Refused(404, "notFound", f"The sandbox serves no {request.method} {request.path}")
        return action(self, request, rest)

    def make_bucket(self, request: Request, _rest: tuple[str, ...]) -> Reply:
        """Create a bucket."""
        name = str(_document(request).get("name", ""))
        self.objects.make_bucket(name)
        return as_json(_bucket(name))

    def get_bucket(self, _request: Request, rest: tuple[str, ...]) -> Reply:
        """Return a bucket's facts."""
        self.objects.require(rest[0])
        return as_json(_bucket(rest[0]))

    def test_permissions(self, request: Request, rest: tuple[str, ...]) -> Reply:
        """Grant what is asked for, but what a fault has withdrawn from every object of the bucket."""
        self.objects.require(rest[0])
        asked = parse_qs(request.raw_query).get("permissions", [])
        permissions = [each for each in asked if not self.denies(_USES.get(each, _OBJECT).format(rest[0]))]
        return as_json({"kind": "storage#testIamPermissionsResponse", "permissions": permissions})

    def get(self, request: Request, rest: tuple[str, ...]) -> Reply:
        """Return an object's facts."""
        stored = self.objects.get(rest[0], rest[2], request.query)
        return as_json(_masked(stored.document(), request.query.get("fields")))

    def get_media(self, request: Request, rest: tuple[str, ...]) -> Reply:
        """Return an object's content, or a range of it."""
        stored = self.objects.get(rest[0], rest[2], request.query)
        return _content(stored, request.headers.get("range"))

    def patch(self, request: Request, rest: tuple[str, ...]) -> Reply:
        """Change an object's fields."""
        return committed(self.objects.patch(rest[0], rest[2], fields=_document(request), query=request.query))

    def delete(self, request: Request, rest: tuple[str, ...]) -> Reply:
        """Delete an object."""
        stored = self.objects.delete(rest[0], rest[2], request.query)
        return Reply(204, {"x-goog-generation": str(stored.generation)})

    def list_objects(self, request: Request, rest: tuple[str, ...]) -> Reply:
        """Return one page of a list."""
        query = request.query
        for name in _UNSUPPORTED:
            if name in query and query[name] != "false":
                raise Refused(400, "notImplemented", f"The sandbox lists without {name}")
        size = min(self.page_size, int(query.get("maxResults", PAGE)))
        items: list[Stored] = []
        prefixes: list[str] = []
        token = None
        for found in self._listed(rest[0], query):
            if len(items) + len(prefixes) == size:
                token = base64.urlsafe_b64encode(_name(items, prefixes).encode()).decode()
                break
            if isinstance(found, Stored):
                items.append(found)
            else:
                prefixes.append(found)
        page: dict[str, Any] = {"kind": "storage#objects", "items": [item.document() for item in items]}
        page |= {"prefixes": prefixes} if prefixes else {}
        page |= {"nextPageToken": token} if token else {}
        return as_json(_masked({name: value for name, value in page.items() if value}, query.get("fields")))

    def _listed(self, bucket: str, query: Mapping[str, str]) -> Iterator[Stored | str]:
        """Yield objects, and in place of many below a delimiter their common prefix, in order after the page token."""
        prefix, end = query.get("prefix", ""), query.get("endOffset")
        at = max(prefix, query.get("startOffset", ""))
        if token := query.get("pageToken"):
            at = max(at, base64.urlsafe_b64decode(token).decode() + "\0")
        delimiter = query.get("delimiter")
        while batch := self.objects.page(bucket, at, self.page_size + 1):
            for stored in batch:
                if not stored.name.startswith(prefix) or (end and stored.name >= end):
                    return
                if stored.name < at:
                    continue
                head, mark, _ = stored.name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
                if mark:
                    yield prefix + head + mark
                    at = prefix + head + mark + _LAST
                    continue
                yield stored
                at = stored.name + "\0"


_ROUTES: Mapping[tuple[str, str], Callable[[Api, Request, tuple[str, ...]], Reply]] = {
    ("POST", "buckets"): Api.make_bucket,
    ("GET", "bucket"): Api.get_bucket,
    ("GET", "permissions"): Api.test_permissions,
    ("GET", "objects"): Api.list_objects,
    ("GET", "object"): Api.get,
    ("GET", "media"): Api.get_media,
    ("PATCH", "object"): Api.patch,
    ("DELETE", "object"): Api.delete,
}


@dataclass(frozen=True, slots=True)
class _Slice:
    """A part of a body."""

    whole: Body
    start: int
    size: int

    def chunks(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes of [start, stop) of the part."""
        return self.whole.chunks(self.start + start, self.start + stop)


def _name(items: list[Stored], prefixes: list[str]) -> str:
    """Return where a page ends: a name that no later page repeats."""
    return max([item.name for item in items[-1:]] + [prefix + _LAST for prefix in prefixes[-1:]])


def _content(stored: Stored, asked: str | None) -> Reply:
    size, headers = stored.body.size, {**stored.headers(), "Accept-Ranges": "bytes"}
    given = _RANGE.match(asked or "")
    if given is None or not (given[1] or given[2]):
        return Reply(200, headers, stored.body)
    start = int(given[1]) if given[1] else max(0, size - int(given[2]))
    stop = min(size, int(given[2]) + 1) if given[1] and given[2] else size
    if start >= size:
        range_of_none = {"Content-Range": f"bytes */{size}"}
        return replace(
            _error(Refused(416, "requestedRangeNotSatisfiable", "Range not satisfiable")), headers=range_of_none
        )
    span = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return Reply(206, {**headers, **span}, _Slice(stored.body, start, stop - start))


def _error(refused: Refused) -> Reply:
    if refused.status == 304:  # noqa: PLR2004 -- HTTP: an answer without a body
        return Reply(304, {}, Content(b""))
    details = [{"message": refused.message, "domain": "global", "reason": refused.reason}]
    return as_json({"error": {"code": refused.status, "message": refused.message, "errors": details}}, refused.status)


def _bucket(name: str) -> dict[str, Any]:
    facts = {"kind": "storage#bucket", "id": name, "name": name, "location": "US", "storageClass": "STANDARD"}
    return {**facts, "metageneration": "1", "projectNumber": "0"}


def _document(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(request.body or b"{}")
    except ValueError as error:
        raise Refused(400, "parseError", f"Parse Error: {error}") from error
    if not isinstance(found, dict):
        raise Refused(400, "parseError", "Parse Error: no object")
    return found


def _masked(document: Any, mask: str | None) -> Any:
    """Return what a partial-response mask such as `items(name,size),nextPageToken` leaves of a document."""
    if not mask or mask == "*":
        return document
    if isinstance(document, list):
        return [_masked(item, mask) for item in document]
    wanted = dict(_terms(mask))
    return {name: _masked(value, wanted[name]) for name, value in document.items() if name in wanted}


def _terms(mask: str) -> Iterator[tuple[str, str]]:
    """Yield the names of a mask with the mask below each."""
    depth, start = 0, 0
    for at, char in enumerate(f"{mask},"):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            name, _, below = mask[start:at].replace("/", "(", 1).partition("(")
            yield name.strip(), below.removesuffix(")")
            start = at + 1
