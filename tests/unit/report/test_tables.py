from runner.report.tables import table


def test_columns_are_aligned_and_numbers_stand_right() -> None:
    assert table(("RUN", "TASKS"), [("a", 5), ("bcd", 1200)]).splitlines() == ["RUN  TASKS", "a        5", "bcd   1200"]


def test_text_of_others_is_escaped() -> None:
    assert table(("A",), [("x\ny\x1b[2J",)]).splitlines() == ["A", "x\\ny\\x1b[2J"]


def test_wide_characters_take_two_columns() -> None:
    assert table(("K", "N"), [("币安", "x"), ("abcd", "y")]).splitlines() == ["K     N", "币安  x", "abcd  y"]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(("RUN", "STATE"), []) == "RUN  STATE"
