from runner.report.chart import Candle, chart

RISING = Candle(1.0, 4.0, 1.0, 4.0)
FALLING = Candle(4.0, 4.0, 1.0, 1.0)
NOTHING = Candle(None, None, None, None)


def test_rising_and_falling_bars_differ_without_colour() -> None:
    lines = chart([RISING, FALLING], caption="c", width=40, height=3).splitlines()
    assert all(line.startswith("█▒") for line in lines[:3])
    assert lines[3] == "c"


def test_a_wick_is_thin_and_an_empty_bar_is_blank() -> None:
    wick = Candle(2.0, 4.0, 1.0, 2.5)
    top = chart([wick, NOTHING, RISING], caption="c", width=40, height=3).splitlines()[0]
    assert top.startswith("│ █")


def test_prices_stand_at_the_right() -> None:
    lines = chart([RISING], caption="c", width=40, height=3).splitlines()
    assert lines[0].endswith(" 4")
    assert lines[2].endswith(" 1")


def test_too_many_bars_are_merged_in_order_and_fit() -> None:
    bars = [Candle(float(n), n + 2.0, n - 1.0, n + 1.0) for n in range(1, 1441)]
    lines = chart(bars, caption="c", width=60, height=10).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0].rstrip("0123456789,. ")[-1] in "█│"
    assert lines[9][0] in "█│"


def test_a_day_without_trades_says_so() -> None:
    assert chart([NOTHING], caption="BINANCE 2024-08-08") == "(no trades)\nBINANCE 2024-08-08"


def test_a_flat_day_is_drawn() -> None:
    assert "┼" in chart([Candle(5.0, 5.0, 5.0, 5.0)], caption="c", height=4)


def test_a_caption_is_escaped() -> None:
    assert "\x1b" not in chart([RISING], caption="\x1b[31mred")
