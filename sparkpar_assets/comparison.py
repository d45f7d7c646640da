"""Published versions compared with each other: their totals, and what changed by group. Exact."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from sparkpar_assets.metadata import sql_type

if TYPE_CHECKING:
    import pyarrow as pa

MISSING = "—"
DIGITS = 100
"""Python's default of 28 digits is less than a sum of DECIMAL(38,9) may have."""

Group = tuple[Any, ...]


class NotComparableError(ValueError):
    """Two versions whose groups cannot be told apart: one sentence of cause, one of remedy."""


@dataclass(frozen=True)
class Change:
    """One value that differs between two versions.

    Attributes:
        kind: ``changed``, ``added`` (a group that the first lacks) or ``removed``.
        group: The values of the columns that name the group.
        column: The value's column.
        before: The value in the first version, None where that has none.
        after: The value in the second.
    """

    kind: str
    group: Group
    column: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Comparison:
    """What differs between two versions.

    Attributes:
        changes: The changes, by group and then in the columns' order.
        groups: How many groups are ``changed``, ``added``, ``removed`` and the ``same``.
        shared: The columns that both versions have, in the same type, but for those of the groups.
        columns: Sentences on columns that are not compared: one of the two lacks them, or has them
            in another type.
    """

    changes: Sequence[Change]
    groups: Mapping[str, int]
    shared: Sequence[str]
    columns: Sequence[str]


def total(rows: "pa.Table", column: str) -> int | Decimal | None:
    """The exact sum of a column; None where the rows have no such column, or no value in it."""
    if column not in rows.column_names:
        return None
    values = [value for value in rows[column].to_pylist() if value is not None]
    with localcontext(prec=DIGITS):
        return sum(values[1:], start=values[0]) if values else None


def difference(before: Any, after: Any) -> int | Decimal | float | None:  # noqa: ANN401  # any cell
    """The exact difference of two numbers; None where one of them is none.

    None as well where one is a decimal and the other a float: that has none.
    """
    if not (_is_number(before) and _is_number(after)):
        return None
    if {type(before), type(after)} == {Decimal, float}:
        return None
    with localcontext(prec=DIGITS):
        return after - before  # type: ignore[no-any-return]  # of two numbers: a number


def compare(first: "pa.Table", second: "pa.Table", group_by: Sequence[str]) -> Comparison:
    """What changed from one version to another, by group.

    Args:
        first: The rows of the one.
        second: The rows of the other.
        group_by: The columns whose values name a group.

    Raises:
        NotComparableError: A version lacks such a column or has it in another type, or has several
            rows of one group.
    """
    types = _different_types(first, second)
    if unlike := [name for name in group_by if name in types]:
        raise NotComparableError(
            f"The versions have {', '.join(unlike)}, by which the asset groups its rows, in other "
            "types. Compare versions of the same code version."
        )
    before, after = _groups(first, group_by), _groups(second, group_by)
    values = [
        name
        for name in dict.fromkeys([*first.column_names, *second.column_names])
        if name not in group_by and name not in types
    ]
    shared = [n for n in values if n in first.column_names and n in second.column_names]
    changes: list[Change] = []
    kinds: Counter[str] = Counter(changed=0, added=0, removed=0, same=0)
    for group in sorted({*before, *after}, key=_order):
        old, new = before.get(group), after.get(group)
        kind = "changed" if old and new else "added" if new else "removed"
        found = [
            Change(kind, group, name, (old or {}).get(name), (new or {}).get(name))
            for name in (shared if kind == "changed" else values)
            if kind != "changed" or not _is_same((old or {})[name], (new or {})[name])
        ]
        # A group may consist of nothing but its name.
        if kind != "changed" and not found:
            found = [Change(kind, group, MISSING, None, None)]
        kinds[kind if found else "same"] += 1
        changes += found
    sentences = _columns(first.column_names, second.column_names)
    sentences += [f"{n} is {a} in the first and {b} in the second." for n, (a, b) in types.items()]
    return Comparison(changes, kinds, shared, sentences)


def largest_change(compared: Comparison, column: str) -> int | Decimal | float | None:
    """The change of a column that is the largest by amount, with its sign; 0 where none changed.

    Only that of groups which both versions have: what is added or removed has no difference. None
    where the versions do not share the column.
    """
    if column not in compared.shared:
        return None
    changes: list[Any] = [
        change
        for one in compared.changes
        if one.column == column
        and (change := difference(one.before, one.after)) is not None
        and isfinite(change)
    ]
    return max(changes, key=abs, default=0)


def most_changed(
    changes: Sequence[Change], limit: int, first: Collection[str] = ()
) -> list[Change]:
    """As many changes at most, in the order they have.

    Args:
        changes: The changes to choose of.
        limit: How many.
        first: Columns whose changes are chosen before those of others; among equals, those are that
            are larger in proportion to what was before.
    """
    ranked = sorted(
        range(len(changes)),
        key=lambda i: (changes[i].column in first, _proportion(changes[i])),
        reverse=True,
    )
    return [changes[i] for i in sorted(ranked[:limit])]


def figure(value: object, sign: str = "") -> str:
    """A value with all its digits: 1,204 or 429,490.20; with the sign ``+``, +1,204."""
    if value is None:
        return MISSING
    if isinstance(value, Decimal):
        whole, _, fraction = f"{value:{sign},f}".partition(".")
        return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"
    return f"{value:{sign},}" if _is_number(value) else str(value)


def text_table(heading: Sequence[str], lines: Iterable[Sequence[str]], right: Sequence[int]) -> str:
    """Cells as aligned text.

    Args:
        heading: The columns' titles.
        lines: The cells of each line.
        right: Positions of the columns that are aligned to the right: those of numbers.
    """
    table = [list(heading), *map(list, lines)]
    widths = [max(len(line[i]) for line in table) for i in range(len(heading))]
    table.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


def _groups(rows: "pa.Table", group_by: Sequence[str]) -> dict[Group, dict[str, Any]]:
    if lacking := [name for name in group_by if name not in rows.column_names]:
        raise NotComparableError(
            f"A version has no column {', '.join(lacking)}, by which the asset groups its rows. "
            "Compare versions of the same code version."
        )
    groups = {tuple(row[name] for name in group_by): row for row in rows.to_pylist()}
    if len(groups) < rows.num_rows:
        raise NotComparableError(
            f"A version has several rows with the same {', '.join(group_by)}. "
            "Correct group_by in the asset's metadata."
        )
    return groups


def _different_types(first: "pa.Table", second: "pa.Table") -> dict[str, tuple[str, str]]:
    """The types of each column that both have, but not in one type."""
    both = [name for name in first.column_names if name in second.column_names]
    types = {n: (first.schema.field(n).type, second.schema.field(n).type) for n in both}
    return {
        n: (sql_type(one), sql_type(other)) for n, (one, other) in types.items() if one != other
    }


def _proportion(change: Change) -> float:
    """Of a change to the value before; infinite where there is none, or no number."""
    by = difference(change.before, change.after)
    return abs(float(by)) / abs(float(change.before)) if by is not None and change.before else inf


def _columns(first: Sequence[str], second: Sequence[str]) -> list[str]:
    only = [("first", [n for n in first if n not in second])]
    only += [("second", [n for n in second if n not in first])]
    return [f"Only the {which} has: {', '.join(names)}." for which, names in only if names]


def _is_same(before: Any, after: Any) -> bool:  # noqa: ANN401  # any cell
    return bool(before == after or (before != before and after != after))  # a NaN is not itself


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _order(group: Group) -> list[tuple[bool, Any]]:
    return [(value is None, value) for value in group]
