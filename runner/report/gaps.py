"""What validation found, as text and as JSON values."""

from __future__ import annotations

from typing import Any

from runner.report import units
from runner.report.tables import table
from runner.stages.report import Explanation, Report
from runner.stages.validate import Gap, Judgement, seal_fields

GAPS_SHOWN = 20
DOUBTS_SHOWN = 5


def line(report: Report) -> str:
    """Return the verdict on a request in one line."""
    missing = report.tasks - report.verified
    return f"{report.verified:,} of {report.tasks:,} verified · {missing:,} missing · {report.duplicated:,} duplicated"


def screen(report: Report) -> str:
    """Return the verdict, and a table of the first gaps with what mends the first of them."""
    doubts = [f"doubt   {doubt}" for doubt in report.doubts[:DOUBTS_SHOWN]]
    if (rest := len(report.doubts) - len(doubts)) > 0:
        doubts.append(f"        and {units.count(rest, 'more doubt')}; all of them: -o json")
    head = [line(report), *_seals(report)]
    if not report.gaps:
        return "\n".join([*head, *doubts])
    rows = [(gap.day, gap.key, gap.data_type, len(gap.objects), gap.reason) for gap in report.gaps[:GAPS_SHOWN]]
    parts = [*head, *doubts, "", table(("DAY", "KEY", "DATA TYPE", "OBJECTS", "REASON"), rows)]
    if len(report.gaps) > GAPS_SHOWN:
        parts.append(f"showing {GAPS_SHOWN} of {len(report.gaps):,} gaps; all of them, with commands: -o json")
    return "\n".join(parts)


def _seals(report: Report) -> list[str]:
    """Return the line on candles that are not final, none where all are."""
    if not report.unsealed:
        return []
    stale = f", {report.stale:,} of them made of other ticks than now" if report.stale else ""
    return [
        f"sealed  not yet: candles of {units.count(report.unsealed, 'instrument-day')}{stale}; runner submit candles"
    ]


def document(report: Report) -> dict[str, Any]:
    """Return everything that validation found."""
    return {
        "kind": "Validation",
        "tasks": report.tasks,
        "verified": report.verified,
        "missing": report.tasks - report.verified,
        "duplicated": report.duplicated,
        "unsealed": report.unsealed,
        "stale": report.stale,
        "verdicts": [_verdict(judgement) for judgement in report.judgements],
        "gaps": [_gap(gap) for gap in report.gaps],
        "doubts": list(report.doubts),
    }


def explanations(key: str, day: str, found: tuple[Explanation, ...]) -> dict[str, Any]:
    """Return why the outputs of a key and day are or are not there."""
    return {
        "kind": "Explanation",
        "key": key,
        "day": day,
        "objects": [
            {
                "dataType": each.data_type,
                "object": each.object_key,
                "state": each.state,
                "reason": each.reason,
                "command": each.command,
            }
            for each in found
        ],
    }


def _verdict(judgement: Judgement) -> dict[str, Any]:
    return {
        "day": str(judgement.day),
        "venue": judgement.venue,
        "dataType": judgement.data_type,
        "verdict": str(judgement.verdict),
        "expected": len(judgement.expected),
        "missing": len(judgement.gaps),
        "objects": judgement.objects,
        "rows": judgement.rows,
        "bytes": judgement.bytes,
        "deep": judgement.deep,
        **seal_fields(judgement),
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "day": str(gap.day),
        "venue": gap.venue,
        "key": gap.key,
        "dataType": gap.data_type,
        "objects": list(gap.objects),
        "reason": gap.reason,
        "command": gap.command,
    }
