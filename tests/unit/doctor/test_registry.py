"""Asking a registry for an image, over a socket: one that is open, one that wants a token, one that keeps silent."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runner.doctor import registry
from tests.unit.doctor.world import World


class Registry(BaseHTTPRequestHandler):
    """Has open/runner:1 for everybody, token/runner:1 for who brings the token it gives, private ones for nobody."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        kind, _, rest = self.path.removeprefix("/v2/").partition("/")
        is_known = self.headers.get("Authorization") == "Bearer for-everybody"
        if kind != "open" and not (kind == "token" and is_known):
            realm = f"http://127.0.0.1:{self.server.server_address[1]}/token"
            self._answer(401, **{"WWW-Authenticate": f'Bearer realm="{realm}",service="r",scope="{kind}:pull"'})
        elif "application/vnd.oci.image.index.v1+json" not in self.headers.get("Accept", ""):
            self._answer(404)
        else:
            self._answer(200 if rest == "runner/manifests/1" else 404)

    def do_GET(self) -> None:
        body = {"token": "for-everybody"} if "scope=token%3Apull" in self.path else {"errors": []}
        self._answer(200 if "token" in body else 403, json.dumps(body).encode())

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("image", "there"),
    [
        ("open/runner:1", "yes"),
        ("open/runner:2", "no"),
        ("token/runner:1", "yes"),
        ("token/runner:2", "no"),
        ("private/runner:1", "silence"),
    ],
)
def test_a_registry_tells_what_it_tells_everybody(host: str, image: str, there: str) -> None:
    assert {True: "yes", False: "no", None: "silence"}[registry.has(f"{host}/{image}")] == there


def test_a_registry_that_cannot_be_reached_tells_nothing() -> None:
    assert registry.has("127.0.0.1:1/open/runner:1") is None
    assert registry.has("runner:1") is None


@pytest.mark.parametrize(("image", "verdict"), [("open/runner:1", "ok"), ("open/runner:2", "fail")])
def test_doctor_believes_a_registry_that_tells(world: World, host: str, image: str, verdict: str) -> None:
    world.pod = {"image": f"{host}/{image}"}
    assert world.checks()["image"].verdict == verdict
