"""Pipelines: the stages of a day in their order, restartable anywhere, once per day whoever asks how often."""

from runner.pipeline.controller import DayEnd, Means, Source, Terms, Verdict, run_days
from runner.pipeline.days import AUTO, days_of

__all__ = ["AUTO", "DayEnd", "Means", "Source", "Terms", "Verdict", "days_of", "run_days"]
