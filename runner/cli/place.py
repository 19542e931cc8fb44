"""Options that say with what and where pods run: image, namespace, placement, values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.backends.kubernetes.values import Layer, placement

Image = Annotated[
    str | None,
    typer.Option("--image", metavar="IMAGE", envvar="RUNNER_IMAGE", help="What pods run.", show_default=False),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        envvar="RUNNER_NAMESPACE",
        help="Where the Job lives. Default: the context's.",
        show_default=False,
    ),
]
Placement = Annotated[
    str | None,
    typer.Option(
        "--placement", metavar="NAME", help="Which nodes: any, computeclass or spot-highmem.", show_default=False
    ),
]
Values = Annotated[
    list[Path] | None,
    typer.Option(
        "--values",
        metavar="FILE",
        help="Raw fields of the Job and its pods (YAML), over the chart's; may be repeated.",
        show_default=False,
    ),
]


def layers(placed: str | None, files: list[Path] | None) -> list[Layer]:
    """Return what lies over the chart's values: the placement, then the files in their order. Raises SpecError."""
    return [*([placement(placed)] if placed else []), *(files or [])]
