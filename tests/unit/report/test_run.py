import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from runner.backends.sight import Cause
from runner.report import grid, run, units
from runner.report.live import LINE_S, Lines, Meter, Picture
from runner.report.run import Pace
from runner.runs import Failure, RunState, RunStatus, ShardState, ShardStatus


def shard(number: int, state: ShardState, *, done: int = 0, received: int = 0) -> ShardStatus:
    return ShardStatus(number, state, done, 0, 10, received, 1000, 1)


def status(*shards: ShardStatus, state: RunState = RunState.RUNNING, failures: tuple[Failure, ...] = ()) -> RunStatus:
    return RunStatus("download-3f9a1c20", state, shards, failures, None, None, 1000 * len(shards))


HALF = status(
    shard(0, ShardState.DONE, done=10, received=2_000_000),
    shard(1, ShardState.RUNNING, done=2, received=500_000),
    shard(2, ShardState.RUNNING),
    shard(3, ShardState.WAITING),
)


def test_a_line_says_run_state_tasks_shards_and_bytes() -> None:
    assert run.line(HALF) == "run download-3f9a1c20  running  12/40 tasks (30 %)  1/4 shards  2.5 MB"


def test_a_line_has_rate_and_rest_when_they_are_known() -> None:
    assert run.line(HALF, Pace(12_000_000, 75)).endswith("2.5 MB  12 MB/s  eta 1m15s")


def test_an_ended_run_has_no_rate() -> None:
    ended = replace(HALF, state=RunState.DONE)
    assert "/s" not in run.line(ended, Pace(12_000_000, 75))


def test_every_state_has_its_own_glyph() -> None:
    assert len(set(grid.GLYPHS.values())) == len(grid.State) == len(grid.COLOURS)


def test_a_shard_that_has_done_nothing_yet_is_starting() -> None:
    assert run.cell_states(HALF.shards) == (
        grid.State.DONE,
        grid.State.RUNNING,
        grid.State.STARTING,
        grid.State.WAITING,
    )


def test_the_screen_shows_grid_legend_failures_and_the_way_to_their_logs() -> None:
    failure = Failure(1, "download/2024-08-08/A:SPOT_PAIR:B-C", "trades", "no such\x1b[31m file")
    shown = run.text(replace(HALF, failures=(failure,)), width=100, height=24).splitlines()
    assert shown[1] == "■▓▒·"
    assert shown[2] == "■ 1 done  ▓ 1 running  ▒ 1 starting  · 1 waiting"
    assert shown[3] == "failed  shard 1  download/2024-08-08/A:SPOT_PAIR:B-C trades: no such\\x1b[31m file"
    assert shown[4] == "logs    runner logs download-3f9a1c20 --shard 1"


def test_failures_left_out_are_counted() -> None:
    many = tuple(Failure(n, f"t{n}", "trades", "x") for n in range(37))
    lines = run.failures(replace(HALF, failures=many), limit=5)
    assert sum(line.startswith("failed") for line in lines) == 5
    assert "32 more of 37" in lines[5]


def test_what_does_not_fit_one_line_takes_two() -> None:
    assert run.text(HALF, width=60, height=24).splitlines()[:3] == [
        "run download-3f9a1c20  running  12/40 tasks (30 %)  1/4 sh…",
        "2.5 MB",
        "■▓▒·",
    ]


@pytest.mark.parametrize(("width", "height"), [(20, 6), (80, 24), (40, 4), (200, 60)])
@pytest.mark.parametrize("shards", [1, 100, 2_500, 100_000])
def test_the_screen_fits_its_terminal(width: int, height: int, shards: int) -> None:
    many = tuple(shard(n, ShardState.FAILED if n == 7 else ShardState.DONE, done=10) for n in range(shards))
    failures = tuple(Failure(n, "task", "trades", "reason") for n in range(30))
    lines = run.text(status(*many, failures=failures), width=width, height=height).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_one_failed_shard_among_a_hundred_thousand_is_seen() -> None:
    many = [grid.State.DONE] * 100_000
    many[31_234] = grid.State.FAILED
    cells, each = grid.cells(many)
    assert (len(cells), each) == (2_000, 50)
    assert cells.count(grid.State.FAILED) == 1
    assert cells[31_234 // 50] is grid.State.FAILED


def test_the_rest_is_not_guessed_before_five_percent() -> None:
    assert units.eta_s(4.9, 100, 10) is None
    assert units.eta_s(50, 100, 10) == 10.0


def test_a_shard_that_starts_anew_does_not_make_the_rate_negative() -> None:
    meter = Meter()
    meter.pace(status(shard(0, ShardState.RUNNING, received=5_000)), 0.0)
    pace = meter.pace(status(shard(0, ShardState.RUNNING, received=0)), 1.0)
    assert pace.bytes_per_s == 0.0
    assert meter.pace(status(shard(0, ShardState.RUNNING, received=3_000)), 3.0).bytes_per_s == 1_000.0


def test_a_resumed_run_is_timed_from_where_it_was() -> None:
    meter = Meter()
    meter.pace(status(shard(0, ShardState.RUNNING, done=5)), 100.0)
    assert meter.pace(status(shard(0, ShardState.RUNNING, done=6)), 110.0).eta_s == pytest.approx(40.0)


def test_lines_come_at_most_every_ten_seconds() -> None:
    said: list[str] = []
    with Lines(said.append) as lines:
        for tenth in range(250):
            if lines.due(now := tenth / 10):
                lines.show(HALF, now)
    assert len(said) == 3
    assert LINE_S == 10.0


def test_lines_say_each_reason_once_for_why_nothing_moves() -> None:
    said: list[str] = []
    causes = (Cause("image", "cannot be had", "kubectl x"), Cause("secret", "not found", f"runner logs {HALF.id} -f"))
    with Lines(said.append, lambda command: f"--store of-{command}") as lines:
        for number, shown in enumerate((causes[:1], causes, causes)):
            lines.show(replace(HALF, causes=shown), 10.0 * number)
    assert [text for text in said if not text.startswith("run ")] == [
        "why     image: cannot be had",
        "        kubectl x",
        "why     secret: not found",
        f"        runner logs {HALF.id} --store of-logs -f",
    ]


def _drawn(shown: RunStatus, **terminal: object) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=24, _environ={}, **terminal)
    with Picture(console) as picture:
        picture.show(shown, 0.0)
    return out.getvalue()


def test_the_picture_draws_markup_of_others_as_it_is() -> None:
    failure = Failure(1, "task", "trades", "[bold]x[/bold] :smile:")
    drawn = _drawn(replace(HALF, failures=(failure,)), color_system=None)
    assert "[bold]x[/bold] :smile:" in drawn
    assert "■▓▒·" in drawn


def test_no_color_removes_colour_and_nothing_else() -> None:
    colour, none = re.compile(r"\x1b\[[\d;]*3\dm"), re.compile(r"\x1b\[[\d;]*m")
    plain, coloured = _drawn(HALF, no_color=True), _drawn(HALF, color_system="standard")
    assert colour.search(coloured)
    assert not colour.search(plain)
    assert none.sub("", plain) == none.sub("", coloured)
