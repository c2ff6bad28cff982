"""Tables: what is aligned to which side, and how numbers are written."""
from hpclcae.utils.tables import table


def test_columns_of_numbers_are_aligned_to_the_right():
    lines = table(["name", "count", "mixed"], [("a", 3, 1), ("longer", 12.5, "x")]).splitlines()
    assert lines == ["name    count  mixed", "------  -----  -----", "a           3  1",
                     "longer   12.5  x"]


def test_a_format_is_that_of_format_and_aligns_to_the_right():
    lines = table([("name", ""), ("value", ".1f")], [("a", 1.25), ("longer", 100)]).splitlines()
    assert lines == ["name    value", "------  -----", "a         1.2", "longer  100.0"]


def test_text_to_the_right_without_a_rule():
    lines = table([("name", ">"), ("x", "")], [("a", "1")], rule=False).splitlines()
    assert lines == ["name  x", "   a  1"]


def test_a_table_without_rows_is_its_header():
    assert table(["a", "bc"], []) == "a  bc\n-  --"
