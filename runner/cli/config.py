"""`runner config`: every setting, its value and its origin."""

from __future__ import annotations

import json
from typing import Any

from runner.cli.given import RUN, SELECTION, SOURCE, WHERE, Given, takes
from runner.cli.output import Output, say_next, show
from runner.report.tables import table
from runner.spec import Resolved


@takes(*SELECTION, *RUN, *WHERE, *SOURCE)
def config(*, output: Output = "table", given: Given) -> int:
    """Show every setting, its value and where it comes from: flag, run file, environment, runner.yaml or default."""
    rows = _rows(given.resolve(need_store=False))
    cells = [(row["key"], _cell(row["value"]), row["origin"]) for row in rows]
    show(
        output,
        {"kind": "Config", "settings": rows},
        table=table(("KEY", "VALUE", "ORIGIN"), cells),
        names=(row["key"] for row in rows),
    )
    if not any(row["key"] == "store" and row["value"] for row in rows):
        say_next("no store is configured: give --store URL, or set RUNNER_STORE")
    return 0


def _rows(resolved: Resolved) -> list[dict[str, Any]]:
    document = json.loads(resolved.spec.to_json())
    rows = []
    for key, origin in resolved.origins.items():
        value = document
        for part in key.split("."):
            value = value[part]
        rows.append({"key": key, "value": value, "origin": origin})
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value) or "(all)"
    return "-" if value in (None, "") else json.dumps(value).strip('"')
