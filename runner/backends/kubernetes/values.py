"""What fills the chart's templates: a run, raw fields of its Job and pods, and what follows from both.

Files with values are laid over the chart's own as Helm does it. No key and no other secret is ever among them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files as resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from runner.backends.kubernetes.fixed import FIXED, KEY_VARIABLE, RUN_LABEL, STAGE_LABEL
from runner.errors import SpecError
from runner.logs import escape, redact
from runner.spec import Backend, RunSpec
from runner.spec.files import parse, read

_LABEL_CHARS = 63
VARIABLE_BYTES = 100_000  # Linux takes 128 KiB of one

Layer = Path | Mapping[str, Any]


def chart() -> Traversable:
    """Return the directory of the chart's files: inside the installed package, or in the checkout it runs from."""
    package = resources("runner")
    packaged = package / "charts"
    return packaged if packaged.is_dir() else Path(str(package)).parent / "charts" / "runner"


def placements() -> tuple[str, ...]:
    """Return the names of the placements that are shipped."""
    return tuple(sorted(file.name.removesuffix(".yaml") for file in (chart() / "placement").iterdir()))


def placement(name: str) -> Mapping[str, Any]:
    """Return the values of a shipped placement. Raises SpecError when there is none of this name."""
    if name not in placements():
        raise SpecError(f"placement {escape(name)}: is not shipped; give one of {', '.join(placements())}, or --values")
    return _shipped(f"placement/{name}.yaml")


def load_values(layers: Sequence[Layer] = ()) -> dict[str, Any]:
    """Return the chart's values with these laid over each other, then over them, as Helm does it.

    Maps merge, lists replace, null takes away. Raises SpecError, naming file and key, for what the chart does not know.
    """
    defaults = _shipped("values.yaml")
    over: dict[str, Any] = {}
    for layer in layers:
        name = escape(str(layer)) if isinstance(layer, Path) else "values"
        values = read(layer, name=name, typed=True) if isinstance(layer, Path) else dict(layer)
        _check(values, defaults, name)
        over = _merge(over, values)
    return without_nulls(_merge(defaults, over))


def documents(layers: Sequence[Layer]) -> tuple[Mapping[str, Any], ...]:
    """Return what layers hold of pods, files read."""
    read_ = (read(each, name=escape(str(each)), typed=True) if isinstance(each, Path) else each for each in layers)
    return tuple({"pod": values["pod"]} for values in read_ if values.get("pod"))


def requests(paths: Sequence[Path]) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Return the name of each file of values with what it says of the run itself; Helm alone is told to start it."""
    found = ((escape(str(path)), read(path, name=escape(str(path)), typed=True).get("run")) for path in paths)
    return tuple(
        (name, {key: value for key, value in run.items() if key != "enabled"})
        for name, run in found
        if isinstance(run, Mapping)
    )


def without_nulls(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document without keys that hold null, at any depth."""
    return {key: _bare(value) for key, value in document.items() if value is not None}


def values_for(  # noqa: PLR0913 a run, and where it is to run
    spec: RunSpec,
    *,
    run_id: str,
    shards: int,
    image: str | None = None,
    namespace: str | None = None,
    files: Sequence[Layer] = (),
) -> dict[str, Any]:
    """Return all values of a run: `run`, `pod`, and `job`, which follows from them.

    `shards` is how many indexes the Job has. `image` wins over the files' one; no `namespace` means the context's.
    Raises SpecError when something in there cannot work on a cluster.
    """
    pod = load_values(files)["pod"]
    pod["image"] = image or pod.get("image")
    if not pod["image"]:
        raise SpecError("no image is configured: give --image, set RUNNER_IMAGE, or write pod.image in a --values file")
    _check_name(run_id, shards)
    _check_store(spec.store, pod)
    parallelism = min(spec.parallelism, shards)
    where = {"backend": Backend.KUBERNETES, "image": pod["image"], "shards": shards, "parallelism": parallelism}
    sized = spec.model_copy(update=where)
    volumes, mounts = _volumes(pod)
    job = {
        "name": run_id,
        "namespace": namespace,
        "labels": {**(pod.get("labels") or {}), **FIXED["labels"], RUN_LABEL: run_id, STAGE_LABEL: str(spec.stage)},
        "podFailurePolicy": FIXED["podFailurePolicy"],
        "env": _env(sized, run_id, pod),
        "volumes": volumes,
        "volumeMounts": mounts,
    }
    return {"run": sized.model_dump(mode="json", by_alias=True), "pod": pod, "job": job}


def _env(spec: RunSpec, run_id: str, pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    text = spec.to_json()
    if len(text.encode()) > VARIABLE_BYTES:
        raise SpecError(f"run {run_id}: its request is {len(text)} characters long; name instruments by globs")
    ours: list[dict[str, Any]] = [
        {"name": "RUNNER_RUN", "value": run_id},
        # The kubelet puts variables in for $(NAME), and $ for $$.
        {"name": "RUNNER_SPEC", "value": text.replace("$", "$$")},
        *FIXED["env"],
        *(FIXED["key"]["env"] if pod.get("tardisKey") else ()),
    ]
    taken = {KEY_VARIABLE, *(entry["name"] for entry in ours)}
    for entry in (theirs := pod.get("env") or []):
        if entry.get("name") in taken:
            raise SpecError(f"values: pod.env names {entry['name']}, which a run sets itself; take it out")
    return [*ours, *theirs]


def _volumes(pod: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": pod.get("scratch") or {}}, *FIXED["volumes"]]
    mounts: list[dict[str, Any]] = [*FIXED["mounts"]]
    if secret := pod.get("tardisKey"):
        volumes.append({"name": FIXED["key"]["mount"]["name"], "secret": secret})
        mounts.append(FIXED["key"]["mount"])
    return [*volumes, *(pod.get("volumes") or [])], [*mounts, *(pod.get("volumeMounts") or [])]


def _check_name(run_id: str, shards: int) -> None:
    """Refuse a name that the Job's last pod cannot have as its host name."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", run_id):
        raise SpecError(f"run {escape(run_id)}: cannot be a Job's name: small letters, digits and - only")
    if len(f"{run_id}-{shards - 1}") > _LABEL_CHARS:
        raise SpecError(f"run {run_id}: is too long a name for a Job of {shards} pods ({_LABEL_CHARS} with the index)")


def _check_store(store: str, pod: Mapping[str, Any]) -> None:
    path = store.removeprefix("file://")
    mounted = [str(mount.get("mountPath")).rstrip("/") for mount in pod.get("volumeMounts") or []]
    if store.startswith("gs://") or any(f"{path}/".startswith(f"{mount}/") for mount in mounted):
        return
    raise SpecError(
        f"store {store or 'none'}: no pod sees it; give --store gs://bucket/prefix, or mount its directory with "
        "pod.volumes and pod.volumeMounts of a --values file"
    )


def _shipped(name: str) -> dict[str, Any]:
    return parse(chart().joinpath(name).read_text(encoding="utf-8"), name=f"charts/runner/{name}", typed=True)


def _check(values: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> None:
    for text in _texts(values):
        if redact(text) != text:
            raise SpecError(f"{name}: holds what looks like a key; put it in a Secret and name that in pod.tardisKey")
    for section, fields in values.items():
        _known(name, section, defaults)
        if not isinstance(fields, Mapping):
            raise SpecError(f"{name}:{section}: must hold keys of its own, such as {next(iter(defaults[section]))}")
        for key, value in fields.items():
            _known(name, key, defaults[section], f"{section}.")
            default = defaults[section][key]
            for kind, word in ((list, "a list"), (dict, "a map")):
                if value is not None and isinstance(default, kind) and not isinstance(value, kind):
                    raise SpecError(f"{name}:{section}.{key}: must be {word}")


def _known(name: str, key: object, valid: Mapping[str, Any], prefix: str = "") -> None:
    if key not in valid:
        near = difflib.get_close_matches(str(key), valid, n=1)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"there are: {', '.join(valid)}"
        raise SpecError(f"{name}: no such key: {prefix}{escape(str(key))}; {hint}")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from (*_texts(key), *_texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        is_both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merge(dict(below or {}), value) if is_both else value
    return merged


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_nulls(value)
    return [_bare(item) for item in value] if isinstance(value, list) else value
