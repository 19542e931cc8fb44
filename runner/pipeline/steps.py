"""The stages of a pipeline in their order: one table. What comes to it later is a row here."""

from __future__ import annotations

from dataclasses import dataclass

from runner.task import Stage


@dataclass(frozen=True, slots=True)
class Step:
    """A stage of a pipeline's day, or of the day `beside` it (-1 is the day before).

    `name` tells apart the steps of one pass: with the pass it is the parent of the step's run. `is_gated` steps take
    only the venues that are complete in all they consume.
    """

    name: str
    stage: Stage
    beside: int = 0
    is_gated: bool = False


STEPS = (
    Step("instruments", Stage.INSTRUMENTS),
    Step("availability", Stage.AVAILABILITY),
    Step("download", Stage.DOWNLOAD),
    Step("verify", Stage.VALIDATE),
    # What the day's ticks were missing for: candles of the day before become final, those of the day after right.
    Step("seal-before", Stage.CANDLES, beside=-1, is_gated=True),
    Step("verify-before", Stage.VALIDATE, beside=-1),
    Step("candles", Stage.CANDLES, is_gated=True),
    Step("validate", Stage.VALIDATE),
    Step("seal-after", Stage.CANDLES, beside=1, is_gated=True),
    Step("verify-after", Stage.VALIDATE, beside=1),
    # What was missing before the download is not what is missing now.
    Step("report", Stage.AVAILABILITY),
)


def parent(run: str, step: Step) -> str:
    """Return what a step's run names as its parent, so that each pass has each step once.

    >>> parent("pipeline-3f9a1c20", STEPS[2])
    'pipeline-3f9a1c20.download'
    """
    return f"{run}.{step.name}"
