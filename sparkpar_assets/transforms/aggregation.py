"""Aggregations that are written in SQL: exact results, and what they are checked against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sparkpar_assets.transforms.sql import SqlError, exact_metric, exact_row, parse_row

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from sqlglot.expressions import Expr

    from sparkpar_assets.transforms.sql import ExactMetric

LISTED = 20
"""Groups that are named where something is wrong with more."""
GROUPS, ROWS, OVERFLOWED, OUTSIDE = "__groups", "__rows", "__overflowed", "__outside"
"""Columns beside those of the query, whose names begin with a letter."""


@dataclass(frozen=True)
class Aggregation:
    """An aggregate query, in trees that ``transforms.sql`` has checked.

    Attributes:
        group_by: The expressions to group by, by the name of their column.
        metrics: The aggregates, by the name of their column.
        totals: The metrics whose sum over all groups has a meaning.
    """

    group_by: Mapping[str, "Expr"]
    metrics: Mapping[str, "Expr"]
    totals: Sequence[str]

    @property
    def columns(self) -> list[str]:
        """The published columns."""
        return [*self.group_by, *self.metrics]


@dataclass(frozen=True)
class Aggregated:
    """What an aggregation makes of rows.

    Attributes:
        shared: What the other two are computed from: one row a group, for each year.
        rows: ``year``, if the rows have years, and the published columns.
        audit: One row a year, or one alone: ``GROUPS`` and ``ROWS`` (of the source) counted, the
            sum of each of the ``totals``, and where something is wrong, ``metric of group`` in
            words, the first ``LISTED``: ``OVERFLOWED`` sums, and means ``OUTSIDE`` of their values.
    """

    shared: "DataFrame"
    rows: "DataFrame"
    audit: "DataFrame"


def aggregate(rows: "DataFrame", query: Aggregation, years: Sequence[str]) -> Aggregated:
    """Aggregate rows, each year apart.

    Args:
        rows: The columns that the query reads, and ``year`` where there are years.
        query: The groups and metrics.
        years: ``["year"]``, or nothing where there are none.

    Raises:
        SqlError: An expression does not go with the types of the columns.
    """
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    @cache
    def type_of(sql: str) -> str:
        return _analyzed(rows, sql)

    metrics: dict[str, ExactMetric] = {}
    for name, tree in query.metrics.items():
        try:
            metrics[name] = exact_metric(tree, type_of)
        except SqlError as error:
            raise SqlError(f"The metric {name}: {error}") from None
    groups = []
    for name, tree in query.group_by.items():
        sql = exact_row(tree, type_of)
        try:
            type_of(sql)
        except SqlError as error:
            raise SqlError(f"The column {name}: {error}") from None
        groups.append(F.expr(sql).alias(name))
    flagged = [
        F.expr(f"CASE WHEN {metric.overflows} THEN '{name}' END")
        for name, metric in metrics.items()
        if metric.overflows
    ]
    shared = rows.groupBy(*years, *groups).agg(
        *(F.expr(metric.sql).alias(name) for name, metric in metrics.items()),
        F.count("*").alias(ROWS),
        F.array_compact(F.array(*flagged)).alias(OVERFLOWED),
        F.array_compact(F.array(*_outside(metrics))).alias(OUTSIDE),
    )
    return Aggregated(
        shared=shared,
        rows=shared.select(*years, *query.columns),
        audit=_audit(shared, query, years),
    )


def filtered(rows: "DataFrame", where: str) -> "DataFrame":
    """The rows for which a condition is true.

    Args:
        rows: Rows.
        where: The condition, in Spark's SQL. Its arithmetic keeps as many digits as a group's.

    Raises:
        SqlError: The condition does not go with the types of the columns.
    """
    condition = exact_row(parse_row(where), lambda sql: _analyzed(rows, sql))
    if (kind := _analyzed(rows, condition)) != "boolean":
        raise SqlError(f"It is of type {kind}, not true or false.")
    return rows.where(condition)


def _outside(metrics: "Mapping[str, ExactMetric]") -> "list[Column]":
    """The names of the means that lie outside of their values."""
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    return [
        F.expr(
            f"CASE WHEN NOT ({metric.sql}) BETWEEN {metric.bounds[0]} AND {metric.bounds[1]} "
            f"THEN '{name}' END"
        )
        for name, metric in metrics.items()
        if metric.bounds
    ]


def _audit(shared: "DataFrame", query: Aggregation, years: Sequence[str]) -> "DataFrame":
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    group = F.concat_ws(", ", *(_named(name) for name in query.group_by))

    def listed(column: str) -> "Column":
        text = F.concat(F.concat_ws(", ", column), F.lit(" of "), group)
        return F.slice(F.sort_array(F.collect_list(F.when(F.size(column) > 0, text))), 1, LISTED)

    return shared.groupBy(*years).agg(
        F.count("*").alias(GROUPS),
        F.sum(ROWS).alias(ROWS),
        *(F.try_sum(name).alias(name) for name in query.totals),
        listed(OVERFLOWED).alias(OVERFLOWED),
        listed(OUTSIDE).alias(OUTSIDE),
    )


def _named(name: str) -> "Column":
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    value = F.coalesce(F.expr(f"`{name}`").cast("string"), F.lit("NULL"))
    return F.concat(F.lit(f"{name} "), value)


def _analyzed(rows: "DataFrame", sql: str) -> str:
    from pyspark.errors import AnalysisException

    try:
        return rows.selectExpr(sql).schema[0].dataType.simpleString()
    except AnalysisException as error:
        raise SqlError(first_sentence(str(error))) from None


def first_sentence(message: str) -> str:
    """What Spark says first of what is wrong, without its error class and what follows."""
    line = message.strip().splitlines()[0]
    text = line.partition("] ")[2] if line.startswith("[") else line
    return text if text.endswith(".") else f"{text}."
