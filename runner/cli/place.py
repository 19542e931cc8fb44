"""Options that say on which nodes and with which raw fields pods run: placement, values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.backends.kubernetes.values import Layer, placement

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
