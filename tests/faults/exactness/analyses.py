"""Random analyses, as a YAML file describes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.expected import COUNTED, percentile_disc
from tests.faults.exactness.aggregates import (
    FLOATS,
    Condition,
    approximate,
    averaged,
    counted,
    extreme,
    met,
    quoted,
    summed,
    taken,
)
from tests.faults.exactness.expressions import (
    FACTOR,
    FUNCTIONS,
    INT64,
    NUMERIC,
    TERM,
    Expression,
    Values,
    applied,
    arithmetic,
    column,
    literal,
    not_zero,
)

AMOUNTS = [column(name, NUMERIC) for name in ("fare_amount", "tip_amount", "trip_distance")]
COUNT = column("passenger_count", INT64)


@dataclass(frozen=True)
class Group:
    """A column to group by: its name, and its expression for Spark and for DuckDB."""

    name: str
    spark: str
    duckdb: str
    rows: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """What an analysis asks for, and what it is worth.

    Attributes:
        group_by: The columns to group by.
        metrics: The metrics, by the name of their column.
        where: The rows that are read.
        compared: An expression that ``where`` is about, over the columns of a row.
    """

    group_by: Sequence[Group]
    metrics: Mapping[str, Expression]
    where: Condition | None = None
    compared: tuple[Expression, ...] = ()

    @property
    def rows(self) -> list[Expression]:
        """All expressions over a row whose value Python computes."""
        found = [one for group in self.group_by for one in group.rows]
        found += [one for metric in self.metrics.values() for one in metric.rows]
        return [*found, *self.compared]

    def attributes(self, asset: str, table: str, years: Sequence[int]) -> dict[str, Any]:
        """What stands under ``attributes`` in the YAML file.

        Args:
            asset: Name of the asset.
            table: Name of the tables, with ``{year}``.
            years: The years, ascending.
        """
        return {
            "asset": asset,
            "table": table,
            "years": {"start": years[0], "end": years[-1]},
            **({"where": self.where.spark} if self.where else {}),
            "group_by": [
                one.name if one.name == one.spark else f"{one.spark} AS {one.name}"
                for one in self.group_by
            ],
            "metrics": {name: metric.sql for name, metric in self.metrics.items()},
        }


# Conditions.

NUMBERS = st.sampled_from(["0", "1", "2.5", "-3", "0.000000001", "12345678901234567890"])
SIMPLE_CONDITIONS = (
    *("is_shared", "is_shared IS NOT TRUE", "pickup_location_id IN ('1', 'a', '')"),
    *("pickup_location_id LIKE '%a%'", "pickup_location_id > 'A'", "speed > 0", "speed <> speed"),
    *("fare_amount BETWEEN 0 AND 100.5", "passenger_count % 2 = 1", "tip_amount < fare_amount"),
    *("passenger_count = fare_amount", "pickup_datetime >= TIMESTAMP '2018-01-01 00:00:00'"),
    *("coalesce(tip_amount, 0) = 0", "length(pickup_location_id) = 1", "abs(fare_amount) >= 1"),
)
NULLABLE = ("fare_amount", "tip_amount", "passenger_count", "pickup_location_id", "speed")


def _alike(text: str) -> Condition:
    return Condition(text, text)


@st.composite
def _comparisons(draw: st.DrawFn) -> Condition:
    name = draw(st.sampled_from(["fare_amount", "tip_amount", "passenger_count"]))
    operator, number = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="])), draw(NUMBERS)
    return _alike(f"{name} {operator} {number}")


@st.composite
def _same(draw: st.DrawFn) -> Condition:
    one, other = draw(st.permutations(["fare_amount", "tip_amount", "trip_distance"]))[:2]
    return Condition(f"{one} <=> {other}", f"{one} IS NOT DISTINCT FROM {other}")


SINGLE_CONDITIONS = st.one_of(
    st.sampled_from(SIMPLE_CONDITIONS).map(_alike),
    st.sampled_from(NULLABLE).map(lambda name: _alike(f"{name} IS NULL")),
    _comparisons(),
    _same(),
)


@st.composite
def _joined(draw: st.DrawFn) -> Condition:
    one, other = draw(SINGLE_CONDITIONS), draw(SINGLE_CONDITIONS)
    form = draw(st.sampled_from(["{} AND {}", "{} OR {}", "NOT ({} AND {})", "{} OR NOT {}"]))
    return Condition(form.format(one.spark, other.spark), form.format(one.duckdb, other.duckdb))


CONDITIONS = st.one_of(SINGLE_CONDITIONS, _joined())


@st.composite
def _sometimes(draw: st.DrawFn) -> Condition | None:
    """A condition, but more often none: each leaves fewer rows to be wrong."""
    return draw(CONDITIONS) if draw(st.integers(0, 4)) == 4 else None


MAYBE_CONDITIONS = _sometimes()

# Expressions over a row.

FACTORS = st.sampled_from(["2", "0.5", "100", "1.25", "0.000001", "3.141592654"]).map(literal)
LEAVES = st.one_of(
    st.sampled_from(AMOUNTS),
    st.just(COUNT),
    st.builds(applied, st.sampled_from(sorted(FUNCTIONS)), st.sampled_from([*AMOUNTS, COUNT])),
)


@st.composite
def _arithmetic(draw: st.DrawFn, operands: st.SearchStrategy[Expression]) -> Expression:
    """Of two operands, of which one is no literal."""
    left, right = draw(operands), draw(st.one_of(operands, FACTORS))
    whole = left.stays_whole and right.stays_whole
    operator = draw(st.sampled_from("+-*%" if whole else "+-**/%"))
    if operator in "/%" and not right.is_literal:
        right = not_zero(right, FACTOR)
    if not right.is_literal and draw(st.integers(0, 4)) == 4:
        left, right = right, left
    return arithmetic(operator, left, right, FACTOR)


PRODUCTS = _arithmetic(LEAVES)
TERMS = st.one_of(LEAVES, PRODUCTS, _arithmetic(st.one_of(LEAVES, PRODUCTS)))

# Groups.

GROUPS = (
    *(Group(name, name, name) for name in ("pickup_location_id", "passenger_count", "is_shared")),
    *(Group(name, name, name) for name in ("fare_amount", "speed", "pickup_datetime")),
    Group("rest", "passenger_count % 3", "passenger_count % 3"),
    Group("a_rest", "pmod(passenger_count, 3)", "(passenger_count % 3 + 3) % 3"),
    Group("third", "passenger_count DIV 3", "passenger_count // 3"),
    Group("dear", "fare_amount > 10", "fare_amount > 10"),
    Group("zone", "coalesce(pickup_location_id, 'none')", "coalesce(pickup_location_id, 'none')"),
    Group("case_less", "upper(pickup_location_id)", "upper(pickup_location_id)"),
    Group("its_year", "year(pickup_datetime)", "year(pickup_datetime)"),
    Group("its_hour", "hour(pickup_datetime)", "hour(pickup_datetime)"),
    Group("day", "dayofweek(pickup_datetime)", "dayofweek(pickup_datetime) + 1"),
    Group("month", "date_trunc('month', pickup_datetime)", "date_trunc('month', pickup_datetime)"),
    Group("dollars", "floor(fare_amount)", "floor(fare_amount)"),
    Group(
        "kind",
        "CASE WHEN tip_amount > 0 THEN 'tip' WHEN tip_amount = 0 THEN 'none' END",
        "CASE WHEN tip_amount > 0 THEN 'tip' WHEN tip_amount = 0 THEN 'none' END",
    ),
)


@st.composite
def _computed_groups(draw: st.DrawFn) -> Group:
    term = draw(PRODUCTS)
    return Group("computed", term.sql, quoted(term.sql), (term,))


GROUPINGS = st.lists(
    st.one_of(st.sampled_from(GROUPS), st.sampled_from(GROUPS), _computed_groups()),
    min_size=1,
    max_size=2,
    unique_by=lambda group: group.name,
)

# Metrics.

COUNTABLE = ("*", "fare_amount", "passenger_count", "pickup_location_id", "speed")
DISTINCT = ("fare_amount", "passenger_count", "pickup_location_id", "speed", "is_shared")
COMPARABLE = ("pickup_location_id", "pickup_datetime", "speed", "is_shared")
COUNTS = st.one_of(
    st.builds(counted, st.sampled_from(COUNTABLE), MAYBE_CONDITIONS),
    st.builds(counted, st.sampled_from(DISTINCT).map("DISTINCT {}".format), MAYBE_CONDITIONS),
    st.builds(met, CONDITIONS),
)


@st.composite
def _guarded(draw: st.DrawFn) -> Expression:
    """A quotient that is an error in rows which its filter leaves out."""
    dividend, divisor = draw(st.sampled_from(AMOUNTS)), draw(st.sampled_from([*AMOUNTS, COUNT]))
    condition = _alike(f"{divisor.sql} <> 0")
    aggregate = draw(st.sampled_from([summed, averaged]))
    return aggregate(arithmetic("/", dividend, divisor, FACTOR), condition)


EXACT = st.one_of(
    _guarded(),
    st.builds(summed, TERMS, MAYBE_CONDITIONS),
    st.builds(averaged, TERMS, MAYBE_CONDITIONS),
    st.builds(extreme, st.sampled_from(["min", "max"]), TERMS),
    st.builds(summed, LEAVES, MAYBE_CONDITIONS, distinct=st.just(value=True)),
    st.builds(averaged, LEAVES, MAYBE_CONDITIONS, distinct=st.just(value=True)),
)
OTHERS = st.one_of(
    st.builds(
        taken,
        st.sampled_from(["min", "max"]),
        st.sampled_from(COMPARABLE),
        MAYBE_CONDITIONS,
        st.none(),
    ),
    st.builds(
        taken,
        st.sampled_from(["bool_and", "bool_or"]),
        st.just("is_shared"),
        MAYBE_CONDITIONS,
        st.none(),
    ),
    st.builds(
        approximate,
        st.sampled_from(sorted(FLOATS)),
        st.sampled_from(["speed", "CAST(passenger_count AS DOUBLE)", "CAST(tip_amount AS DOUBLE)"]),
        MAYBE_CONDITIONS,
    ),
)


@st.composite
def _of_aggregates(draw: st.DrawFn, operands: st.SearchStrategy[Expression]) -> Expression:
    """Of two aggregates, or one and a number."""
    left = draw(operands)
    right = draw(st.one_of(operands, COUNTS, FACTORS))
    whole = left.stays_whole and right.stays_whole
    operator = draw(st.sampled_from("+-*" if whole else "+-*//"))
    if operator == "/" and not right.is_literal:
        right = not_zero(right, TERM)
    return arithmetic(operator, left, right, TERM)


QUOTIENTS = _of_aggregates(EXACT)
METRICS = st.one_of(COUNTS, EXACT, EXACT, QUOTIENTS, _of_aggregates(QUOTIENTS), OTHERS)


@st.composite
def analyses(draw: st.DrawFn) -> Analysis:
    """An analysis of up to two groups and eight metrics."""
    metrics = draw(st.lists(METRICS, min_size=2, max_size=8))
    named = {f"m{i}": metric for i, metric in enumerate(metrics)}
    if draw(st.integers(0, 7)) == 7:
        return Analysis(draw(GROUPINGS), named, *draw(_where_computed()))
    return Analysis(draw(GROUPINGS), named, draw(MAYBE_CONDITIONS))


@st.composite
def _where_computed(draw: st.DrawFn) -> tuple[Condition, tuple[Expression, ...]]:
    term, number = draw(PRODUCTS), draw(st.sampled_from(["0", "1.5", "0.000000001"]))
    operator = draw(st.sampled_from([">", "=", "<="]))
    return (
        Condition(f"{term.sql} {operator} {number}", f"{quoted(term.sql)} {operator} {number}"),
        (term,),
    )


# The built-in fares, as if they were an analysis.


def _percentile(percent: int) -> Expression:
    fares = "list(fare_amount ORDER BY fare_amount)"

    def value(values: Values) -> Any:  # noqa: ANN401  # a fare that occurred
        return percentile_disc(values[fares], percent)

    return Expression("", NUMERIC, value, frozenset([fares]))


FARE, TIP, DISTANCE = AMOUNTS
FARES = Analysis(
    [Group("passenger_count", "passenger_count", "passenger_count")],
    {
        "trips": counted("*"),
        "total_fare": summed(FARE),
        "avg_fare": averaged(FARE),
        "median_fare": _percentile(50),
        "p95_fare": _percentile(95),
        "avg_tip": averaged(TIP),
        "avg_distance": averaged(DISTANCE),
    },
    _alike(COUNTED),
)
