"""Flags, run file, environment, `runner.yaml` and defaults to one RunSpec, each value with its origin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from runner.errors import SpecError
from runner.logs import escape, redact
from runner.spec import files, values
from runner.spec.model import RunSpec, fields
from runner.task import WORKER_STAGES

DEFAULT_FILE = "runner.yaml"
PLACE = ("backend", "namespace", "context", "image")
KEY_VARIABLES = ("TARDIS_API_KEY", "TARDIS_API_KEY_FILE")
_KEY_WAY_OUT = "a key never stands there; put it into a file and set TARDIS_API_KEY_FILE to its path"
_KEY_WORDS = frozenset({"key", "apikey", "tardiskey", "tardisapikey", "secret", "token", "password", "authorization"})
_KEY_BYTES = 4_096
_SECTIONS_OF_VALUES = ("run", "pod", "install")


@dataclass(frozen=True, slots=True)
class Resolved:
    """A spec and, for each dotted camelCase key, where its value came from.

    An origin is `flag --shards`, `run.yaml:shards`, `env RUNNER_STORE`, `runner.yaml:store` or `default`.
    """

    spec: RunSpec
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Given:
    key: str
    value: object
    origin: str


def resolve(  # noqa: PLR0913 the sources of values
    flags: Mapping[str, object],
    run_file: Path | None = None,
    *,
    env: Mapping[str, str],
    cwd: Path,
    need_store: bool = True,
    layers: Sequence[tuple[str, Mapping[str, Any]]] = (),
) -> Resolved:
    """Return the spec that flags > run file > `layers` > environment > `runner.yaml` in `cwd` > defaults make.

    `flags` has dotted camelCase keys; None is not given. `layers` are names and run sections of files with values for a
    cluster, the last one wins; null there takes away. A relative store path is relative to `cwd`.
    Raises SpecError: one line with what is wrong, in which source, and what to do.
    """
    given: dict[str, _Given] = {}
    own_file = cwd / DEFAULT_FILE
    sources = (
        _of_file(own_file, DEFAULT_FILE) if own_file.exists() else (),
        _of_environment(env),
        *(_of_layer(document, name) for name, document in layers),
        _of_file(cwd / run_file, str(run_file)) if run_file is not None else (),
        _of_flags(flags),
    )
    for source in sources:
        given.update((item.key, item) for item in source)
    given = {key: item for key, item in given.items() if item.value is not None}
    origins = {key: item.origin for key, item in given.items()}
    spec = RunSpec.build(_nested(given), origins=origins, default="default")
    if need_store and not spec.store:
        raise SpecError("no store is configured: give --store URL, set RUNNER_STORE, or write `store:` in the run file")
    spec = spec.model_copy(update={"store": _absolute(spec.store, origins.get("store", ""), cwd)})
    return Resolved(spec, {key: origins.get(key, "default") for key in fields()})


def tardis_key(env: Mapping[str, str]) -> str | None:
    """Return the Tardis key of TARDIS_API_KEY or of the file TARDIS_API_KEY_FILE names; None when neither is set.

    Raises SpecError when the file cannot be read or holds no key; the message never holds the key.
    """
    value, name = (env.get(variable) for variable in KEY_VARIABLES)
    if name:
        path = Path(name)
        try:
            with path.open("rb") as file:
                value = file.read(_KEY_BYTES).decode("ascii")
        except (OSError, ValueError) as e:
            why = e.strerror if isinstance(e, OSError) and e.strerror else "not text"
            raise SpecError(f"env TARDIS_API_KEY_FILE {values.shown(name)}: cannot be read: {why.lower()}") from e
    if value is None:
        return None
    key = value.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        variable = KEY_VARIABLES[1] if name else KEY_VARIABLES[0]
        raise SpecError(f"env {variable}: holds no key; it must be one line of visible characters, or unset")
    return key


def flag_of(key: str) -> str:
    """Return the flag of a dotted camelCase key.

    >>> flag_of("startDate"), flag_of("tardis.stallSeconds")
    ('--start-date', '--tardis-stall-seconds')
    """
    return "--" + _split(key, "-").lower()


def place_words(spec: Mapping[str, Any], *, anew: bool = False) -> list[str]:
    """Return the options that take a request to the cluster of a spec's run; none where that was on this machine.

    A run begun in a pod names no context, as that would be none elsewhere. Whoever begins one `anew` beside it gives
    the file of values too that its installation had.

    >>> place_words({"backend": "kubernetes", "namespace": "n", "context": None, "image": "i"}, anew=True)
    ['--backend', 'kubernetes', '--namespace', 'n', '--image', 'i', '--values', 'FILE']
    >>> place_words({"backend": "kubernetes", "namespace": "n", "context": "c"}, anew=True)
    ['--backend', 'kubernetes', '--namespace', 'n', '--context', 'c']
    """
    if spec.get("backend", "local") == "local":
        return []
    words = [word for key in PLACE if (value := spec.get(key)) for word in (flag_of(key), str(value))]
    return [*words, *(["--values", "FILE"] if anew and not spec.get("context") else [])]


def variable_of(key: str) -> str:
    """Return the environment variable of a dotted camelCase key.

    >>> variable_of("startDate"), variable_of("tardis.stallSeconds")
    ('RUNNER_START_DATE', 'RUNNER_TARDIS_STALL_SECONDS')
    """
    return "RUNNER_" + _split(key, "_").upper()


def aliases() -> Mapping[str, Any]:
    """Return the names the seed used, by kind: stages, flags, environment, refused, not_ours."""
    found: dict[str, Any] = json.loads(resources("runner.spec").joinpath("aliases.json").read_text(encoding="utf-8"))
    return found


def _of_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for key, value in flags.items():
        if value is not None:
            yield _checked(key, value, "STAGE" if key == "stage" else f"flag {flag_of(key)}")


def _of_file(path: Path, name: str) -> Iterator[_Given]:
    for key, value in _flat(files.read(path, name=values.shown(name)), where=values.shown(name)):
        yield _checked(key, value, f"{values.shown(name)}:{key}")


def _of_layer(document: Mapping[str, Any], name: str) -> Iterator[_Given]:
    for key, value in _flat(document, where=f"{name}:run", nulls=True):
        yield _checked(key, value, f"{name}:run.{key}")


def _of_environment(env: Mapping[str, str]) -> Iterator[_Given]:
    table = aliases()
    by_variable: dict[str, str] = {**table["environment"], **{variable_of(key): key for key in fields()}}
    for name in table["not_ours"]:
        by_variable.pop(name, None)
    # Aliases first, so that our own name wins where both are set.
    for name in sorted(env, key=lambda name: (name.startswith("RUNNER_"), name)):
        if name in table["refused"]:
            raise SpecError(f"env {name}: is not understood; {table['refused'][name]}")
        if name in by_variable:
            yield _of_variable(name, by_variable[name], env[name])
        elif name.startswith("RUNNER_") and name not in table["not_ours"]:
            near = values.nearest(name, [*by_variable, *KEY_VARIABLES])
            raise SpecError(f"env {values.shown(name)}: no such variable{near}; unset it or correct its name")


def _of_variable(name: str, key: str, value: str) -> _Given:
    if not value.strip():
        raise SpecError(f"env {name}: is set but empty; unset it or give a value")
    if name == "GCS_BUCKET" and "://" not in value:
        value = f"gs://{value.strip()}"
    return _checked(key, value, f"env {name}")


def _flat(
    document: Mapping[str, Any], *, where: str, prefix: str = "", nulls: bool = False
) -> Iterator[tuple[str, object]]:
    known = fields()
    for name, value in document.items():
        key = f"{prefix}{name}"
        shown = f"{where}:{values.shown(key)}"
        if re.sub(r"[^a-z]", "", str(name).lower().removesuffix("file")) in _KEY_WORDS:
            raise SpecError(f"{shown}: {_KEY_WAY_OUT}")
        if any(field.startswith(f"{key}.") for field in known):
            if not isinstance(value, dict):
                raise SpecError(f"{shown}: must hold keys of its own, such as {_first(known, key)}")
            yield from _flat(value, where=where, prefix=f"{key}.", nulls=nulls)
        elif key in _SECTIONS_OF_VALUES and not nulls:
            raise SpecError(f"{shown}: is a section of Helm's values, not a key of a run; give this file with --values")
        elif key not in known:
            tops = [*known, *(field.split(".")[0] for field in known if "." in field)]
            raise SpecError(f"{shown}: no such key{values.nearest(key, tops)}")
        elif value is None and not nulls:
            raise SpecError(f"{shown}: has no value; give one or remove the line")
        else:
            yield key, value


def _first(known: tuple[str, ...], section: str) -> str:
    return next(field for field in known if field.startswith(f"{section}."))


def _checked(key: str, value: object, origin: str) -> _Given:
    if isinstance(value, str) and not value.strip():
        raise SpecError(f"{origin}: is empty; give a value or leave it out")
    items = value if isinstance(value, list) else [value]
    if any(isinstance(item, str) and redact(item) != item for item in items):
        raise SpecError(f"{origin}: looks like a key; {_KEY_WAY_OUT}")
    if key == "stage" and isinstance(value, str):
        old, value = value, aliases()["stages"].get(value.strip().lower(), value)
        if value != old and value not in WORKER_STAGES:
            raise SpecError(f"{origin} {values.shown(old)}: is now {value}, and this version does not have that yet")
    return _Given(key, value, origin)


def _nested(given: Mapping[str, _Given]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, item in given.items():
        section, _, name = key.rpartition(".")
        (document.setdefault(section, {}) if section else document)[name] = item.value
    return document


def _absolute(store: str, origin: str, cwd: Path) -> str:
    path = store.removeprefix("file://") if store.startswith("file://") else store
    if not store or ("://" in path):
        return store
    try:
        real = str(Path(cwd, Path(path).expanduser()).resolve())
        return f"file://{real if path != store else real.replace('%', '%25')}"
    except (RuntimeError, OSError) as e:
        raise SpecError(f"{origin} {values.shown(store)}: is no path here ({escape(str(e))}); give file:///dir") from e


def _split(key: str, mark: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", mark, key.replace(".", mark))
