"""Options that say on which nodes and with which raw fields pods run: placement, values, memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from runner.backends.kubernetes.values import Layer, placement
from runner.errors import SpecError
from runner.logs import escape

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
        help="Values as Helm's -f: raw fields of the Job and its pods, and the run itself; may be repeated.",
        show_default=False,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help="What each pod may use, such as 4Gi.", show_default=False),
]
_SIZE = re.compile(r"[1-9]\d*(\.\d+)?([KMGT]i?|k)?")


def layers(placed: str | None, files: list[Path] | None, memory: str | None) -> list[Layer]:
    """Return what lies over the chart's values: the placement, the files in their order, the memory.

    Raises SpecError.
    """
    return [
        *([placement(placed)] if placed else []),
        *(files or []),
        *([_with_memory(memory)] if memory is not None else []),
    ]


def _with_memory(size: str) -> Mapping[str, Any]:
    if not _SIZE.fullmatch(size):
        raise SpecError(f"flag --memory {escape(size)}: is no amount of memory; write it as 512Mi or 4Gi")
    return {"pod": {"resources": {"requests": {"memory": size}, "limits": {"memory": size}}}}
