"""The Job of a run as an object or as YAML, from the chart's template. Asks no cluster; equal in gives equal out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from runner.backends.kubernetes.values import chart, without_nulls
from runner.errors import ConfigError, SpecError
from runner.spec.files import dump, parse

_TEMPLATE = "run/job.yaml"
_CONSTRUCT = re.compile(r"\{\{ \.Values((?:\.\w+)+) \| toJson \}\}")
# Characters that a reader of YAML refuses, or takes for the end of a line, inside of quotes.
_UNSAFE = re.compile(r"[^\x20-\x7e\U00010000-\U0010ffff]")


def job(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Job that these values make, without fields that are null. Raises SpecError for text that is none."""
    template = chart().joinpath(_TEMPLATE).read_text(encoding="utf-8")
    document = parse(fill(template, values), name=_TEMPLATE, typed=True)
    return without_nulls(document)


def yaml(values: Mapping[str, Any]) -> str:
    """Return the Job as YAML that every reader of YAML reads the same."""
    return dump(job(values), quoted=True)


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Return a template with each path of the values replaced by its JSON; a path that ends in nothing is null.

    Raises ConfigError for any other construct.
    """
    if "{{" in _CONSTRUCT.sub("", template):
        raise ConfigError("the template holds more than paths of the values piped to toJson; install runner anew")
    return _CONSTRUCT.sub(lambda match: to_json(_at(values, match[1].split(".")[1:])), template)


def to_json(value: object) -> str:
    r"""Return JSON that is YAML too, of the same meaning.

    >>> print(to_json({"a": "1e3 é\u2028{{ x }}"}))
    {"a": "1e3 \u00e9\u2028{{ x }}"}
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise SpecError(f"values: {e.object[e.start]!a} is no character; correct the text it stands in") from e
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _at(values: object, path: list[str]) -> object:
    for name in path:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values
