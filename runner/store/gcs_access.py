"""Who we are to a bucket and what it lets us do: when a refusal is believed, and what it means.

New grants, young pods and their metadata servers are refused for a while, so a refusal counts only once it has lasted
and the bucket itself, asked what it grants us, confirms it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from runner.errors import NotAllowedError, ObjectRefusedError, RunnerError, TransientError
from runner.store.gcs_client import Connection, Patience
from runner.store.gcs_errors import explained, foreign, is_refusal, text_of

NEEDED = ("storage.objects.get", "storage.objects.list", "storage.objects.create", "storage.objects.delete")
ROLE = "roles/storage.objectUser"

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass
class Access:
    """Our access to one bucket."""

    name: str
    connection: Connection
    patience: Patience
    _is_believed: bool = field(default=False, init=False)

    def use(self, action: str, work: Callable[[], _T]) -> _T:
        """Return what `work` returns, done again while it is refused for no longer than the patience says.

        What Google's client raises becomes an error of ours, in one line that says what to do.
        """
        from google.api_core.retry import Retry  # noqa: PLC0415 - imported where used

        refused_since: float | None = None

        def goes_on(error: Exception) -> bool:
            nonlocal refused_since
            if not is_refusal(error):
                return False
            now = time.monotonic()
            if refused_since is None:
                refused_since = now
            if self._is_believed or now - refused_since >= self.patience.refusal_s:
                return False
            if refused_since == now:
                _log.warning("cannot %s: %s; asking again for %g s", action, text_of(error), self.patience.refusal_s)
            return True

        retry = Retry(
            predicate=goes_on,
            initial=self.patience.backoff_s,
            maximum=self.patience.backoff_max_s,
            timeout=None,
        )
        with explained(action, self.name, lambda error: self._refused(action, error)):
            return retry(work)()

    def _refused(self, action: str, error: Exception) -> RunnerError:
        """Return what a refusal that has lasted means, by what the bucket says that it grants."""
        from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - imported where used

        fact = f"cannot {action}: {text_of(error)}"
        if isinstance(error, GoogleAuthError):
            self._is_believed = True
            return NotAllowedError(
                f"{fact}; {_LOG_IN} as one who has {ROLE} on gs://{self.name}",
            )
        try:
            lacking = self.lacking()
        except foreign() as fault:
            return TransientError(f"{fact}; nor can gs://{self.name} say what it grants: {text_of(fault)}, try again")
        who = self.connection.identity
        if not lacking:
            return ObjectRefusedError(
                f"{fact}; yet gs://{self.name} grants {who} all that is needed: look for a retention policy, a hold or "
                "a rule on this name, then retry"
            )
        self._is_believed = True
        return NotAllowedError(
            f"{fact}; {who} lacks {', '.join(lacking)} and needs {ROLE} on gs://{self.name}: grant it (which takes "
            "minutes to work), or use other credentials"
        )

    def lacking(self) -> tuple[str, ...]:
        """Return the permissions that the bucket does not grant; all of them when it does not even say.

        Raises what Google's client raises.
        """
        patience = self.patience
        try:
            granted = self.connection.bucket.test_iam_permissions(
                NEEDED, timeout=patience.timeout, retry=patience.retry()
            )
        except foreign() as error:
            if is_refusal(error):
                return NEEDED
            raise
        return tuple(each for each in NEEDED if each not in granted)


_LOG_IN = "run `gcloud auth application-default login`, or on a cluster use workload identity,"
