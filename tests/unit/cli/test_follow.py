"""How often a run is looked at while it is followed."""

from __future__ import annotations

from runner.backends.sight import Sight
from runner.cli.follow import shown
from runner.report.live import Lines
from runner.runs import RunState, RunStatus


class Slow:
    """A clock that goes by half a second a question, and a run at which one look takes 20 seconds."""

    def __init__(self) -> None:
        self.now, self.looks = 0.0, []

    def __call__(self) -> float:
        self.now += 0.5
        return self.now

    def status(self, sight: Sight) -> RunStatus:
        self.looks.append(self.now)
        self.now += 20
        return RunStatus("download-3f9a1c20", RunState.RUNNING, (), (), None, None, 0)


def test_no_more_than_a_quarter_of_the_time_goes_into_looking() -> None:
    run = Slow()
    look = shown(run, Lines(lambda _: None), run)
    while run.now < 1000:
        look(Sight())
    gaps = [after - before for before, after in zip(run.looks, run.looks[1:], strict=False)]
    assert len(gaps) >= 10
    assert min(gaps) >= 4 * 20
