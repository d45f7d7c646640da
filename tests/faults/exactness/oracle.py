"""What an analysis has to publish of a table, by DuckDB and Python's Decimal."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tests.faults.exactness.aggregates import Approximate, fails, quoted
from tests.faults.exactness.analyses import Analysis
from tests.faults.exactness.expressions import Chance, Expression, Kind, RefusedError

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Expected:
    """What is to become of a table.

    Attributes:
        groups: The metrics of each group.
        fails: Whether Spark fails, and with it the run: a value is beyond its type.
        overflows: How each metric's sums overflow, where they do: the table is not published.
    """

    groups: Mapping[Key, Mapping[str, Any]] = field(default_factory=dict)
    fails: Chance = Chance.NONE
    overflows: Mapping[str, Chance] = field(default_factory=dict)

    @property
    def overflow(self) -> Chance:
        """Whether any sum overflows."""
        return max(self.overflows.values(), default=Chance.NONE)


def expected(
    connection: duckdb.DuckDBPyConnection, analysis: Analysis, table: pa.Table
) -> Expected:
    """What an analysis has to make of a table.

    Args:
        connection: To DuckDB; to make one takes longer than the rest.
        analysis: The analysis.
        table: The table, of which it is one of the years.
    """
    # Copied: DuckDB has Arrow compare an Arrow table's values, to which NaN is above nothing.
    connection.register("arrow", _with_computed(table, analysis.rows))
    connection.execute("CREATE OR REPLACE TEMP TABLE trips AS FROM arrow")
    where = analysis.where.duckdb if analysis.where else "true"
    of_groups = [one for group in analysis.group_by for one in group.rows]
    failing = [
        _worst(connection, analysis.compared, "true"),
        _worst(connection, of_groups, where),
    ]
    if any(failing):
        return Expected(fails=max(failing))
    groups: dict[Key, dict[str, Any]] = {}
    overflows: dict[str, Chance] = {}
    for key, values in _aggregated(connection, analysis, where):
        groups[key] = {}
        for name, metric in analysis.metrics.items():
            try:
                groups[key][name] = metric.value(values)
            except RefusedError as error:
                failing.append(error.chance)
            overflows[name] = max(metric.overflow(values), overflows.get(name, Chance.NONE))
    return Expected(
        groups, max(failing), {name: chance for name, chance in overflows.items() if chance}
    )


def differences(
    analysis: Analysis, expected: Expected, published: Iterable[Mapping[str, Any]]
) -> list[str]:
    """What is wrong with published rows, a sentence each."""
    names = [group.name for group in analysis.group_by]
    rows = list(published)
    found = {_key(row[name] for name in names): row for row in rows}
    wrong = [f"{len(rows) - len(found)} groups stand in several rows."] * (len(rows) > len(found))
    wrong += [f"The group {key} is missing." for key in expected.groups.keys() - found.keys()]
    wrong += [f"There is no group {key}." for key in found.keys() - expected.groups.keys()]
    return wrong + [
        f"{name} = {metric.sql} of {key} is {found[key][name]!r} where it should be "
        f"{expected.groups[key][name]!r}."
        for key in expected.groups.keys() & found.keys()
        for name, metric in analysis.metrics.items()
        if not _is_same(expected.groups[key][name], found[key][name])
    ]


def _is_same(expected: object, found: object) -> bool:
    if isinstance(expected, Approximate):
        return expected.is_met_by(found)
    return _key([expected]) == _key([found])


def _key(values: Iterable[Any]) -> Key:
    """Values by which groups are told apart: NaN is equal to itself."""
    return tuple(
        "NaN"
        if isinstance(value, float) and math.isnan(value)
        else value.replace(tzinfo=None)
        if isinstance(value, datetime)
        else value
        for value in values
    )


def _with_computed(table: pa.Table, rows: Sequence[Expression]) -> pa.Table:
    """The table with columns of Python's making: an expression's value, and whether it fails."""
    instants = table["pickup_datetime"].cast(pa.timestamp("us"))  # DuckDB's clock has zones
    table = table.set_column(
        table.schema.get_field_index("pickup_datetime"), "pickup_datetime", instants
    )
    speeds = pc.add(table["speed"], 0.0)  # 0 for -0, whose groups are one
    table = table.set_column(table.schema.get_field_index("speed"), "speed", speeds)
    trips = table.to_pylist()
    for expression in {one.sql: one for one in rows}.values():
        kind = expression.kind
        assert kind is not None
        found = [_value(expression, trip) for trip in trips]
        if expression.sql not in table.column_names:
            values = _numbers([value for value, _ in found], kind)
            table = table.append_column(expression.sql, values)
        chances = pa.array([chance for _, chance in found], pa.int32())
        table = table.append_column(fails(expression), chances)
    return table


def _value(expression: Expression, trip: Mapping[str, Any]) -> tuple[Decimal | None, Chance]:
    """An expression's value for a trip, and the chance that it is an error instead."""
    try:
        return expression.value(trip), Chance.NONE
    except RefusedError as error:
        return None, error.chance


def _numbers(values: Sequence[Decimal | None], kind: Kind) -> pa.Array:
    if kind.is_whole:
        return pa.array([None if one is None else int(one) for one in values], pa.int64())
    return pa.array(values, pa.decimal128(38, kind.scale))


def _worst(connection: duckdb.DuckDBPyConnection, rows: Sequence[Expression], where: str) -> Chance:
    """The chance that one of some expressions is an error in one of the rows."""
    chances = ", ".join(["0", *(quoted(fails(one)) for one in rows)])
    ((found,),) = connection.execute(
        f"SELECT max(greatest({chances})) FROM trips WHERE {where}"
    ).fetchall()
    return Chance(found or 0)


def _aggregated(
    connection: duckdb.DuckDBPyConnection, analysis: Analysis, where: str
) -> list[tuple[Key, dict[str, Any]]]:
    """For each group, what the metrics need of it."""
    groups = [group.duckdb for group in analysis.group_by]
    needs = sorted(frozenset().union(*(metric.needs for metric in analysis.metrics.values())))
    numbers = ", ".join(str(i + 1) for i in range(len(groups)))
    rows = connection.execute(
        f"SELECT {', '.join([*groups, *needs])} FROM trips WHERE {where} GROUP BY {numbers}"
    ).fetchall()
    return [
        (_key(row[: len(groups)]), dict(zip(needs, row[len(groups) :], strict=True)))
        for row in rows
    ]
