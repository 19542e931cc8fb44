"""`submit --dry-run`: the Job that would be created, as we write it or as the cluster would take it."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.backends.kubernetes import render
from runner.backends.kubernetes.values import Layer, values_for
from runner.cli.carriers import Carriers
from runner.cli.given import Given
from runner.cli.here import open_spec_store
from runner.cli.output import emit
from runner.errors import Exit, SpecError
from runner.runs.request import offline_id
from runner.spec import Backend
from runner.spec.files import dump
from runner.spec.values import choice

_HOW = ("none", "client", "server")


def _how(value: str) -> str:
    try:
        return choice("dry run", _HOW)(value)
    except ValueError as e:
        raise SpecError(f"flag --dry-run: {e}") from e


DryRun = Annotated[
    str,
    typer.Option(
        "--dry-run", metavar="|".join(_HOW), callback=_how, help="Only print the Job; server: as the cluster takes it."
    ),
]


def show_job(how: str, given: Given, layers: list[Layer]) -> int:
    """Print the Job of a request that is not submitted. Raises SpecError for a backend that has no Jobs."""
    spec = given.spec()
    if spec.backend is not Backend.KUBERNETES:
        raise SpecError("flag --dry-run shows a cluster's Job: give --backend kubernetes; for any run: runner plan")
    run = offline_id(spec)
    if how == "client":
        filled = values_for(
            spec, run_id=run, shards=spec.shards, image=spec.image, namespace=spec.namespace, files=layers
        )
        emit(render.yaml(filled))
        return Exit.DONE
    cluster = Carriers(open_spec_store(spec), given, layers).cluster(spec)
    emit(dump(cluster.check(run, cluster.placed(spec)), quoted=True))
    return Exit.DONE
