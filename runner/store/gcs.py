"""A store in a bucket of Google Cloud Storage: `gs://bucket` or `gs://bucket/prefix`.

Every write names a generation. A write whose answer was lost meets its own object when it is tried again: each `put`
marks its object (a parameter of the content type, so that metadata is the caller's alone) and knows it by that. Only
when others have swapped or deleted it before that does a `put` that had committed end in PreconditionError.
Foreign objects whose names no store would accept are not listed.
"""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from http.client import GONE, NOT_FOUND, PRECONDITION_FAILED, REQUESTED_RANGE_NOT_SATISFIABLE
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import google_crc32c

from runner.errors import IntegrityError, NotFoundError, PreconditionError, SpecError, TransientError
from runner.store import ABSENT, ObjectInfo, gcs_list
from runner.store.disk import explained as explained_disk
from runner.store.gcs_access import Access
from runner.store.gcs_client import Connection, Patience
from runner.store.gcs_errors import code_of, is_corruption
from runner.store.keys import KEY_BYTES, check_key, check_metadata, check_range, key_fault, stale

if TYPE_CHECKING:
    from google.cloud.storage import Blob

CHUNK_BYTES = 8 * 1024 * 1024
"""The size of one request of an upload: what a thread holds in memory, and what a broken connection sends again."""

_CONTENT_TYPE = "application/octet-stream"
_UPLOADS = 4
_DELETES = 100
_GENERATION_MAX = 2**63 - 1
_T = TypeVar("_T")


class GcsStore:
    """`runner.store.Store` over a bucket, or over what lies under a prefix of one."""

    def __init__(self, place: str, *, patience: Patience | None = None) -> None:
        """Take `bucket` or `bucket/prefix`; nothing is asked before the first use."""
        self._bucket, _, prefix = place.partition("/")
        prefix = prefix.strip("/")
        if not self._bucket or (prefix and key_fault(prefix)):
            raise SpecError(f"store 'gs://{place}' names no place, write gs://bucket or gs://bucket/prefix")
        self._prefix = f"{prefix}/" if prefix else ""
        self._patience = patience or Patience()
        self._connection = Connection(self._bucket)
        self._access = Access(self._bucket, self._connection, self._patience)
        self._has_bucket = False

    @property
    def url(self) -> str:
        """Return `gs://bucket` or `gs://bucket/prefix`."""
        return f"gs://{self._bucket}/{self._prefix}".rstrip("/")

    def put(
        self, key: str, body: bytes | Path, *, if_generation: str = ABSENT, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """See `Store.put`."""
        self._check(key)
        check_metadata(key, metadata or {})
        wanted = 0 if if_generation == ABSENT else _number(if_generation)
        if wanted is None:
            raise self._use(f"write {key!r}", lambda: self._stale(key, if_generation))
        mark = f"{_CONTENT_TYPE}; put={secrets.token_hex(12)}"
        with _opened(body) as (stream, size):
            content = _Content(stream, size, mark, metadata or {})
            return self._use(f"write {key!r}", lambda: self._upload(key, content, wanted))

    def head(self, key: str) -> ObjectInfo | None:
        """See `Store.head`."""
        self._check(key)
        blob = self._use(f"look at {key!r}", lambda: self._head(key))
        return self._info(blob) if blob else None

    def get(self, key: str, *, start: int = 0, length: int | None = None, if_generation: str | None = None) -> bytes:
        """See `Store.get`."""
        self._check(key)
        check_range(key, start, length)
        return self._use(f"read {key!r}", lambda: self._get(key, start, length, if_generation))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        if key_fault(f"{prefix}x") and key_fault(prefix):
            return
        yield from gcs_list.listed(self._prefix + prefix, self._fetch)

    def delete(self, key: str, *, if_generation: str | None = None) -> bool:
        """See `Store.delete`."""
        self._check(key)
        lost: list[Exception] = []  # tries without an answer: what is gone afterwards, one of them has deleted
        return self._use(f"delete {key!r}", lambda: self._delete(key, if_generation, lost))

    def lacking(self) -> tuple[str, ...]:
        """Return the permissions that a store needs and this process lacks on the whole bucket, as the bucket says."""
        return self._use("ask what the bucket grants", self._access.lacking)

    @property
    def identity(self) -> str:
        """Return who this process is to the bucket, as far as it knows; more once something was asked."""
        return self._connection.identity

    # Names.

    def _check(self, key: str) -> None:
        check_key(key)
        if len(f"{self._prefix}{key}".encode()) > KEY_BYTES:
            raise SpecError(
                f"key {key[:80]!r} is longer than {KEY_BYTES} bytes with the prefix of {self.url}, shorten it"
            )

    def _blob(self, key: str) -> Blob:
        return self._connection.bucket.blob(f"{self._prefix}{key}")

    def _info(self, blob: Blob) -> ObjectInfo:
        return ObjectInfo(
            key=blob.name[len(self._prefix) :],
            size=blob.size,
            generation=str(blob.generation),
            crc32c=int.from_bytes(base64.b64decode(blob.crc32c), "big"),
            updated=blob.updated.astimezone(UTC),
            metadata=dict(blob.metadata or {}),
        )

    # Reading.

    def _head(self, key: str) -> Blob | None:
        bucket, patience = self._connection.bucket, self._patience
        blob = bucket.get_blob(f"{self._prefix}{key}", timeout=patience.timeout, retry=patience.retry())
        if blob is None:
            self._require_bucket()
        self._has_bucket = True
        return blob

    def _get(self, key: str, start: int, length: int | None, if_generation: str | None) -> bytes:
        wanted = None if if_generation is None else _number(if_generation)
        if length == 0 or (if_generation is not None and wanted is None):
            self._demand(key, if_generation)
            return b""
        try:
            return self._download(key, start, length, wanted)
        except _answers() as error:
            if code_of(error) == REQUESTED_RANGE_NOT_SATISFIABLE:
                return b""
            if code_of(error) == NOT_FOUND:
                raise self._missing(key) from error
            if code_of(error) == PRECONDITION_FAILED:
                raise self._stale(key, if_generation or ABSENT) from error
            raise

    def _require_bucket(self) -> None:
        """Tell a bucket without the object from no bucket: both are 404, and only a list says which; asked once."""
        if not self._has_bucket:
            self._first_under("")
            self._has_bucket = True

    def _first_under(self, prefix: str) -> str | None:
        """Return the first name under a prefix."""
        found = self._ask(prefix=self._prefix + prefix, fields="items(name),nextPageToken", max_results=1)
        return next((str(blob.name) for blob in found), None)

    def _fetch(self, part: gcs_list.Part) -> gcs_list.Page[ObjectInfo]:
        """Return a page of infos: the client's own objects take five times the memory, and pages wait to be read."""
        key = part.prefix[len(self._prefix) :]
        page = self._use(f"list {key!r}", lambda: gcs_list.fetch_page(self._ask, part))
        ours = (blob for blob in page.found if not key_fault(blob.name[len(self._prefix) :]))
        return gcs_list.Page(tuple(map(self._info, ours)), page.rest)

    def _ask(self, **options: Any) -> Any:
        return self._connection.client.list_blobs(
            self._bucket, timeout=self._patience.timeout, retry=self._patience.retry(), **options
        )

    def _download(self, key: str, start: int, length: int | None, wanted: int | None) -> bytes:
        blob = self._blob(key)
        is_whole = start == 0 and length is None
        data: bytes = blob.download_as_bytes(
            start=None if is_whole else start,
            end=None if length is None else start + length - 1,
            raw_download=True,
            if_generation_match=wanted,
            timeout=self._patience.timeout,
            checksum="crc32c",
            retry=self._patience.retry(),
        )
        # The client does not compare what it had to fetch in pieces.
        crc = base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
        if is_whole and blob.crc32c not in {None, crc}:
            raise IntegrityError(f"cannot read {key!r} from {self.url}: crc32c {crc}, not {blob.crc32c}, try again")
        return data

    def _demand(self, key: str, if_generation: str | None) -> None:
        blob = self._head(key)
        if blob is None:
            raise self._missing(key)
        if if_generation is not None and str(blob.generation) != if_generation:
            raise stale(key, live=str(blob.generation), named=if_generation)

    def _missing(self, key: str) -> NotFoundError:
        self._require_bucket()
        return NotFoundError(f"no object {key!r} in {self.url}, list its prefix to see what there is")

    def _stale(self, key: str, named: str) -> PreconditionError:
        blob = self._head(key)
        return stale(key, live=str(blob.generation) if blob else ABSENT, named=named)

    # Writing.

    def _upload(self, key: str, content: _Content, wanted: int) -> ObjectInfo:
        for left in reversed(range(_UPLOADS)):
            blob = self._blob(key)
            blob.chunk_size = CHUNK_BYTES
            blob.content_type = content.mark
            blob.metadata = dict(content.metadata)
            content.stream.seek(0)
            try:
                blob.upload_from_file(
                    content.stream,
                    size=content.size,
                    if_generation_match=wanted,
                    timeout=self._patience.timeout,
                    checksum="crc32c",
                    retry=self._patience.retry(),
                )
            except _answers() as error:
                if code_of(error) == PRECONDITION_FAILED:
                    return self._own(key, content.mark, str(wanted) if wanted else ABSENT)
                self._go_on_after(error, left)
                continue
            except ValueError as error:  # the client's word for bytes that the server did not all keep
                if isinstance(error, _unauthenticated()):
                    raise
                if not left:
                    raise TransientError(
                        f"cannot write {key!r}: the upload lost its place ({error}), try again"
                    ) from error
                continue
            self._has_bucket = True
            return self._info(blob)
        raise AssertionError("unreachable")  # pragma: no cover

    def _go_on_after(self, error: Exception, left: int) -> None:
        """Raise the error unless it is of a lost session or of bytes spoilt on the way, which a new upload mends."""
        code = code_of(error)
        if code == NOT_FOUND:
            self._first_under("")  # is there a bucket at all?
        if not left or (code not in {NOT_FOUND, GONE} and not is_corruption(error)):
            raise error

    def _own(self, key: str, mark: str, named: str) -> ObjectInfo:
        """Return the live object if this very `put` has committed it, its answer lost; else raise."""
        blob = self._head(key)
        if blob is not None and blob.content_type == mark:
            return self._info(blob)
        raise stale(key, live=str(blob.generation) if blob else ABSENT, named=named)

    def _delete(self, key: str, if_generation: str | None, lost: MutableSequence[Exception]) -> bool:
        for _ in range(_DELETES):
            live = self._head(key)
            if live is None:
                return bool(lost)
            if if_generation is not None and str(live.generation) != if_generation:
                raise stale(key, live=str(live.generation), named=if_generation)
            try:
                live.delete(
                    if_generation_match=live.generation,
                    timeout=self._patience.timeout,
                    retry=self._patience.retry(lost.append),
                )
            except _answers() as error:
                if code_of(error) not in {NOT_FOUND, PRECONDITION_FAILED}:
                    raise
                continue
            return True
        raise TransientError(
            f"cannot delete {key!r} from {self.url}: others swap it all the time, look who, then retry"
        )

    def _use(self, action: str, work: Callable[[], _T]) -> _T:
        return self._access.use(f"{action} in {self.url}", work)


@dataclass(frozen=True, slots=True)
class _Content:
    """What one `put` commits, and the mark by which it knows its own object."""

    stream: BinaryIO
    size: int
    mark: str
    metadata: Mapping[str, str]


def _number(generation: str) -> int | None:
    """Return a generation as the server writes it, None for what none can be."""
    is_one = generation.isascii() and generation.isdigit() and 0 < int(generation) <= _GENERATION_MAX
    return int(generation) if is_one else None


def _answers() -> tuple[type[Exception], ...]:
    """Return the errors of the client that carry an answer of the server."""
    from google.api_core.exceptions import GoogleAPICallError  # noqa: PLC0415 - imported where used
    from google.cloud.storage.exceptions import InvalidResponse  # noqa: PLC0415 - imported where used

    return (GoogleAPICallError, InvalidResponse)


def _unauthenticated() -> type[Exception]:
    """Return the client's error for credentials that do not do; some of its kinds are ValueErrors too."""
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - imported where used

    return GoogleAuthError


@contextmanager
def _opened(body: bytes | Path) -> Iterator[tuple[BinaryIO, int]]:
    if not isinstance(body, Path):
        yield io.BytesIO(body), len(body)
        return
    with explained_disk(f"read {body}"):
        try:
            source = body.open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"no local file {body} to store, look what removed it") from error
        size = source.seek(0, io.SEEK_END)
    with source:
        yield source, size
