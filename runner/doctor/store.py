"""The store: whether an object can be written, read, found and deleted there; done once, and cleaned up."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

from runner import layout
from runner.doctor.check import Check, fail, ok, tried
from runner.doctor.clock import Asked, Reading
from runner.errors import ConfigError, NoStoreError, NotAllowedError, RunnerError
from runner.store import Store, open_store

NAME = "store"
_BODY = b"runner doctor"
_DELETE = "storage.objects.delete"


def examine(url: str, readings: list[Reading]) -> Iterator[Check]:
    """Yield the check of a store; what its clock says is added to `readings`."""
    if not url:
        yield fail(NAME, "none is configured", "give --store URL, or set RUNNER_STORE")
    elif url.startswith("gs://"):
        yield _bucket(url, readings)
    else:
        yield tried(NAME, lambda: _folder(url, readings), mend="give another --store, or free and permit this one")


def probe(store: Store) -> Reading:
    """Write, look at, list, read and delete an object; return what the store's clock said.

    Raises what the store raises, and ConfigError when it answers otherwise than it must.
    """
    key, asked = layout.probe(secrets.token_hex(8)), Asked.now()
    written = store.put(key, _BODY)
    reading = asked.told("the store", written.updated)
    try:
        seen = store.head(key)
        listed = [info.key for info in store.list(key)]
        body = store.get(key)
    finally:
        store.delete(key)
    if seen is None or seen.generation != written.generation or listed != [key] or body != _BODY:
        raise ConfigError(f"store {store.url}: what was just written is not what is there; is something between?")
    return reading


def _folder(url: str, readings: list[Reading]) -> Check:
    """Return the check of a store that is no bucket; a folder that is not there yet is not made."""
    from runner.store.file import folder_of  # noqa: PLC0415 - only the store in use is imported

    path = folder_of(url.removeprefix("file://")) if url.startswith("file://") else None
    if path and not path.exists():
        above = next(each for each in path.parents if each.exists())
        if os.access(above, os.W_OK | os.X_OK):
            return ok(NAME, f"{url} will be made at its first use")
        return fail(NAME, f"{url} is not there, and {above} may not be written to", f"sudo install -d -o $USER {path}")
    readings.append(probe(open_store(url)))
    return ok(NAME, f"{url}: written, listed, read and deleted")


def _bucket(url: str, readings: list[Reading]) -> Check:
    from runner.store.gcs import GcsStore  # noqa: PLC0415 - only the store in use is imported
    from runner.store.gcs_client import Patience  # noqa: PLC0415 - only the store in use is imported

    place = url.removeprefix("gs://")
    bucket = f"gs://{place.partition('/')[0]}"
    store = GcsStore(place, patience=Patience(connect_s=5.0, read_s=15.0, retry_s=15.0))
    try:
        lacking = store.lacking()
    except RunnerError as e:
        return fail(NAME, str(e), _mended(e, bucket))
    who = store.identity
    if lacking == (_DELETE,):  # what is written to try the others would stay
        return fail(NAME, f"{bucket} does not grant {who} {_DELETE}", _grant(bucket, who))
    try:
        readings.append(probe(store))
    except RunnerError as e:
        return fail(NAME, str(e), _grant(bucket, who))
    what = "what is under this prefix" if lacking else "all that is needed"
    return ok(NAME, f"{url}: written, listed, read and deleted as {who}; the bucket grants {what}")


def _mended(error: RunnerError, bucket: str) -> str:
    """Return what helps where a bucket could not even be asked."""
    ways = {
        NoStoreError: f"gcloud storage buckets create {bucket} --location=REGION",
        NotAllowedError: "gcloud auth application-default login",
        ConfigError: "pip install 'market-data-runner[gcp]'",
    }
    return next((way for kind, way in ways.items() if isinstance(error, kind)), "runner doctor, once the network is up")


def _grant(bucket: str, who: str) -> str:
    from runner.store.gcs_access import ROLE  # noqa: PLC0415 - only the store in use is imported

    kind = "serviceAccount" if who.endswith(".gserviceaccount.com") else "user"
    member = f"{kind}:{who}" if "@" in who else "MEMBER"
    return f"gcloud storage buckets add-iam-policy-binding {bucket} --member={member} --role={ROLE}"
