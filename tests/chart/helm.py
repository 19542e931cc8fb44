"""The real helm, built by scripts/helm, and what it renders as objects."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "runner"
STORE, IMAGE = "gs://my-bucket/market-data", "runner:0.1.0"
# The environment of a person who configured nothing.
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}


@functools.cache
def program() -> str:
    """Return where helm is; building it the first time takes minutes."""
    return subprocess.run([ROOT / "scripts/helm"], capture_output=True, text=True, check=True).stdout.strip()


def helm(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [program(), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**ENV, **(env or {})})


def template(*words: object, release: str = "runner", namespace: str = "runner") -> list[dict]:
    """Return the objects that the chart makes, as any reader of YAML reads them."""
    done = helm("template", release, CHART, "-n", namespace, *words)
    assert done.returncode == 0, done.stderr
    return objects(done.stdout)


def refusal(*words: object) -> str:
    """Return what helm says when it makes nothing."""
    done = helm("template", "runner", CHART, "-n", "runner", *words)
    assert done.returncode != 0, done.stdout
    return done.stderr


def objects(text: str) -> list[dict]:
    return [bare(document) for document in yaml.safe_load_all(text) if document]


def bare(value: Any) -> Any:
    """Return a value without keys that hold null: the API takes them for absent in fields of objects."""
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if item is not None}
    return [bare(item) for item in value] if isinstance(value, list) else value


def written(path: Path, document: object) -> Path:
    """Write values as YAML that all its readers read the same."""
    path.write_text(as_yaml(document), encoding="utf-8")
    return path


def as_yaml(document: object) -> str:
    """Return JSON without what YAML takes for something else, and without pairs of surrogates, which it refuses."""
    text = json.dumps(document, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda match: f"\\u{ord(match[0]):04x}", text)
