"""A small API server: LIST in pages, WATCH in chunks, creation, merge patches, deletion, logs; and everything that can
go wrong on the way to it. Knows nothing of what objects mean."""

from __future__ import annotations

import fnmatch
import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Object = dict[str, Any]
PAGE = 2


@dataclass
class Fault:
    """What happens to the next `count` requests whose "METHOD path" matches: a status, or (0) a closed connection."""

    request: str
    code: int
    message: str = "scripted"
    count: int = 1
    after: bool = False  # the request takes effect first


@dataclass
class Api:
    objects: dict[str, dict[str, Object]] = field(default_factory=lambda: {"jobs": {}, "pods": {}, "events": {}})
    logs: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    bodies: list[Object] = field(default_factory=list)
    tokens: set[str] | None = None
    allowed: set[tuple[str, str]] | None = None  # (verb, resource); None: everything
    faults: list[Fault] = field(default_factory=list)
    history: list[tuple[int, str, Object]] = field(default_factory=list)
    compacted: int = 0
    version: int = 0
    hang_ups: int = 0
    about: dict[str, Object] = field(default_factory=lambda: {"/version": {"gitVersion": "v1.35.4"}})
    """What other paths answer; where there is nothing they are not found."""
    user: str = "ci"
    ahead_s: float = 0.0
    """How far the server's clock is ahead."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    uids: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    url: str = ""

    def put(self, kind: str, item: Object, change: str = "") -> Object:
        with self.changed:
            name = item["metadata"]["name"]
            change = change or ("MODIFIED" if name in self.objects[kind] else "ADDED")
            self.version += 1
            old = self.objects[kind].get(name, {}).get("metadata", {}).get("uid")
            metadata = {
                "uid": old or f"uid-{next(self.uids)}",
                **item["metadata"],
                "resourceVersion": str(self.version),
            }
            item = {**item, "metadata": metadata}
            self.objects[kind][name] = item
            if change == "DELETED":
                del self.objects[kind][name]
            self.history.append((self.version, kind, {"type": change, "object": item}))
            self.changed.notify_all()
            return item

    def remove(self, kind: str, name: str) -> None:
        self.put(kind, self.objects[kind][name], "DELETED")

    def forget(self) -> None:
        """Compact: watches from any version up to now are too old."""
        with self.changed:
            self.compacted = self.version
            self.version += 1

    def hang_up(self) -> None:
        """Close all open watches in the middle of a chunk."""
        with self.changed:
            self.hang_ups += 1
            self.changed.notify_all()

    def fault(self, request: str) -> Fault | None:
        with self.changed:
            for fault in self.faults:
                if fault.count and fnmatch.fnmatch(request, fault.request):
                    fault.count -= 1
                    return fault
            return None

    def seen(self, pattern: str) -> int:
        return sum(fnmatch.fnmatch(request, pattern) for request in self.requests)

    def kubeconfig(self, folder: Path, user: Object) -> str:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "market"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": user}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        return str(path)


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Api

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        what = f"{'WATCH' if 'watch' in query else self.command} {parts.path}"
        self.api.requests.append(what)
        self.api.bodies.append(body)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.api.tokens is not None and token not in self.api.tokens:
            self._status(401, "Unauthorized")
            return
        fault = self.api.fault(what)
        if fault is not None and not fault.after:
            self._strike(fault)
            return
        if parts.path in _REVIEWS:
            self._answer(201, {**body, "status": _REVIEWS[parts.path](self.api, body)})
            return
        kind, _, name = parts.path.partition("/namespaces/market/")[2].partition("/")
        if kind not in self.api.objects:
            self._about(parts.path)
            return
        asked = self._verb(name, query), f"{kind}/log" if name.endswith("/log") else kind
        if self.api.allowed is not None and asked not in self.api.allowed:
            self._status(403, f'{kind} is forbidden: User "ci" cannot {asked[0]} resource "{asked[1]}"')
            return
        if fault is not None:
            self._act(kind, name, query, body, quiet=True)
            self._strike(fault)
            return
        self._act(kind, name, query, body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.api.ahead_s)

    def _about(self, path: str) -> None:
        kind, _, name = path.rpartition("/")
        asked = ("get", kind.rpartition("/")[2]) if kind.endswith(_NAMED) else ("list", name)
        if path != "/version" and self.api.allowed is not None and asked not in self.api.allowed:
            self._status(
                403, f'{asked[1]} is forbidden: User "{self.api.user}" cannot {asked[0]} resource "{asked[1]}"'
            )
        elif path in self.api.about:
            self._answer(200, self.api.about[path])
        else:
            self._answer(404, {"message": f'{kind} "{name}" not found', "reason": "NotFound", "code": 404})

    def _verb(self, name: str, query: dict[str, str]) -> str:
        if self.command == "GET":
            return "get" if name else "watch" if "watch" in query else "list"
        return {"POST": "create", "PATCH": "patch", "DELETE": "delete"}[self.command]

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 the names that http.server calls

    def _strike(self, fault: Fault) -> None:
        if fault.code:
            self._status(fault.code, fault.message)
        else:
            self.close_connection = True
            self.connection.close()

    def _act(self, kind: str, name: str, query: dict[str, str], body: Object, *, quiet: bool = False) -> None:
        self._reply = (lambda *_: None) if quiet else self._answer
        if self.command == "POST":
            self._create(kind, query, body)
        elif name.endswith("/log"):
            self._log(name.removesuffix("/log"), query)
        elif self.command == "GET" and not name:
            (self._watch if "watch" in query else self._list)(kind, query)
        elif name not in self.api.objects[kind]:
            self._reply(404, {"message": f'{kind} "{name}" not found', "reason": "NotFound", "code": 404})
        elif self.command == "PATCH":
            self._reply(200, self.api.put(kind, merged(self.api.objects[kind][name], body)))
        elif self.command == "DELETE":
            self.api.remove(kind, name)
            self._reply(200, {"kind": "Status", "status": "Success"})
        else:
            self._reply(200, self.api.objects[kind][name])

    def _create(self, kind: str, query: dict[str, str], body: Object) -> None:
        name = body["metadata"]["name"]
        if name in self.api.objects[kind]:
            self._reply(409, {"message": f'{kind} "{name}" already exists', "reason": "AlreadyExists", "code": 409})
        elif "dryRun" in query:
            self._reply(201, {**body, "dry": True})
        else:
            self._reply(201, self.api.put(kind, body))

    def _list(self, kind: str, query: dict[str, str]) -> None:
        with self.api.changed:
            items = [each for each in self.api.objects[kind].values() if selected(each, query)]
            version = self.api.version
        start = int(query.get("continue", 0))
        more = {"continue": str(start + PAGE)} if start + PAGE < len(items) else {}
        page = {"items": items[start : start + PAGE], "metadata": {"resourceVersion": str(version), **more}}
        self._reply(200, page)

    def _log(self, pod: str, query: dict[str, str]) -> None:
        if pod not in self.api.logs:
            self._status(400, f'container "worker" in pod "{pod}" is waiting to start: ContainerCreating')
            return
        since = query.get("sinceTime", "")[:19]
        lines = [line for line in self.api.logs[pod].splitlines() if line[:19] >= since]
        body = "".join(f"{line}\n" for line in lines).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, kind: str, query: dict[str, str]) -> None:
        version, end = int(query["resourceVersion"]), time.monotonic() + float(query["timeoutSeconds"])
        hang_ups = self.api.hang_ups  # before the client can know that it watches
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if version < self.api.compacted:
            self._chunk({"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}})
        else:
            self._changes(kind, version, query, end, hang_ups)
        if not self.close_connection:
            self.wfile.write(b"0\r\n\r\n")

    def _changes(self, kind: str, version: int, query: dict[str, str], end: float, hang_ups: int) -> None:
        while time.monotonic() < end:
            with self.api.changed:
                news = [(v, c) for v, k, c in self.api.history if k == kind and v > version]
                if not news and hang_ups == self.api.hang_ups:
                    self.api.changed.wait(0.2)
            if hang_ups != self.api.hang_ups:
                self.wfile.write(b'30\r\n{"type": "ADDED", "obj')
                self.close_connection = True
                self.connection.close()
                return
            version = news[-1][0] if news else version
            for _, change in news:
                if selected(change["object"], query):
                    self._chunk(change)
            if not news and self.server.closing:
                return

    def _chunk(self, change: Object) -> None:
        body = json.dumps(change).encode() + b"\n"
        # In two chunks: a change need not come in one piece.
        for part in (body[:7], body[7:]):
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        self.wfile.flush()

    def _status(self, code: int, message: str) -> None:
        self._answer(code, {"kind": "Status", "code": code, "message": message})

    def _answer(self, code: int, document: Object) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _access(api: Api, review: Object) -> Object:
    asked = review["spec"]["resourceAttributes"]
    resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
    is_here = asked["namespace"] == "market" and asked["group"] == ("batch" if resource == "jobs" else "")
    return {"allowed": is_here and (api.allowed is None or (asked["verb"], resource) in api.allowed)}


_NAMED = ("/namespaces", "/secrets", "/serviceaccounts")
_REVIEWS = {
    "/apis/authentication.k8s.io/v1/selfsubjectreviews": lambda api, _: {"userInfo": {"username": api.user}},
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews": _access,
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    closing = False

    def handle_error(self, *_: object) -> None:
        pass  # a client that went away is what some tests are about


def selected(item: Object, query: dict[str, str]) -> bool:
    """Tell whether an object is chosen by labelSelector and fieldSelector, both of key=value terms."""
    flat = {"metadata.name": item["metadata"]["name"], "type": item.get("type")}
    terms = [(flat, term) for term in filter(None, query.get("fieldSelector", "").split(","))]
    terms += [(item["metadata"].get("labels", {}), t) for t in filter(None, query.get("labelSelector", "").split(","))]
    return all(there.get(term.partition("=")[0]) == term.partition("=")[2] for there, term in terms)


def merged(old: Object, change: Object) -> Object:
    return {**old, **{k: merged(old.get(k, {}), v) if isinstance(v, dict) else v for k, v in change.items()}}


@contextmanager
def serve() -> Iterator[Api]:
    api = Api()
    server = _Server(("127.0.0.1", 0), type("Bound", (_Request,), {"api": api}))
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield api
    finally:
        server.closing = True
        server.shutdown()
        server.server_close()
        thread.join()
