import io
import re

import pytest

from runner.cli import glyphs
from runner.report import chart, grid


def written(text: str, encoding: str) -> str:
    glyphs.register()
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, errors=glyphs.ERRORS, newline="")
    stream.write(text)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("text", "encoding", "plain"),
    [
        ("■■▓▒·R!", "ascii", "##+:-R!"),
        ("■■▓▒·R!", "latin-1", "##+:·R!"),
        ("■■▓▒·R!", "utf-8", "■■▓▒·R!"),
        ("│█┼ abc…", "ascii", "|#+ abc~"),
        ("4 tasks · 币安", "ascii", "4 tasks - \\u5e01\\u5b89"),
    ],
)
def test_only_what_the_encoding_lacks_is_replaced(text: str, encoding: str, plain: str) -> None:
    assert written(text, encoding) == plain


def test_states_stay_different() -> None:
    plain = [written(glyph, "ascii") for glyph in grid.GLYPHS.values()]
    assert len(set(plain)) == len(grid.State)
    assert {len(each) for each in plain} == {1}


def test_a_chart_stays_as_wide() -> None:
    bars = [chart.Candle(1.0, 4.0, 0.5, 3.0), chart.Candle(3.0, 3.5, 1.0, 2.0), chart.Candle(2.0, 3.0, 1.0, 2.0)]
    drawn = chart.chart(bars, caption="a day")
    plain = written(drawn, "ascii")
    assert [len(line) for line in plain.splitlines()] == [len(line) for line in drawn.splitlines()]
    assert re.search(r"[|#:+]", plain)
    assert "\\u" not in plain
