"""Judges an object by the schema of its kind, strictly: unknown fields, wrong types and missing fields are faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

SCHEMAS = Path(__file__).resolve().parents[3] / "data" / "kubernetes" / "schemas.json"
DEFINITIONS = json.loads(SCHEMAS.read_text(encoding="utf-8"))["definitions"]
KINDS = {
    ("batch/v1", "CronJob"): "io.k8s.api.batch.v1.CronJob",
    ("batch/v1", "Job"): "io.k8s.api.batch.v1.Job",
    ("v1", "ConfigMap"): "io.k8s.api.core.v1.ConfigMap",
    ("v1", "Namespace"): "io.k8s.api.core.v1.Namespace",
    ("v1", "ServiceAccount"): "io.k8s.api.core.v1.ServiceAccount",
    ("networking.k8s.io/v1", "NetworkPolicy"): "io.k8s.api.networking.v1.NetworkPolicy",
    ("rbac.authorization.k8s.io/v1", "Role"): "io.k8s.api.rbac.v1.Role",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "io.k8s.api.rbac.v1.RoleBinding",
}
BITS = {"int32": 31, "int64": 63}


def faults(document: dict) -> list[str]:
    """Return everything that the API would refuse, or drop without a word."""
    return list(_faults(document, DEFINITIONS[KINDS[document["apiVersion"], document["kind"]]], ""))


def _faults(value: object, schema: dict, path: str) -> Iterator[str]:
    if "$ref" in schema:
        schema = DEFINITIONS[schema["$ref"]]
    types = schema.get("type", "object")
    taken = {types} if isinstance(types, str) else set(types)
    if not {_type(value), "number" if type(value) is int else ""} & taken:
        yield f"{path}: {value!r} is no {types}"
    elif isinstance(value, dict):
        yield from _map_faults(value, schema, path)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _faults(item, schema["items"], f"{path}[{number}]")
    elif schema.get("format") in BITS and isinstance(value, int) and abs(value) >> BITS[schema["format"]]:
        yield f"{path}: {value} is too large"


def _map_faults(value: dict, schema: dict, path: str) -> Iterator[str]:
    fields, others = schema.get("properties", {}), schema.get("additionalProperties")
    yield from (f"{path}.{name}: missing" for name in schema.get("required", ()) if name not in value)
    for name, item in value.items():
        if not isinstance(name, str):
            yield f"{path}: the key {name!r} is no text"
        elif name in fields:
            yield from _faults(item, fields[name], f"{path}.{name}")
        elif others:
            yield from _faults(item, others, f"{path}.{name}")
        else:
            yield f"{path}.{name}: unknown"


def _type(value: object) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")
