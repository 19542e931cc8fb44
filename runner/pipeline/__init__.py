"""Pipelines: the stages of a day in their order, restartable anywhere, once per day whoever asks how often."""

from runner.pipeline.controller import run_days
from runner.pipeline.days import AUTO, capped, days_of
from runner.pipeline.export import newest
from runner.pipeline.terms import DayEnd, Means, Source, Terms, Verdict

__all__ = ["AUTO", "DayEnd", "Means", "Source", "Terms", "Verdict", "capped", "days_of", "newest", "run_days"]
