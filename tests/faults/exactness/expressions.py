"""Expressions as Spark is given them, and what they are worth by Python's Decimal.

Python's side follows what is documented, not what the platform does: Spark's types of decimal
operations ("ANSI Compliance" and the class DecimalPrecision), and the README's promise on top of
them, that arithmetic keeps 9 digits after the point.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal, localcontext
from enum import IntEnum
from typing import Any

DIGITS = 200
"""More than any result here has: Python's default of 28 would round."""
SPARK_DIGITS = 38
"""What Spark computes a product to, before it rounds that to its type."""
Values = Mapping[str, Any]


class Chance(IntEnum):
    """Whether something happens.

    A sum of values of both signs may overflow on the way to a result that fits. An operand that is
    beyond its type may go unseen where the other one is NULL.
    """

    NONE = 0
    POSSIBLE = 1
    CERTAIN = 2


class RefusedError(Exception):
    """A value is beyond its type, or divided by zero: Spark fails.

    Attributes:
        chance: Whether it does so for certain.
    """

    def __init__(self, chance: Chance = Chance.CERTAIN) -> None:
        super().__init__()
        self.chance = chance


@dataclass(frozen=True)
class Kind:
    """DECIMAL(precision, scale), or INT64."""

    precision: int
    scale: int
    is_whole: bool = False

    @property
    def limit(self) -> Decimal:
        """What a value's amount must be below."""
        return Decimal(2**63) if self.is_whole else Decimal(10) ** (self.precision - self.scale)

    @property
    def of_sums(self) -> "Kind":
        """The kind of a sum: ten digits more, up to 38."""
        return self if self.is_whole else replace(self, precision=min(38, self.precision + 10))

    def fit(self, value: Decimal) -> Decimal:
        """The value, rounded half-up to the last digit.

        Raises:
            RefusedError: It has more digits before the point.
        """
        with localcontext(prec=DIGITS):
            rounded = value.quantize(Decimal(1).scaleb(-self.scale), ROUND_HALF_UP)
            # INT64 goes one further down than up.
            if abs(rounded) >= self.limit and not (self.is_whole and rounded == -self.limit):
                raise RefusedError
            return rounded


INT64 = Kind(20, 0, is_whole=True)
NUMERIC = Kind(38, 9)
FACTOR = Kind(23, 9)
"""A NUMERIC in arithmetic, says the README."""
TERM = Kind(29, 9)
"""An aggregate in arithmetic."""


@dataclass(frozen=True)
class Expression:
    """An expression, over the columns of a row or over aggregates.

    Attributes:
        sql: For Spark.
        kind: The type of its values; None where they are no exact numbers.
        value: Its value; given what it ``needs``, by name.
        needs: Columns of the row; for aggregates, texts of DuckDB's SQL.
        overflow: Whether one of its sums overflows; its value is NULL then.
        rows: The expressions over a row that its aggregates are of.
        is_literal: Whether it is a number that is written out, whose digits are its type.
        is_sum: Whether it is a sum or mean, which counts as a decimal also where it is whole.
    """

    sql: str
    kind: Kind | None
    value: Callable[[Values], Any]
    needs: frozenset[str] = frozenset()
    overflow: Callable[[Values], Chance] = lambda _values: Chance.NONE
    rows: tuple["Expression", ...] = ()
    is_literal: bool = False
    is_sum: bool = False

    @property
    def stays_whole(self) -> bool:
        """Whether it is a whole number in arithmetic, too."""
        return _kind(self).is_whole and not self.is_sum

    def to(self, kind: Kind) -> "Expression":
        """Cast to a kind; what does not fit fails."""

        def value(values: Values) -> Decimal | None:
            found = self.value(values)
            return None if found is None else kind.fit(found)

        sql = f"CAST({self.sql} AS DECIMAL({kind.precision}, {kind.scale}))"
        return replace(self, sql=sql, kind=kind, value=value)


def literal(text: str) -> Expression:
    """A number, as it is written."""
    number = Decimal(text)
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    kind = Kind(max(len(digits), -exponent), -exponent, is_whole=exponent == 0)
    return Expression(text, kind, lambda _values: number, is_literal=True)


def column(name: str, kind: Kind) -> Expression:
    """A column of the table."""

    def value(values: Values) -> Decimal | None:
        return None if values[name] is None else Decimal(values[name])

    return Expression(name, kind, value, frozenset([name]))


def arithmetic(operator: str, left: Expression, right: Expression, operand: Kind) -> Expression:
    """Two expressions with one of ``+ - * / %`` between them.

    Args:
        operator: The operator.
        left: One operand.
        right: The other, not whole if both are divided: Spark divides whole numbers as DOUBLE.
        operand: What the decimals among them count as, ``FACTOR`` or ``TERM``.
    """
    one, other = _as_operand(left, operand), _as_operand(right, operand)
    kind = _result(operator, _kind(one), _kind(other))
    if _loses_digits(operator, kind, _kind(one), _kind(other)):
        one, other = (x if x.is_literal else x.to(FACTOR) for x in (one, other))
        kind = _result(operator, _kind(one), _kind(other))

    def value(values: Values) -> Decimal | None:
        if operator in "/%":  # Spark looks at the divisor first
            b, a = _both(other, one, values)
        else:
            a, b = _both(one, other, values)
        if a is None or b is None:
            return None
        if operator in "/%" and b == 0:
            raise RefusedError
        with localcontext(prec=DIGITS):
            return kind.fit(_computed(operator, a, b))

    return Expression(
        f"({left.sql} {operator} {right.sql})",
        kind,
        value,
        one.needs | other.needs,
        lambda values: max(one.overflow(values), other.overflow(values)),
        one.rows + other.rows,
    )


def applied(function: str, argument: Expression) -> Expression:
    """One of the functions of a number that keep its type: ``abs({})``, say."""
    compute: Callable[[Decimal | None], Decimal | None] = FUNCTIONS[function]

    def value(values: Values) -> Decimal | None:
        found = compute(argument.value(values))
        return None if found is None else _kind(argument).fit(found)

    return replace(argument, sql=function.format(argument.sql), value=value)


def not_zero(divisor: Expression, operand: Kind) -> Expression:
    """An operand that may be divided by: ``nullif(divisor, 0)``."""
    narrowed = replace(_as_operand(divisor, operand), sql=divisor.sql)
    return applied("nullif({}, 0)", narrowed)


def _negative(number: Decimal | None) -> Decimal | None:
    return None if number is None else number.copy_negate()


FUNCTIONS: Mapping[str, Callable[[Decimal | None], Decimal | None]] = {
    "abs({})": lambda number: None if number is None else number.copy_abs(),
    "coalesce({}, 0)": lambda number: Decimal(0) if number is None else number,
    "nullif({}, 0)": lambda number: number or None,
    "-{}": _negative,
}


def _kind(expression: Expression) -> Kind:
    assert expression.kind is not None, expression.sql
    return expression.kind


def _as_operand(expression: Expression, kind: Kind) -> Expression:
    is_exact = expression.is_literal or expression.stays_whole
    return expression if is_exact else expression.to(kind)


def _both(
    first: Expression, second: Expression, values: Values
) -> tuple[Decimal | None, Decimal | None]:
    """Two values. That of the second is not needed where the first is NULL."""
    found: Decimal | None = first.value(values)
    try:
        return found, second.value(values)
    except RefusedError:
        if found is None:
            raise RefusedError(Chance.POSSIBLE) from None
        raise


def _loses_digits(operator: str, result: Kind, left: Kind, right: Kind) -> bool:
    """Whether the result's type has fewer of the 9 digits than the operands have for it."""
    if result.is_whole:
        return False
    exact = {"*": left.scale + right.scale, "/": NUMERIC.scale}
    wanted = exact.get(operator, max(left.scale, right.scale))
    return result.scale < min(NUMERIC.scale, wanted)


def _computed(operator: str, a: Decimal, b: Decimal) -> Decimal:
    match operator:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            # As Spark: beyond 10^20 the 18 digits after the point are rounded to fewer than that.
            with localcontext(prec=SPARK_DIGITS, rounding=ROUND_HALF_UP):
                return a * b
        case "/":
            return a / b
    return a % b  # with the sign of a, in Python's Decimal as in Spark


def _result(operator: str, left: Kind, right: Kind) -> Kind:
    """The table of result types in Spark's documentation, and what becomes of over 38 digits."""
    if left.is_whole and right.is_whole:
        assert operator != "/"
        return INT64
    (p1, s1), (p2, s2) = (left.precision, left.scale), (right.precision, right.scale)
    match operator:
        case "*":
            scale, precision = s1 + s2, p1 + p2 + 1
        case "/":
            scale = max(6, s1 + p2 + 1)
            precision = p1 - s1 + s2 + scale
        case "%":
            scale = max(s1, s2)
            precision = min(p1 - s1, p2 - s2) + scale
        case _:
            scale = max(s1, s2)
            precision = max(p1 - s1, p2 - s2) + scale + 1
    if precision > 38:
        scale = max(38 - (precision - scale), min(scale, 6))
    return Kind(min(precision, 38), scale)
