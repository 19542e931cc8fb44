"""YAML read strictly, so that what a file seems to say is what it says; and written so that all readers read the same.

No duplicate keys, anchors, aliases, merge keys or tags; bounded size and depth. In run files every scalar but null is
text. Values of a cluster have types, of which only those are taken that no two readers of YAML read differently.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from runner.errors import SpecError
from runner.logs import escape

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
MAX_INTEGER = 2**53
"""Beyond it, readers that know only floating point change the number."""


def read(path: Path, *, name: str, typed: bool = False) -> dict[str, Any]:
    """Return the mapping that a YAML file holds. Raises SpecError, one line that starts with `name`."""
    return parse(_text(path, name), name=name, typed=typed)


def parse(text: str, *, name: str, typed: bool = False) -> dict[str, Any]:
    """Return the mapping that a YAML text holds; its scalars are text, or `typed`: text, truth, integer.

    Raises SpecError, one line that starts with `name`.
    """
    try:
        document = yaml.load(text, Loader=_Typed if typed else _Strict)  # noqa: S506 SafeLoaders with less
    except yaml.YAMLError as e:
        raise SpecError(f"{name}{_position(e)}: {_problem(e)}") from e
    if document is None:
        raise SpecError(f"{name}: is empty; write keys as `shards: 8`, or leave the file out")
    if not isinstance(document, dict):
        raise SpecError(f"{name}: is not a mapping; write keys as `shards: 8`")
    return document


def _text(path: Path, name: str) -> str:
    try:
        if path.is_dir():
            raise SpecError(f"{name}: is a directory; give a YAML file")
        if path.exists() and not path.is_file():
            raise SpecError(f"{name}: is not a regular file; give a YAML file")
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
    except FileNotFoundError as e:
        raise SpecError(f"{name}: no such file; check the path") from e
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise SpecError(f"{name}: cannot be read: {why.lower()}") from e
    return _decoded(body, name)


def _decoded(body: bytes, name: str) -> str:
    if len(body) > MAX_BYTES:
        raise SpecError(f"{name}: is larger than {MAX_BYTES >> 20} MiB; that is no file of settings")
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecError(f"{name}: is UTF-16; save it as UTF-8")
    if b"\x00" in body:
        raise SpecError(f"{name}: is binary; give a YAML file")
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise SpecError(f"{name}: is not UTF-8 (byte {e.start}); save it as UTF-8") from e


def _position(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, _RefusedError):
        return str(error.problem)
    return f"is not valid YAML: {escape(' '.join(str(getattr(error, 'problem', None) or error).split()))}"


class _RefusedError(yaml.MarkedYAMLError):
    """Valid YAML that a run file may not hold."""


class _Strict(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call] # the stubs leave it bare
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _RefusedError(problem="anchors and aliases are refused; write it out", problem_mark=event.start_mark)
        if getattr(event, "tag", None):
            raise _RefusedError(problem="tags are refused; write the plain value", problem_mark=event.start_mark)
        if self._depth >= MAX_DEPTH:
            raise _RefusedError(problem="is nested too deeply", problem_mark=event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 the base's signature
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            is_merge = name == "<<" and not key.style
            if name is None or name in seen or is_merge:
                why = f"the key {escape(name)} stands twice" if name and not is_merge else "a key must be a word"
                raise _RefusedError(problem=f"{why}; keep one", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


# Only null is more than text: 2026-02-30, 010, 1:30 or a number of a million digits reach our own checks as written.
_Strict.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] == "tag:yaml.org,2002:null"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


# What one reader of YAML takes for a number or a truth value, and another, or the next version, does not.
_DISPUTED = re.compile(
    r"(?:y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF"
    r"|[-+]?0(?:[0-9_]+|[xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)|[-+]?[0-9][0-9_]*(?::[0-9]+)+(?:\.[0-9_]*)?"
    r"|[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN))\Z"
)


class _Typed(_Strict):
    """Beside text and null: truth as true or false, whole numbers in decimal. Disputed words must be quoted."""

    def construct_disputed(self, node: yaml.ScalarNode) -> None:
        raise _RefusedError(
            problem=f"readers of YAML differ over {escape(node.value)}; put it in quotes, or write true, false or a "
            "whole number",
            problem_mark=node.start_mark,
        )

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        # The length first: Python refuses to read a number of thousands of digits.
        if len(node.value) > len(str(-MAX_INTEGER)) or abs(number := int(node.value)) >= MAX_INTEGER:
            raise _RefusedError(problem="is too large a number; put it in quotes", problem_mark=node.start_mark)
        return number


_Typed.yaml_implicit_resolvers = {
    **_Strict.yaml_implicit_resolvers,
    None: [
        ("tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
        ("tag:yaml.org,2002:int", re.compile(r"(?:-?[1-9][0-9]*|0)\Z")),
        ("!disputed", _DISPUTED),
    ],
}
_Typed.add_constructor("tag:yaml.org,2002:int", _Typed.construct_integer)
_Typed.add_constructor("!disputed", _Typed.construct_disputed)


def dump(document: Mapping[str, Any], *, quoted: bool = False) -> str:
    """Return a document as YAML in the order of its keys, ASCII, without anchors.

    `quoted` puts every text in quotes that any reader could take for something else, and never breaks a line.
    """
    if quoted:
        return yaml.dump(dict(document), Dumper=_Quoted, sort_keys=False, allow_unicode=False, width=_ENDLESS)
    return yaml.dump(dict(document), Dumper=_Plain, sort_keys=False, allow_unicode=False, width=120)


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


_ENDLESS = 1 << 30
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_TAKEN = re.compile(rf"{_DISPUTED.pattern}|(?:true|false|null)\Z", re.IGNORECASE)


class _Quoted(_Plain):
    def represent_text(self, text: str) -> yaml.ScalarNode:
        if _WORD.fullmatch(text) and not _TAKEN.match(text):
            style = None
        else:
            style = "'" if text.isascii() and text.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Quoted.add_representer(str, _Quoted.represent_text)
