"""What Google's client raises, judged in one place: what another try may mend, and which error of ours it becomes."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from runner.errors import IntegrityError, NoStoreError, RunnerError, SpecError, TransientError

_TRANSIENT_CODES = frozenset({408, 429, 500, 502, 503, 504})
_TRANSIENT_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError"})
_REFUSALS = frozenset({http.client.UNAUTHORIZED, http.client.FORBIDDEN})
_BROKEN = frozenset({409, 410, 416})
# In the server's words about a checksum that it was sent.
_MISMATCH = "match calculated"
_TEXT_CHARS = 300


def code_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of Google's client stands for, None when none came."""
    response = getattr(error, "response", None)
    code = getattr(error, "code", None) or getattr(response, "status_code", None)
    return int(code) if isinstance(code, int) else None


def is_transient(error: BaseException) -> bool:
    """Tell whether the same request may succeed later: lost connections, time-outs, throttling, its own faults."""
    import requests  # noqa: PLC0415 - imported where used
    import urllib3  # noqa: PLC0415 - comes with it
    from google.auth.exceptions import RefreshError, TransportError  # noqa: PLC0415 - comes with it

    if isinstance(error, RefreshError):
        return bool(error.retryable)
    if isinstance(error, ConnectionError | TransportError | http.client.HTTPException | urllib3.exceptions.HTTPError):
        return True
    if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError):
        return True
    code = code_of(error)
    return code in _TRANSIENT_CODES or (code == http.client.FORBIDDEN and bool(_reasons(error) & _TRANSIENT_REASONS))


def is_refusal(error: BaseException) -> bool:
    """Tell whether credentials or a permission were refused, which may pass when they are young."""
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - imported where used

    if isinstance(error, GoogleAuthError):
        return not is_transient(error) and not _is_lack(error)
    return code_of(error) in _REFUSALS and not is_transient(error)


def is_corruption(error: BaseException) -> bool:
    """Tell whether bytes changed on the way: their checksum is not that of what was sent."""
    from google.cloud.storage.exceptions import DataCorruption  # noqa: PLC0415 - imported where used

    is_refused = code_of(error) == http.client.BAD_REQUEST and _MISMATCH in str(_document(error).get("message"))
    return is_refused or isinstance(error, DataCorruption)


@contextmanager
def explained(action: str, bucket: str, refused: Callable[[Exception], RunnerError]) -> Iterator[None]:
    """Turn what Google's client raises inside into an error of ours, in one line that says what to do.

    `refused` explains refused credentials and permissions.
    """
    try:
        yield
    except RunnerError:
        raise
    except foreign() as error:
        ours = _ours(error, action, bucket, refused)
        if ours is None:
            raise
        raise ours from error


def _ours(
    error: Exception, action: str, bucket: str, refused: Callable[[Exception], RunnerError]
) -> RunnerError | None:
    from google.api_core.exceptions import RetryError  # noqa: PLC0415 - imported where used

    cause = error.cause if isinstance(error, RetryError) and isinstance(error.cause, Exception) else error
    if is_transient(cause) or isinstance(error, RetryError):
        return TransientError(f"cannot {action}: {text_of(cause)}; tried until the time was up, try again later")
    if is_refusal(cause) or _is_lack(cause):
        return refused(cause)
    code = code_of(cause)
    if code is None and not isinstance(cause, OSError):
        return None
    return _of_answer(f"cannot {action}", cause, code, bucket)


def _of_answer(what: str, error: Exception, code: int | None, bucket: str) -> RunnerError:
    if is_corruption(error):
        return IntegrityError(f"{what}: the bytes changed on the way ({text_of(error)}), try again")
    if code == http.client.NOT_FOUND:
        return NoStoreError(
            f"{what}: {text_of(error)}; there is no bucket gs://{bucket}: create it, or correct the URL"
        )
    if code is None or code in _BROKEN:
        return TransientError(f"{what}: {text_of(error)}, try again")
    return SpecError(f"{what}: gs://{bucket} refuses it with {code}: {text_of(error)}, mend the request")


def _is_lack(error: BaseException) -> bool:
    """Tell whether this process has no credentials at all, or none that can be read: asking again gives it none."""
    from google.auth import exceptions  # noqa: PLC0415 - imported where used

    # What anonymous ones raise after a 401 is of the same kind.
    is_lack = isinstance(error, exceptions.DefaultCredentialsError)
    return is_lack and not isinstance(error, exceptions.InvalidOperation)


def foreign() -> tuple[type[Exception], ...]:
    """Return the bases of all that the client raises: they have none in common."""
    import urllib3  # noqa: PLC0415 - comes with it
    from google.api_core.exceptions import GoogleAPIError  # noqa: PLC0415 - imported where used
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - comes with it
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse  # noqa: PLC0415 - imported where used

    http_errors = (http.client.HTTPException, urllib3.exceptions.HTTPError)
    return (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, OSError, *http_errors)


def _document(error: BaseException) -> Mapping[str, Any]:
    response = getattr(error, "response", None)
    if response is None or response.ok:  # a body of bytes, read already
        return {}
    try:
        found = response.json().get("error")
    except (ValueError, AttributeError):
        return {}
    return found if isinstance(found, dict) else {}


def _reasons(error: BaseException) -> set[str]:
    details = [*_document(error).get("errors", ()), *getattr(error, "errors", ())]
    return {str(detail.get("reason")) for detail in details if isinstance(detail, dict)}


def text_of(error: BaseException) -> str:
    """Return the server's own words if it sent any, in one line."""
    code = code_of(error)
    silent = f"the server answers {code}" if code else str(error) or type(error).__name__
    words = " ".join(str(_document(error).get("message") or silent).split())
    return words if len(words) <= _TEXT_CHARS else f"{words[:_TEXT_CHARS]}…"
