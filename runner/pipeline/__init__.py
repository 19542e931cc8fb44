"""Pipelines: the stages of a day in their order, restartable anywhere, once per day whoever asks how often."""

from runner.pipeline.controller import DayEnd, Means, Terms, Verdict, run_days
from runner.pipeline.days import AUTO, days_of

__all__ = ["AUTO", "DayEnd", "Means", "Terms", "Verdict", "days_of", "run_days"]
