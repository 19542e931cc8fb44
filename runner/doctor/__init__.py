"""What a run needs, checked before it starts: one verdict each, with the command that mends it."""

from runner.doctor.check import Check, Verdict
from runner.doctor.examine import Patient, examine

__all__ = ["Check", "Patient", "Verdict", "examine"]
