"""The life of a sandbox: what it takes while it runs, and that it gives back all of it."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runner.errors import SpecError
from runner.sandbox import gcs, tardis

SERVE: dict[str, Callable[..., Any]] = {
    "tardis": lambda **options: tardis.serve(tardis.Options(**options)),
    "gcs": lambda **options: gcs.serve(gcs.Options(**options)),
}


def held() -> set[str]:
    """Return the sockets that this process has open."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        # The one that lists the directory is gone by now.
        with suppress(FileNotFoundError):
            found.add(str(each.readlink()))
    return {target for target in found if target.startswith("socket:")}


@pytest.fixture
def taken() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize("serve", SERVE.values(), ids=SERVE)
def test_a_closed_server_leaves_no_thread_and_no_socket(serve: Callable[..., Any]) -> None:
    threads, sockets = set(threading.enumerate()), held()
    with serve() as server:
        with socket.create_connection(("127.0.0.1", server.port)):
            assert held() > sockets
        assert set(threading.enumerate()) > threads
    assert set(threading.enumerate()) <= threads
    assert held() <= sockets
    server.close()


@pytest.mark.parametrize("serve", SERVE.values(), ids=SERVE)
def test_a_port_in_use_is_said_and_leaves_nothing(
    serve: Callable[..., Any], taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = held()
    with pytest.raises(SpecError, match=f"127.0.0.1:{taken}.*choose another port"):
        serve(port=taken)
    assert held() <= before
    assert list(tmp_path.iterdir()) == []


def test_generated_days_end_with_their_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with tardis.serve(tardis.Options()):
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
