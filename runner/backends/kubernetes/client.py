"""The cluster's API as raw JSON objects. Every request has time-outs; every error is one of ours.

Models are not used: they refuse fields that are newer than they are.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import urllib3

from runner.backends.kubernetes.access import configure, pool_of
from runner.errors import ConfigError, NotAllowedError, NotFoundError, RunnerError, TransientError

Object = dict[str, Any]
GROUPS: Mapping[str, str] = {"jobs": "batch", "pods": "", "events": ""}
ANSWER_S = 30.0
_CONNECT_S = 5.0
_PAGE = 250
"""So many objects a request: pods are the biggest, and a page of them takes 40 KB of memory each."""
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _GONE, _INVALID = 200, 401, 403, 404, 409, 410, 422
_BUSY, _SERVER = 429, 500
_DOUBT_S = 60.0
"""For so long after a lost connection a refusal is no verdict: an API server that starts has not loaded its rules."""
_ANONYMOUS = '"system:anonymous"'
# Forbidden by admission, whose word on it says no user: a quota, a policy, a namespace that is being deleted.
_ADMISSION = re.compile(r" is forbidden: (?!User )|admission webhook ")
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_MERGE_PATCH = "application/merge-patch+json"
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}


class GoneError(TransientError):
    """The version to watch from is too old: list again."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The objects of a kind at one moment, and the version to watch from."""

    items: tuple[Object, ...]
    version: str


class Client:
    """One namespace of one cluster. `kubeconfig` and `context` None mean what `kubectl` would take.

    `or_current` takes the current context where there is none of this name: names are each kubeconfig's own.
    In a pod without a kubeconfig it is the pod's own cluster, whose `context` is None: a name would be none elsewhere.
    """

    def __init__(
        self,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        or_current: bool = False,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._configuration, self.context, default, self._is_current = configure(
            kubeconfig, context, or_current=or_current
        )
        self._pool = pool_of(self._configuration)
        self.namespace = namespace or default
        self.server = str(self._configuration.host)
        self._lost_at = float("-inf")

    @property
    def authorities(self) -> tuple[str, ...]:
        """Return the hashes of the certificates that vouch for the API server; none where the system's own ones do."""
        file = getattr(self._configuration, "ssl_ca_cert", None)
        text = Path(file).read_text(encoding="utf-8", errors="replace") if file else ""
        bodies = ("".join(body.split()) for body in _PEM.findall(text))
        return tuple(sorted(hashlib.sha256(body.encode()).hexdigest()[:16] for body in bodies))

    @functools.cached_property
    def uid(self) -> str:
        """Return what tells this namespace from those of all clusters; empty where we may not look at it."""
        try:
            found, _ = self.ask(f"/api/v1/namespaces/{quote(self.namespace)}", what="get namespaces")
        except (NotAllowedError, NotFoundError):
            return ""
        return str(found["metadata"].get("uid", ""))

    @property
    def where(self) -> str:
        """Return which cluster this is, as a user is told it."""
        return f"{f'context {self.context}' if self.context else 'cluster of this pod'} ({self.server})"

    @property
    def kubectl(self) -> str:
        """Return how `kubectl` is told of this cluster and namespace, as short as it can be."""
        file = ["--kubeconfig", self._kubeconfig] if self._kubeconfig else []
        context = ["--context", self.context] if self.context and not self._is_current else []
        return shlex.join(["kubectl", *file, *context, "-n", self.namespace])

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None when there is none of this name."""
        try:
            return self._json("GET", kind, name)
        except NotFoundError:
            return None

    def list(
        self, kind: str, *, labels: str = "", fields: str = "", keep: Callable[[Object], Object] = lambda item: item
    ) -> Listing:
        """Return what `keep` makes of each object that the selectors choose, in as many pages as it takes."""
        items: list[Object] = []
        query = {"limit": str(_PAGE), **_selectors(labels, fields)}
        while True:
            page = self._json("GET", kind, query=query, verb="list")
            items += map(keep, page.get("items") or ())
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Listing(tuple(items), str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]

    def watch(self, kind: str, version: str, *, labels: str = "", fields: str = "", seconds: int) -> Changes:
        """Return the changes since `version`, for so many seconds: then the server ends them.

        Raises GoneError when the version is too old, TransientError when the connection is lost, a silent one too.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
            **_selectors(labels, fields),
        }
        return Changes(self._send("GET", kind, query=query, read_s=seconds + _CONNECT_S, verb="watch"), kind, self.lost)

    def create(self, kind: str, body: Object, *, dry_run: bool = False) -> Object | None:
        """Create an object, checked strictly by the server; return it, or None when one of its name exists."""
        query = {"fieldValidation": "Strict", **({"dryRun": "All"} if dry_run else {})}
        try:
            return self._json("POST", kind, query=query, body=body)
        except _ConflictError:
            return None

    def patch(self, kind: str, name: str, change: Object) -> Object | None:
        """Merge a change into an object; return it, or None when it is gone."""
        try:
            return self._json("PATCH", kind, name, body=change)
        except NotFoundError:
            return None

    def delete(self, kind: str, name: str) -> bool:
        """Delete an object and what it owns; tell whether it was there."""
        try:
            self._json("DELETE", kind, name, body={"propagationPolicy": "Background"})
        except NotFoundError:
            return False
        return True

    def log(self, pod: str, *, since: str = "") -> str | None:
        """Return a pod's log, each line with its time before it, from a time on; None when there is none (yet)."""
        query = {"timestamps": "true", **({"sinceTime": since} if since else {})}
        try:
            response = self._send("GET", "pods", f"{pod}/log", query=query)
        except (NotFoundError, ConfigError):
            return None  # the pod is gone, or its container has not started
        with response:
            return self._body(response).decode(errors="replace")

    def ask(self, path: str, *, what: str, body: Object | None = None) -> tuple[Object, str]:
        """Return what any path of the API says, or makes of a body, and the Date of its answer; `what` is for errors.

        This is for questions about the cluster and about us: what a run has goes by kind.
        """
        method = "POST" if body else "GET"
        with self._exchange(method, f"{self.server}{path}", what, body=body) as response:
            try:
                answer: Object = json.loads(self._body(response))
            except ValueError as e:
                raise ConfigError(f"cluster {self.server}: answers, but not as an API server does; see its URL") from e
            return answer, response.headers.get("Date", "")

    def _json(  # noqa: PLR0913 - the parts of a request
        self,
        method: str,
        kind: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        verb: str = "",
    ) -> Object:
        with self._send(method, kind, name, query=query, body=body, verb=verb) as response:
            answer: Object = json.loads(self._body(response))
        return answer

    def _send(  # noqa: PLR0913 - the parts of a request
        self,
        method: str,
        kind: str,
        name: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        read_s: float = ANSWER_S,
        verb: str = "",
    ) -> urllib3.BaseHTTPResponse:
        url = f"{self.server}{_path(kind, self.namespace, name)}?{urlencode(query or {})}"
        what = f"{verb or _VERBS[method]} {kind}{'/log' if name.endswith('/log') else ''}"
        return self._exchange(method, url, what, body=body, read_s=read_s)

    def _exchange(
        self, method: str, url: str, what: str, *, body: Object | None, read_s: float = ANSWER_S
    ) -> urllib3.BaseHTTPResponse:
        kind_of_body = {"Content-Type": _MERGE_PATCH if method == "PATCH" else "application/json"} if body else {}
        encoded = json.dumps(body).encode() if body else None
        for is_last in (False, True):
            headers = {"Accept": "application/json", **kind_of_body, **self._authorization()}
            try:
                response = self._pool.request(
                    method,
                    url,
                    body=encoded,
                    headers=headers,
                    timeout=urllib3.Timeout(connect=_CONNECT_S, read=read_s),
                    retries=False,
                    preload_content=False,
                )
            except (urllib3.exceptions.HTTPError, OSError) as e:
                raise self.lost(e) from e
            if response.status == _UNAUTHORIZED and not is_last:
                response.drain_conn()
                self._configuration, *_ = configure(self._kubeconfig, self.context)
                self._pool = pool_of(self._configuration)
                continue
            break
        if response.status < _OK + 100:
            return response
        with response:
            raise self._refused(response, what)

    def _body(self, response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return response.read()
        except (urllib3.exceptions.HTTPError, OSError) as e:
            raise self.lost(e) from e

    def _authorization(self) -> dict[str, str]:
        # Asking for the settings renews a token that is about to expire.
        setting = self._configuration.auth_settings().get("BearerToken")
        return {"Authorization": str(setting["value"])} if setting and setting["value"] else {}

    def lost(self, error: Exception) -> TransientError:
        """Return that the connection was lost, and remember when."""
        self._lost_at = time.monotonic()
        return TransientError(f"cluster {self.server}: no answer ({_reason(error)}); see: kubectl cluster-info")

    def _refused(self, response: urllib3.BaseHTTPResponse, what: str) -> RunnerError:
        body = self._body(response).decode(errors="replace")
        try:
            status = json.loads(body)
        except ValueError:
            status = {"message": body[:200]}
        status = {**(status if isinstance(status, dict) else {}), "code": response.status}
        message = str(status.get("message", "")) or f"HTTP {response.status}"
        in_doubt = time.monotonic() - self._lost_at < _DOUBT_S
        if response.status in (_UNAUTHORIZED, _FORBIDDEN) and in_doubt:
            return TransientError(f"cluster {self.server}: refused right after a lost connection: {message}")
        if response.status == _UNAUTHORIZED or _ANONYMOUS in message:
            return NotAllowedError(f"cluster {self.server}: does not know who we are ({message}); log in to it again")
        if response.status == _FORBIDDEN and not _ADMISSION.search(message):
            return NotAllowedError(f"{what} in namespace {self.namespace}: {message}; {_rule(what)}")
        return _of_status(status, f"{what} in namespace {self.namespace}")


class Changes:
    """An open watch: iterate it for its changes. `shutdown` ends it from another thread."""

    def __init__(
        self, response: urllib3.BaseHTTPResponse, kind: str, lost: Callable[[Exception], TransientError]
    ) -> None:
        self._response, self._kind, self._lost = response, kind, lost
        self._is_ended = False

    def __iter__(self) -> Iterator[Object]:
        for line in self._lines():
            change: Object = json.loads(line)
            if change.get("type") == "ERROR":
                raise _of_status(change.get("object") or {}, f"watch {self._kind}")
            yield change

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()

    def shutdown(self) -> None:
        """End the iteration, which another thread may be waiting in."""
        self._is_ended = True
        with suppress(ValueError, OSError):  # it has ended already
            self._response.shutdown()

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        try:
            for chunk in self._response.stream(65_536):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, lines)
        except (urllib3.exceptions.HTTPError, OSError) as e:
            if not self._is_ended:  # not by us
                raise self._lost(e) from e


class _ConflictError(RunnerError):
    """An object of this name exists."""


def _of_status(status: Mapping[str, Any], what: str) -> RunnerError:
    code, message = status.get("code"), str(status.get("message", ""))
    if code == _NOT_FOUND:
        give = "; give another -n, or make it: kubectl create namespace" if message.startswith("namespaces ") else ""
        return NotFoundError(f"{what}: {message}{give}")
    if code == _CONFLICT and status.get("reason", "AlreadyExists") == "AlreadyExists":
        return _ConflictError(f"{what}: {message}")
    if code == _GONE:
        return GoneError(f"{what}: {message}")
    if code in (_BUSY, _CONFLICT) or (isinstance(code, int) and code >= _SERVER):
        return TransientError(f"{what}: {message or code}; the cluster may take it in a moment")
    return ConfigError(f"{what}: the cluster refuses it: {message or code}")


def _rule(what: str) -> str:
    """Return the rule that allows `verb kind`, as a Role writes it."""
    verb, kind = what.split(" ", 1)
    group = GROUPS.get(kind.split("/")[0], "")
    return f'to allow it add to the Role: {{apiGroups: ["{group}"], resources: ["{kind}"], verbs: ["{verb}"]}}'


def _path(kind: str, namespace: str, name: str) -> str:
    group = GROUPS[kind]
    root = f"/apis/{group}/v1" if group else "/api/v1"
    return f"{root}/namespaces/{quote(namespace)}/{kind}{f'/{quote(name)}' if name else ''}"


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return f"{type(inner).__name__}: {inner}".split(" (Caused by")[0][:200]
