"""Exact arithmetic on DECIMAL(38,9), the type of BigQuery's NUMERIC."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

NUMERIC = "decimal(38,9)"


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


def exact_difference(minuend: "Column", subtrahend: "Column") -> "Column":
    """``minuend - subtrahend`` as DECIMAL(38,9), without loss below 28 integer digits.

    Of two decimal(38,9) Spark would make a decimal(38,8): it takes the last digit for the carry.
    """
    narrower = "decimal(37,9)"
    return (minuend.cast(narrower) - subtrahend.cast(narrower)).cast(NUMERIC)
