"""`runner render`: the Job of a request, for kubectl or for eyes."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from runner.backends.kubernetes import render as rendering
from runner.backends.kubernetes.values import values_for
from runner.cli.given import RUN, SELECTION, SOURCE, WHERE, Given, selection, takes
from runner.cli.output import emit
from runner.cli.place import Memory, Placement, Values, layers
from runner.cli.requests import Force, Stage
from runner.errors import Exit, SpecError
from runner.runs.request import offline_id
from runner.spec.values import choice

_FORMATS = ("yaml", "json", "name")
_OPTIONS = tuple(key for key in (*SELECTION, *RUN, *WHERE, *SOURCE) if key not in ("backend", "context"))


def _format(value: str) -> str:
    try:
        return choice("output format", _FORMATS)(value)
    except ValueError as e:
        raise SpecError(f"flag --output: {e}") from e


Output = Annotated[
    str, typer.Option("--output", "-o", metavar="|".join(_FORMATS), callback=_format, help="How to print the Job.")
]


@takes(*_OPTIONS)
def render(  # noqa: PLR0913 options
    stage: Stage = None,
    *,
    force: Force = False,
    placement: Placement = None,
    values: Values = None,
    memory: Memory = None,
    output: Output = "yaml",
    given: Given,
) -> int:
    """Print the Job that a request is on a cluster. Asks nobody, starts nothing, holds no key: `kubectl apply -f -`.

    Applied as it is, the worker of shard 0 plans and the others wait for it.
    """
    chosen = selection(given.flags["select"], force=force)
    spec = given.over(values).also(stage=stage, select=chosen, backend="kubernetes").spec()
    run = offline_id(spec)
    files = layers(placement, values, memory)
    filled = values_for(spec, run_id=run, shards=spec.shards, image=spec.image, namespace=spec.namespace, files=files)
    if output == "yaml":
        emit(rendering.yaml(filled))
    elif output == "json":
        emit(json.dumps(rendering.job(filled), indent=2))
    else:
        emit(run)
    return Exit.DONE
