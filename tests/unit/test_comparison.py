"""Comparing versions whose columns differ, whose groups cannot be told apart, and their figures."""

from decimal import Decimal

import pyarrow as pa
import pytest

from sparkpar_assets.comparison import (
    Change,
    NotComparableError,
    compare,
    difference,
    figure,
    largest_change,
    most_changed,
    total,
)

GROUPS = ["zone", "year"]


def test_a_column_that_one_version_lacks_is_named_and_not_taken_for_a_change() -> None:
    first = pa.table({"zone": [1], "year": [2018], "old": [1], "both": [5]})
    second = pa.table({"zone": [1], "year": [2018], "both": [5], "new": [2]})
    found = compare(first, second, GROUPS)
    assert found.changes == []
    assert found.groups == {"changed": 0, "added": 0, "removed": 0, "same": 1}
    assert found.columns == ["Only the first has: old.", "Only the second has: new."]


def test_a_group_may_be_null_and_a_value_no_number() -> None:
    first = pa.table({"zone": [None, 1], "year": [2018, 2018], "name": ["a", "b"]})
    second = pa.table({"zone": [None, 1], "year": [2018, 2018], "name": ["a", None]})
    (change,) = compare(first, second, GROUPS).changes
    assert change == Change("changed", (1, 2018), "name", "b", None)
    assert difference(change.before, change.after) is None


def test_groups_of_which_nothing_but_the_name_is_known_are_still_added_and_removed() -> None:
    first, second = pa.table({"zone": [1, 2]}), pa.table({"zone": [2, 3]})
    found = compare(first, second, ["zone"])
    assert [(change.kind, change.group) for change in found.changes] == [
        ("removed", (1,)),
        ("added", (3,)),
    ]


def test_a_value_that_is_not_a_number_is_the_same_as_itself() -> None:
    rows = pa.table({"zone": [1], "mean": [float("nan")]})
    assert compare(rows, rows, ["zone"]).changes == []


def test_a_column_of_another_type_is_named_and_not_compared() -> None:
    first = pa.table({"zone": [1], "year": [1], "mean": [1.5], "trips": [1]})
    second = pa.table({"zone": [1], "year": [1], "mean": [Decimal("1.5")], "trips": [2]})
    found = compare(first, second, GROUPS)
    assert [change.column for change in found.changes] == ["trips"]
    assert found.shared == ["trips"]
    assert found.columns == ["mean is FLOAT64 in the first and DECIMAL(2,1) in the second."]
    assert difference(1.5, Decimal("1.5")) is None


def test_versions_that_group_by_other_types_are_not_compared() -> None:
    first, second = pa.table({"zone": ["1"]}), pa.table({"zone": [1]})
    with pytest.raises(NotComparableError, match=r"zone, by which .* in other types\. Compare "):
        compare(first, second, ["zone"])


def test_the_largest_change_is_that_of_a_group_which_both_versions_have() -> None:
    first = pa.table({"zone": [1, 2, 3, 4], "trips": [10, 20, 500, 0], "name": list("abcd")})
    second = pa.table({"zone": [1, 2, 4, 5], "trips": [13, 15, 0, 900], "name": list("abcd")})
    found = compare(first, second, ["zone"])
    assert largest_change(found, "trips") == -5
    assert largest_change(found, "name") == 0
    assert largest_change(found, "zone") is None
    assert largest_change(compare(first, first, ["zone"]), "trips") == 0


def test_the_largest_change_of_floats_is_a_finite_one() -> None:
    first = pa.table({"zone": [1, 2, 3], "mean": [float("nan"), 1.0, float("inf")]})
    second = pa.table({"zone": [1, 2, 3], "mean": [1.0, 1.5, 1.0]})
    assert largest_change(compare(first, second, ["zone"]), "mean") == 0.5


def test_the_most_changed_are_the_largest_in_proportion_and_keep_their_order() -> None:
    first = pa.table({"zone": [1, 2, 3, 4], "trips": [1000, 10, 10, 0], "mean": [1, 1, 1, 1]})
    second = pa.table({"zone": [1, 2, 3, 4], "trips": [1090, 20, 11, 1], "mean": [1, 1, 1, 9]})
    changes = compare(first, second, ["zone"]).changes
    assert [change.group for change in most_changed(changes, 3)] == [(2,), (4,), (4,)]
    assert [change.group for change in most_changed(changes, 3, ["trips"])] == [(2,), (3,), (4,)]
    assert most_changed(changes, 9) == changes


def test_versions_of_other_groups_are_not_compared() -> None:
    first, second = pa.table({"zone": [1], "year": [1]}), pa.table({"zone": [1]})
    with pytest.raises(NotComparableError, match=r"has no column year, by which .* Compare "):
        compare(first, second, GROUPS)


def test_versions_whose_rows_are_not_told_apart_are_not_compared() -> None:
    rows = pa.table({"zone": [1, 1]})
    with pytest.raises(NotComparableError, match=r"several rows with the same zone\. Correct"):
        compare(rows, rows, ["zone"])


def test_totals_are_exact_and_there_is_none_without_a_value() -> None:
    huge, cent = Decimal("99999999999999999999999999999.999999999"), Decimal("1e-9")
    column = pa.array([huge, cent, None], pa.decimal128(38, 9))
    rows = pa.table({"fare": column, "empty": pa.nulls(3, pa.int64())})
    assert total(rows, "fare") == Decimal("100000000000000000000000000000")
    assert total(rows, "empty") is None
    assert total(rows, "other") is None
    assert difference(cent, huge) == Decimal("99999999999999999999999999999.999999998")


@pytest.mark.parametrize(
    ("value", "sign", "shown"),
    [
        (1204, "", "1,204"),
        (1204, "+", "+1,204"),
        (Decimal("429490.200000000"), "", "429,490.20"),
        (Decimal("-0.000000001"), "+", "-0.000000001"),
        (Decimal("0E-9"), "+", "+0.00"),
        (True, "", "True"),
        ("Queens", "", "Queens"),
        (None, "+", "—"),
    ],
)
def test_figures_are_shown_with_all_their_digits(value: object, sign: str, shown: str) -> None:
    assert figure(value, sign) == shown
