"""A patient and everything it talks to: an API server, a bucket and a source, each over a socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from runner.backends.kubernetes.client import Client
from runner.doctor import Check, Patient, examine
from runner.sandbox import gcs, tardis
from runner.spec import RunSpec
from tests.unit.backends.kubernetes import api as double

CORE, MARKET = "/api/v1", "/api/v1/namespaces/market"
IMAGE = "127.0.0.1:1/project/runner:0.1.0"
LAST = date(2024, 8, 3)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass
class World:
    """What is examined, healthy until a test spoils it."""

    api: double.Api
    bucket: gcs.Server
    source: tardis.Server
    folder: Path
    key: str | None = "fake-key-1"
    pod: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.api.about |= {
            MARKET: {"metadata": {"name": "market", "labels": RESTRICTED}},
            f"{MARKET}/secrets/tardis-api-key": {"data": {"key": "ZmFrZS1rZXktMQ=="}},
            f"{MARKET}/serviceaccounts/runner-worker": {},
            "/apis/apps/v1/daemonsets": {"items": [{"metadata": {"name": "cilium"}}]},
            f"{CORE}/nodes": {"items": [node("10.0.0.2", ExternalIP="203.0.113.7")]},
        }

    def node(self, *nodes: Mapping[str, Any]) -> None:
        self.api.about[f"{CORE}/nodes"] = {"items": list(nodes)}

    def connect(self) -> Client:
        return Client(kubeconfig=self.api.kubeconfig(self.folder, {"token": "fake-token-1"}))

    def read_key(self) -> str | None:
        return self.key

    def checks(self, backend: str = "kubernetes", **values: Any) -> dict[str, Check]:
        places = {"url": self.source.url, "api_url": self.source.api_url}
        asked = {"store": "gs://ours/here", "venues": "binance", "backend": backend, "tardis": places}
        spec = RunSpec(**{**asked, **self.spec, **values})
        pod = {"image": IMAGE, "serviceAccountName": "runner-worker", **self.pod}
        found = list(examine(Patient(spec, [{"pod": pod}], self.connect, self.read_key)))
        by_name = {check.name: check for check in found}
        assert len(by_name) == len(found), "each check once"
        assert all(check.mend for check in found if check.verdict != "ok"), "what is not well has a way out"
        assert "fake-" not in repr(found)
        return by_name


def node(address: str, *images: str, **addresses: str) -> dict[str, Any]:
    found = [{"type": "InternalIP", "address": address}]
    found += [{"type": kind, "address": each} for kind, each in addresses.items()]
    return {"status": {"addresses": found, "images": [{"names": [image]} for image in images or (IMAGE,)]}}


def days() -> list[str]:
    return [str(LAST - timedelta(days=2)), str(LAST)]
