"""The API server itself about what we render: every field known, every text kept, no pod against the standard."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from runner.backends.kubernetes import render
from runner.backends.kubernetes.values import placement, placements, values_for
from runner.spec import RunSpec
from tests.e2e_k8s.cluster import kubectl, rights, until
from tests.unit.backends.kubernetes.test_render import NASTY

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
SPEC = RunSpec(store="gs://bucket/prefix", start_date="2024-08-08", shards=100, parallelism=6)


@pytest.fixture(scope="module")
def namespace(cluster: None) -> Iterator[str]:
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    kubectl("apply", "-f", "-", given=rights(name))
    until(lambda: kubectl("get", "serviceaccount", "default", "-n", name, check=False), "the namespace is made")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def values(namespace: str, *layers: dict) -> dict:
    return values_for(SPEC, run_id="download-3f", shards=100, image="runner:dev", namespace=namespace, files=layers)


def taken(text: str) -> dict:
    """Return the object as the API server would keep it."""
    words = ("create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-")
    return json.loads(kubectl(*words, given=text))


@pytest.mark.parametrize("name", [None, *placements()])
def test_the_server_knows_every_field(namespace: str, name: str | None) -> None:
    layers = [placement(name)] if name else []
    spec = taken(render.yaml(values(namespace, *layers)))["spec"]
    # With tries for each index there is no limit for all of them together.
    assert (spec["backoffLimitPerIndex"], spec["backoffLimit"]) == (6, 2**31 - 1)
    assert "maxFailedIndexes" not in spec


def test_the_server_refuses_a_misspelt_field(namespace: str) -> None:
    text = render.yaml(values(namespace)).replace("podFailurePolicy", "podFailurePolice")
    with pytest.raises(AssertionError, match="unknown field"):
        taken(text)


def test_the_server_keeps_every_text(namespace: str) -> None:
    filled = values(namespace, {"pod": {"env": [{"name": f"A{n}", "value": text} for n, text in enumerate(NASTY)]}})
    (container,) = taken(render.yaml(filled))["spec"]["template"]["spec"]["containers"]
    kept = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    assert [kept[f"A{n}"] for n in range(len(NASTY))] == NASTY


def test_a_pod_of_the_job_is_let_in_where_the_restricted_standard_is_enforced(namespace: str) -> None:
    metadata = {"name": "worker", "namespace": namespace}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    template = render.job(values(namespace))["spec"]["template"]["spec"]
    assert taken(json.dumps({**pod, "spec": template}))["metadata"]["name"] == "worker"
    template["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(AssertionError, match="violates PodSecurity"):
        taken(json.dumps({**pod, "spec": template}))
