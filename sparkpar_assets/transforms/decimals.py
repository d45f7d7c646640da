"""Exact arithmetic on DECIMAL(38,9), the type of BigQuery's NUMERIC."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

NUMERIC = "decimal(38,9)"
SMALL = 2_000_000
"""What amounts of money and distances stay below, as a rule."""
LOW_BITS = 26
"""Half of the 51 bits of a small number of units."""


def exact_quotient(numerator: "Column", count: "Column") -> "Column":
    """``numerator / count`` as DECIMAL(38,9), rounded half-up at the 9th digit.

    Spark divides to 39 digits after the point (``Decimal./`` of its source) and rounds that to the
    scale of the result's type, which for decimal(38,9) / decimal(20,0) is decimal(38,9). The first
    rounding could only matter where the quotient lies nearer to a half of the last digit than
    0.5e-39 without being one: it is at least 0.5e-9 / count away.
    ``avg`` is no substitute: it rounds at the 13th digit first.

    Args:
        numerator: A whole number or a DECIMAL with at most 9 digits after the point.
        count: A whole number; 0 gives NULL.
    """
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    return numerator.cast(NUMERIC) / F.nullif(count.cast("decimal(20,0)"), F.lit(0))


def exact_quotient_sql(numerator: str, count: str) -> str:
    """``exact_quotient`` as Spark's SQL."""
    return f"CAST({numerator} AS DECIMAL(38, 9)) / NULLIF(CAST({count} AS DECIMAL(20, 0)), 0)"


def exact_difference_sql(minuend: str, subtrahend: str) -> str:
    """``minuend - subtrahend`` as DECIMAL(38,9), without loss below 28 integer digits.

    Of two decimal(38,9) Spark would make a decimal(38,8): it takes the last digit for the carry.
    """
    one, other = (f"CAST({value} AS DECIMAL(37, 9))" for value in (minuend, subtrahend))
    return f"CAST({one} - {other} AS {NUMERIC})"


def small_units(value: str) -> str:
    """A NUMERIC below 2 million as INT64, in units of its 9th digit; NULL where it is not below.

    Exact, though by way of a DOUBLE: that is the one nearest to the value, a multiplication rounds
    once more, and so the product is off by less than 2e15 * 2**-52 = 0.44 of a unit.

    Args:
        value: A DECIMAL(38,9) column, in Spark's SQL.
    """
    near = f"CAST({value} AS DOUBLE)"
    return f"IF(ABS({near}) < {SMALL}, CAST(RINT({near} * 1e9D) AS BIGINT), NULL)"


def numeric_of_units(units: str) -> str:
    """Whole numbers of units, up to 28 digits, as DECIMAL(38,9)."""
    return f"CAST({units} AS DECIMAL(28, 0)) * CAST('0.000000001' AS DECIMAL(9, 9))"


def sum_of_small_units(units: str) -> str:
    """The exact sum of what ``small_units`` returned, as DECIMAL(38,9).

    The high and the low 26 bits of each are summed apart. Neither sum overflows for 10**11 rows,
    where one of whole numbers would for 5,000; Spark's ANSI mode refuses what overflows.
    """
    high = f"CAST(SUM(SHIFTRIGHT({units}, {LOW_BITS})) AS DECIMAL(20, 0))"
    low = f"CAST(SUM({units} & {2**LOW_BITS - 1}) AS DECIMAL(20, 0))"
    return numeric_of_units(f"({high} * CAST({2**LOW_BITS} AS DECIMAL(8, 0)) + {low})")
