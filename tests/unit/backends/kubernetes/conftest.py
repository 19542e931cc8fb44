"""A small API server over a socket, and a client of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.backends.kubernetes.client import Client
from tests.unit.backends.kubernetes import api as double


@pytest.fixture
def api() -> Iterator[double.Api]:
    with double.serve() as server:
        yield server


@pytest.fixture
def client(api: double.Api, tmp_path: Path) -> Client:
    return Client(kubeconfig=api.kubeconfig(tmp_path, {"token": "fake-token-1"}))
