import gzip
import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner.sandbox.tardis import Options, Server, serve

SAMPLES = Path(__file__).parents[2] / "runner/sandbox/data"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, path: str, *, method: str = "GET", key: str | None = "fake-key-1", body: Any = None, **headers: str):
    host = url.removeprefix("http://").split("/")[0]
    connection = http.client.HTTPConnection(host, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        sent["Authorization"] = f"Bearer {key}"
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=sent)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serve(Options(**options)))


@pytest.fixture
def server(start) -> Server:
    return start(data=SAMPLES)


@pytest.fixture
def put(tmp_path) -> Callable[..., Path]:
    """Write a day file into a data directory; its text is a header and one row unless given."""

    def write(path: str, text: str = "exchange,symbol\nx,y\n") -> Path:
        file = tmp_path / "data" / f"{path}.csv.gz"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(gzip.compress(text.encode(), mtime=0))
        return file

    return write


@pytest.fixture
def fetch() -> Callable[..., Answer]:
    return ask
