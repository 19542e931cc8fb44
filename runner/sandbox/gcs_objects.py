"""What the sandbox's buckets hold: objects by name with generations, preconditions and checksums, one live each.

Rules as https://cloud.google.com/storage/docs/json_api/v1/objects has them; everything is strongly consistent. They
are in memory; with a directory also in two files each, and a server started on it again goes on where one ended.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import google_crc32c

from runner.sandbox.clock import Clock
from runner.sandbox.replies import Content

NAME_BYTES = 1024
METADATA_BYTES = 8192
WRITABLE = (
    "cacheControl",
    "contentDisposition",
    "contentEncoding",
    "contentLanguage",
    "contentType",
    "customTime",
    "metadata",
)
_PRECONDITIONS = ("ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch")


class Refused(Exception):  # noqa: N818 -- it is an answer
    """A request that is answered with an error document: status, reason, message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


@dataclass(frozen=True, slots=True)
class Checksums:
    """The two checksums of some bytes, in base64 as the API writes them."""

    crc32c: str
    md5: str

    @classmethod
    def of(cls, data: bytes | bytearray) -> Checksums:
        """Compute both."""
        crc = google_crc32c.value(bytes(data))
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return cls(base64.b64encode(crc.to_bytes(4, "big")).decode(), base64.b64encode(md5).decode())

    def check(self, claimed: Mapping[str, str]) -> None:
        """Refuse bytes that are not those a client has claimed to send."""
        for name, mine in (("crc32c", self.crc32c), ("md5", self.md5)):
            if claimed.get(name, mine) != mine:
                message = (
                    f'Provided {name.upper()} "{claimed[name]}" doesn\'t match calculated {name.upper()} "{mine}".'
                )
                raise Refused(400, "invalid", message)


@dataclass(frozen=True, slots=True)
class Stored:
    """One live object."""

    bucket: str
    name: str
    generation: int
    metageneration: int
    created: datetime
    updated: datetime
    checksums: Checksums
    body: Content
    fields: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the object resource."""
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "size": str(self.body.size),
            "crc32c": self.checksums.crc32c,
            "md5Hash": self.checksums.md5,
            "etag": base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode(),
            "storageClass": "STANDARD",
            "timeCreated": _text(self.created),
            "updated": _text(self.updated),
            **self.fields,
        }

    def headers(self) -> dict[str, str]:
        """Return the headers of its content."""
        return {
            "Content-Type": str(self.fields.get("contentType", "application/octet-stream")),
            "ETag": base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode(),
            "x-goog-generation": str(self.generation),
            "x-goog-metageneration": str(self.metageneration),
            "x-goog-hash": f"crc32c={self.checksums.crc32c},md5={self.checksums.md5}",
            "x-goog-stored-content-encoding": "identity",
            "x-goog-stored-content-length": str(self.body.size),
        }


def demand(query: Mapping[str, str], live: Stored | None, *, is_read: bool = False) -> None:
    """Refuse a request whose preconditions do not hold; what is absent has generation 0."""
    for name in _PRECONDITIONS:
        wanted = query.get(name)
        if wanted is None:
            continue
        if not wanted.lstrip("-").isdigit():
            raise Refused(400, "invalid", f"Invalid value for {name}: {wanted}")
        is_of_metadata, is_negated = "Meta" in name, "Not" in name
        actual = 0 if live is None else live.metageneration if is_of_metadata else live.generation
        if (actual == int(wanted)) is is_negated:
            status = 304 if is_negated and is_read else 412
            raise Refused(status, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")


def check_fields(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the writable fields of an object resource; refuse a bad name and too much metadata."""
    if not 0 < len(name.encode()) <= NAME_BYTES or name in {".", ".."} or {"\r", "\n"} & set(name):
        raise Refused(400, "invalid", f"Invalid object name of {len(name.encode())} bytes.")
    metadata = fields.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Refused(400, "invalid", "Metadata values are text.")
    total = sum(len(text.encode()) for pair in metadata.items() for text in pair)
    if total > METADATA_BYTES:
        raise Refused(400, "invalid", f"The metadata takes {total} bytes, at most {METADATA_BYTES} are allowed.")
    return {key: fields[key] for key in WRITABLE if fields.get(key)}


@dataclass(slots=True)
class _Bucket:
    names: list[str] = field(default_factory=list)
    live: dict[str, Stored] = field(default_factory=dict)


class Objects:
    """All buckets of a sandbox, one lock around every step."""

    def __init__(self, clock: Clock, folder: Path | None, buckets: tuple[str, ...]) -> None:
        self._clock, self._folder = clock, folder
        self._mutex = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._last = 0
        for stored in _load(folder) if folder else ():
            self._keep(stored)
        for name in buckets:
            self._buckets.setdefault(name, _Bucket())

    def make_bucket(self, name: str) -> None:
        """Create a bucket; 409 when there is one."""
        with self._mutex:
            if name in self._buckets:
                raise Refused(409, "conflict", "Your previous request to create the named bucket succeeded.")
            self._buckets[name] = _Bucket()

    def require(self, bucket: str) -> None:
        """Refuse a bucket that does not exist."""
        with self._mutex:
            self._of(bucket)

    def find(self, bucket: str, name: str) -> Stored | None:
        """Return the live object, or None."""
        with self._mutex:
            return self._of(bucket).live.get(name)

    def put(
        self, bucket: str, name: str, data: bytes, *, fields: Mapping[str, Any], query: Mapping[str, str]
    ) -> Stored:
        """Commit bytes and fields at once if the preconditions of `query` hold now."""
        writable, checksums = check_fields(name, fields), Checksums.of(data)
        with self._mutex:
            live = self._of(bucket).live.get(name)
            demand(query, live)
            generation = self._last = max(self._last + 1, time.time_ns() // 1000)
            now = self._later_than(live)
            stored = Stored(bucket, name, generation, 1, now, now, checksums, Content(data), writable)
            self._replace(live, stored)
        return stored

    def patch(self, bucket: str, name: str, *, fields: Mapping[str, Any], query: Mapping[str, str]) -> Stored:
        """Change fields of the live object; None removes one."""
        with self._mutex:
            live = self._existing(bucket, name)
            demand(query, live)
            changed = {**live.fields, **fields}
            if fields.get("metadata"):
                merged = {**live.fields.get("metadata", {}), **fields["metadata"]}
                changed["metadata"] = {key: value for key, value in merged.items() if value is not None}
            metageneration, now = live.metageneration + 1, self._later_than(live)
            writable, kept = check_fields(name, changed), (live.created, now, live.checksums, live.body)
            stored = Stored(bucket, name, live.generation, metageneration, *kept, writable)
            self._replace(None, stored)
        return stored

    def delete(self, bucket: str, name: str, query: Mapping[str, str]) -> Stored:
        """Delete the live object and return what it was."""
        with self._mutex:
            live = self._existing(bucket, name)
            demand(query, live)
            self._check_generation(live, query)
            held = self._buckets[bucket]
            del held.live[name]
            del held.names[bisect_left(held.names, name)]
            self._forget(live)
        return live

    def get(self, bucket: str, name: str, query: Mapping[str, str]) -> Stored:
        """Return the live object if the preconditions of a read hold."""
        with self._mutex:
            live = self._existing(bucket, name)
        demand(query, live, is_read=True)
        self._check_generation(live, query)
        return live

    def page(self, bucket: str, first: str, size: int) -> list[Stored]:
        """Return up to `size` objects from the name `first` on, ascending by UTF-8 bytes."""
        with self._mutex:
            held = self._of(bucket)
            at = bisect_left(held.names, first)
            return [held.live[name] for name in held.names[at : at + size]]

    def _check_generation(self, live: Stored, query: Mapping[str, str]) -> None:
        if query.get("generation", str(live.generation)) != str(live.generation):
            raise _no_object(live.bucket, live.name)

    def _of(self, bucket: str) -> _Bucket:
        if bucket not in self._buckets:
            raise Refused(404, "notFound", "The specified bucket does not exist.")
        return self._buckets[bucket]

    def _existing(self, bucket: str, name: str) -> Stored:
        live = self._of(bucket).live.get(name)
        if live is None:
            raise _no_object(bucket, name)
        return live

    def _later_than(self, live: Stored | None) -> datetime:
        now = self._clock.now()
        return now if live is None else max(now, live.updated + timedelta(microseconds=1))

    def _replace(self, live: Stored | None, stored: Stored) -> None:
        self._save(stored)
        if live is not None:
            self._forget(live)
        self._keep(stored)

    def _keep(self, stored: Stored) -> None:
        held = self._buckets.setdefault(stored.bucket, _Bucket())
        if stored.name not in held.live:
            insort(held.names, stored.name)  # code points, which is the order of UTF-8 bytes
        held.live[stored.name] = stored
        self._last = max(self._last, stored.generation)

    def _path(self, bucket: str, generation: int, suffix: str) -> Path:
        return (self._folder or Path()) / bucket / f"{generation}.{suffix}"

    def _save(self, stored: Stored) -> None:
        if self._folder is None:
            return
        path = self._path(stored.bucket, stored.generation, "json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".body").write_bytes(stored.body.data)
        made = path.with_suffix(".new")
        made.write_text(json.dumps(stored.document()))
        made.replace(path)

    def _forget(self, stored: Stored) -> None:
        if self._folder is not None:
            for suffix in ("json", "body"):
                self._path(stored.bucket, stored.generation, suffix).unlink()


def _no_object(bucket: str, name: str) -> Refused:
    return Refused(404, "notFound", f"No such object: {bucket}/{name}")


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _load(folder: Path) -> list[Stored]:
    """Return what an earlier server left, ascending by generation, so that of two with one name the newer stays."""
    found = []
    for path in sorted(folder.glob("*/*.json"), key=lambda path: int(path.stem)):
        document = json.loads(path.read_text())
        body = path.with_suffix(".body")
        times = (datetime.fromisoformat(document["timeCreated"]), datetime.fromisoformat(document["updated"]))
        sums = Checksums(document["crc32c"], document["md5Hash"])
        generations = (int(document["generation"]), int(document["metageneration"]))
        fields = {key: document[key] for key in WRITABLE if key in document}
        content = Content(body.read_bytes())
        found.append(Stored(document["bucket"], document["name"], *generations, *times, sums, content, fields))
    return found
