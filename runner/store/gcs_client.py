"""Google's client for one bucket: made at first use, one a process, with a bounded pool and time-outs on everything."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.errors import ConfigError
from runner.store.gcs_errors import is_transient

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.storage import Bucket, Client
    from requests import PreparedRequest, Response, Session

_POOL = 16


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request may take to connect (or send) and between two bytes of its answer, and all its tries.

    `refusal_s`: how long credentials or a permission must stay refused before that is believed; 0 believes at once.
    """

    connect_s: float = 30.0
    read_s: float = 60.0
    retry_s: float = 120.0
    refusal_s: float = 0.0
    backoff_s: float = 0.5
    backoff_max_s: float = 8.0

    @property
    def timeout(self) -> tuple[float, float]:
        """Return the time-outs of one request."""
        return (self.connect_s, self.read_s)

    def retry(self, on_error: Callable[[Exception], None] | None = None) -> Retry:
        """Return Google's own retry of what is transient, told to `on_error`."""
        from google.api_core.retry import Retry  # noqa: PLC0415 - imported where used

        return Retry(
            predicate=is_transient,
            initial=self.backoff_s,
            maximum=self.backoff_max_s,
            timeout=self.retry_s,
            on_error=on_error,
        )


class Connection:
    """The way to one bucket. Holds no socket that a forked child would share, and nothing before its first use."""

    def __init__(self, bucket: str) -> None:
        self._name = bucket
        self._pid = 0
        self._lock = threading.Lock()
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Return this process's client."""
        if self._pid != os.getpid():  # in a forked child, where the lock may be held by a thread that is not there
            self._lock, self._client, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._client is None:
                self._client = _make_client()
            return self._client

    @property
    def bucket(self) -> Bucket:
        """Return the bucket, without asking whether it exists."""
        return self.client.bucket(self._name)

    @property
    def identity(self) -> str:
        """Return who this process is to the bucket, as far as it knows."""
        credentials = self._client._credentials if self._client else None  # noqa: SLF001 - no public way to ask
        return _identity_of(credentials)


def _make_client() -> Client:
    try:
        from google.cloud import storage  # noqa: PLC0415 - imported where used
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"gs:// stores need {error.name}, which is not installed: pip install 'market-data-runner[gcp]'"
        ) from error
    # Without a project: objects need none. STORAGE_EMULATOR_HOST and its anonymous credentials are the client's matter.
    client = storage.Client(project=None)
    # It would ask for the bucket itself in a thread of its own, for traces that nobody takes, with a right beyond the
    # role that a store needs.
    client._bucket_metadata_cache = None  # noqa: SLF001 - it has no switch
    _bound_pool(client._http)  # noqa: SLF001 - the only way to size it
    return client


def _bound_pool(session: Session) -> None:
    """Let a session hold so many connections and no more: who needs one waits for it."""
    from requests.adapters import HTTPAdapter  # noqa: PLC0415 - imported where used

    class Adapter(HTTPAdapter):
        """Reads refusals at once: the client leaves those of downloads unread, and their connections would be lost."""

        def send(self, request: PreparedRequest, **options: Any) -> Response:  # type: ignore[override]
            response = super().send(request, **options)
            if not response.ok:
                _ = response.content
            return response

    for scheme in ("https://", "http://"):
        session.mount(scheme, Adapter(pool_connections=2, pool_maxsize=_POOL, pool_block=True))


def _identity_of(credentials: Any) -> str:
    for name in ("service_account_email", "account"):
        found = getattr(credentials, name, None)
        if found and found != "default":
            return str(found)
    return {"AnonymousCredentials": "nobody (anonymous)"}.get(type(credentials).__name__, "this process's identity")
