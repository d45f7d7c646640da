"""Aggregates as Spark is given them, and what they are worth by DuckDB's sums and counts.

Sums are DuckDB's over BIGNUM, whole numbers of any length: no DECIMAL holds a sum that overflows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction

from tests.faults.exactness.expressions import (
    DIGITS,
    INT64,
    NUMERIC,
    Chance,
    Expression,
    Kind,
    RefusedError,
    Values,
)

RELATIVE = 1e-12
"""What a DOUBLE may differ by, of the size of what goes into it."""
Numbers = list[float]


@dataclass(frozen=True)
class Condition:
    """A condition, for Spark and for DuckDB."""

    spark: str
    duckdb: str


@dataclass(frozen=True)
class Approximate:
    """A DOUBLE: its exact value, and by how much the found one may differ."""

    value: float
    allowed: float

    def is_met_by(self, found: object) -> bool:
        """Whether a DOUBLE is near enough; of NaN and infinity, whether it is the same."""
        if not isinstance(found, float):
            return False
        if math.isfinite(self.value):
            return math.isfinite(found) and abs(found - self.value) <= self.allowed
        return found == self.value or (math.isnan(found) and math.isnan(self.value))


def fails(row_expression: Expression) -> str:
    """Name of the column with the chance that a row's expression is an error."""
    return f"{row_expression.sql} fails"


def quoted(name: str) -> str:
    """A name, for DuckDB."""
    return f'"{name}"'


def counted(what: str, condition: Condition | None = None) -> Expression:
    """``count(*)``, ``count(a_column)`` or ``count(DISTINCT a_column)``."""
    duckdb = f"count({what}){_filter(condition.duckdb if condition else None)}"
    return _plain(f"count({what})", duckdb, condition, INT64)


def taken(function: str, column: str, condition: Condition | None, kind: Kind | None) -> Expression:
    """What DuckDB answers by itself: ``min``, ``max``, ``bool_and`` and ``bool_or`` of a column."""
    duckdb = f"{function}({column}){_filter(condition.duckdb if condition else None)}"
    return _plain(f"{function}({column})", duckdb, condition, kind)


def met(condition: Condition) -> Expression:
    """``count_if``: the rows for which a condition is true."""
    duckdb = f"count(*){_filter(condition.duckdb)}"  # its count_if of NULLs alone is NULL
    return _plain(f"count_if({condition.spark})", duckdb, None, INT64)


def summed(
    term: Expression, condition: Condition | None = None, *, distinct: bool = False
) -> Expression:
    """The exact sum of a row's expression."""
    kind = _kind(term).of_sums
    where = condition.duckdb if condition else "true"
    keyword = "DISTINCT " if distinct else ""
    number = _unscaled(term)
    total, above, below, wrong = (
        f"sum({keyword}{number}){_filter(where)}",
        f"sum({keyword}{number}){_filter(f'({where}) AND {quoted(term.sql)} > 0')}",
        f"sum({keyword}{number}){_filter(f'({where}) AND {quoted(term.sql)} < 0')}",
        f"max({quoted(fails(term))}){_filter(where)}",
    )

    def overflow(values: Values) -> Chance:
        if not _fits(_scaled(values[total], kind), kind):
            return Chance.CERTAIN
        parts = (_scaled(values[part], kind) for part in (above, below))
        return Chance.NONE if all(_fits(part, kind) for part in parts) else Chance.POSSIBLE

    def value(values: Values) -> Decimal | None:
        if values[wrong]:
            raise RefusedError(Chance(values[wrong]))
        return None if overflow(values) == Chance.CERTAIN else _scaled(values[total], kind)

    return Expression(
        f"sum({keyword}{term.sql}){_filter(condition.spark if condition else None)}",
        kind,
        value,
        frozenset([total, above, below, wrong]),
        overflow,
        (term,),
        is_sum=True,
    )


def averaged(
    term: Expression, condition: Condition | None = None, *, distinct: bool = False
) -> Expression:
    """The exact mean of a row's expression: the sum over the count, rounded once.

    Each value counts with 9 digits, as a NUMERIC has; ``distinct`` is for those that have no more.
    """
    numerator = summed(as_numeric(term), condition, distinct=distinct)
    keyword = "DISTINCT " if distinct else ""
    number = f"count({keyword}{quoted(as_numeric(term).sql)})"
    count = f"{number}{_filter(condition.duckdb if condition else None)}"

    def value(values: Values) -> Decimal | None:
        total = numerator.value(values)
        if total is None:
            return None
        with localcontext(prec=DIGITS):
            return NUMERIC.fit(total / values[count])

    return Expression(
        f"avg({keyword}{term.sql}){_filter(condition.spark if condition else None)}",
        NUMERIC,
        value,
        numerator.needs | {count},
        numerator.overflow,
        numerator.rows,
        is_sum=True,
    )


def extreme(function: str, term: Expression) -> Expression:
    """``min`` or ``max`` of a row's expression."""
    kind = _kind(term)
    duckdb, wrong = f"{function}({_unscaled(term)})", f"max({quoted(fails(term))})"

    def value(values: Values) -> Decimal | None:
        if values[wrong]:
            raise RefusedError(Chance(values[wrong]))
        return _scaled(values[duckdb], kind)

    sql = f"{function}({term.sql})"
    return Expression(sql, kind, value, frozenset([duckdb, wrong]), rows=(term,))


def as_numeric(term: Expression) -> Expression:
    """The value that a row's expression counts with in a mean."""
    return term.to(NUMERIC)


def approximate(function: str, column: str, condition: Condition | None = None) -> Expression:
    """A metric that is a DOUBLE by nature."""
    where = f"({column}) IS NOT NULL AND ({condition.duckdb if condition else 'true'})"
    listed = f"list(({column})::DOUBLE){_filter(where)}"
    compute = FLOATS[function]

    def value(values: Values) -> Approximate | None:
        numbers = values[listed]
        return compute(numbers) if numbers else None

    sql = f"{function.format(column)}{_filter(condition.spark if condition else None)}"
    return Expression(sql, None, value, frozenset([listed]))


def _sum(numbers: Numbers) -> Approximate:
    size = sum(map(abs, numbers))
    if not math.isfinite(size):
        return Approximate(sum(numbers), 0)
    return Approximate(float(sum(map(Fraction, numbers))), RELATIVE * size)


def _mean(numbers: Numbers) -> Approximate:
    total = _sum(numbers)
    return Approximate(total.value / len(numbers), total.allowed / len(numbers))


def _variance(numbers: Numbers) -> Approximate | None:
    if len(numbers) < 2:
        return None
    if not all(map(math.isfinite, numbers)):
        return Approximate(math.nan, 0)
    exact = [Fraction(number) for number in numbers]
    mean = sum(exact) / len(exact)
    found = sum((number - mean) ** 2 for number in exact) / (len(exact) - 1)
    squares = sum(number**2 for number in exact) / (len(exact) - 1)
    return Approximate(float(found), RELATIVE * float(squares))


def _median(numbers: Numbers) -> Approximate:
    # Of those that are drawn, NaN is the greatest, as Spark has it.
    ascending = sorted(numbers, key=lambda number: (math.isnan(number), number))
    middle = ascending[(len(ascending) - 1) // 2], ascending[len(ascending) // 2]
    return Approximate(sum(middle) / 2, RELATIVE * max(map(abs, middle)))


FLOATS: dict[str, Callable[[Numbers], Approximate | None]] = {
    "sum({})": _sum,
    "avg({})": _mean,
    "var_samp({})": _variance,
    "median({})": _median,
}


def _plain(spark: str, duckdb: str, condition: Condition | None, kind: Kind | None) -> Expression:
    def value(values: Values) -> object:
        found = values[duckdb]
        return Decimal(found) if kind and found is not None else found

    return Expression(
        f"{spark}{_filter(condition.spark if condition else None)}",
        kind,
        value,
        frozenset([duckdb]),
    )


def _filter(condition: str | None) -> str:
    return f" FILTER (WHERE {condition})" if condition else ""


def _kind(term: Expression) -> Kind:
    assert term.kind is not None, term.sql
    return term.kind


def _unscaled(term: Expression) -> str:
    """A decimal's digits as a whole number of any length."""
    return f"replace({quoted(term.sql)}::VARCHAR, '.', '')::BIGNUM"


def _scaled(number: str | None, kind: Kind) -> Decimal | None:
    if number is None:
        return None
    with localcontext(prec=DIGITS):
        return Decimal(number).scaleb(-kind.scale)


def _fits(number: Decimal | None, kind: Kind) -> bool:
    try:
        return number is None or kind.fit(number) == number
    except RefusedError:
        return False
