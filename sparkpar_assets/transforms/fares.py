"""Fares by passenger count: exact sums, means and percentiles in one pass over the trips.

In SQL, since each piece of an expression that PySpark puts together is a question to the driver's
JVM: hundreds of them are a tenth of a second.
"""

from typing import TYPE_CHECKING

from sparkpar_assets.transforms.decimals import (
    exact_quotient_sql,
    numeric_of_units,
    small_units,
    sum_of_small_units,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

TRIP_COLUMNS = {
    "passenger_count": "INT64",
    "fare_amount": "NUMERIC",
    "tip_amount": "NUMERIC",
    "trip_distance": "NUMERIC",
}
"""The columns read, with BigQuery's types."""

SUMMED_COLUMNS = ("fare_amount", "tip_amount", "trip_distance")


def count_by_fare(trips: "DataFrame") -> "DataFrame":
    """The single aggregate that all else is computed from: small, and read from BigQuery once.

    Percentiles are taken from it because Spark's own return DOUBLE even for decimals.

    Grouped and summed are whole numbers where a trip's amounts are small, as they are; of wide
    amounts the decimals themselves, in groups of their own. With decimals for all, reading and
    aggregating takes a third longer (measured, see benchmarks/NOTES.md).

    Args:
        trips: ``year`` and ``TRIP_COLUMNS``, one row a trip.

    Returns:
        One or two rows for each ``year``, ``excluded_by`` (the rule that leaves the trips out; NULL
        where they are counted), ``passenger_count`` and ``fare`` (both NULL where left out), with
        ``trips`` and, for each of ``SUMMED_COLUMNS``, its non-NULL values' count ``n_…`` and exact
        sum ``sum_…`` (NULL where it has more than 38 digits).
    """
    units = {name: f"units_of_{name}" for name in SUMMED_COLUMNS}
    small = [f"{small_units(name)} AS {units[name]}" for name in SUMMED_COLUMNS]
    wide = [f"({name} IS NOT NULL AND {units[name]} IS NULL)" for name in SUMMED_COLUMNS]
    sums = [
        f"""COUNT({name}) AS n_{name},
            IF(
                is_wide,
                TRY_SUM({name}) FILTER (WHERE is_wide),
                {sum_of_small_units(units[name])}
            ) AS sum_{name}"""
        for name in SUMMED_COLUMNS
    ]
    return trips.sparkSession.sql(
        f"""
        WITH judged AS (
            SELECT
                *,
                CASE
                    WHEN passenger_count IS NULL THEN 'no passenger count'
                    WHEN fare_amount IS NULL THEN 'no fare'
                    WHEN fare_amount <= 0 THEN 'fare not above 0'
                END AS excluded_by,
                {", ".join(small)}
            FROM {{trips}}
        ),
        keyed AS (
            SELECT
                year,
                excluded_by,
                IF(excluded_by IS NULL, passenger_count, NULL) AS passenger_count,
                IF(excluded_by IS NULL, {units["fare_amount"]}, NULL) AS small_fare,
                IF(
                    excluded_by IS NULL AND {units["fare_amount"]} IS NULL, fare_amount, NULL
                ) AS wide_fare,
                {" OR ".join(wide)} AS is_wide,
                {", ".join([*SUMMED_COLUMNS, *units.values()])}
            FROM judged
        )
        SELECT
            year,
            excluded_by,
            passenger_count,
            COALESCE(wide_fare, {numeric_of_units("small_fare")}) AS fare,
            COUNT(*) AS trips,
            {", ".join(sums)}
        FROM keyed
        GROUP BY year, excluded_by, passenger_count, small_fare, wide_fare, is_wide
        """,
        trips=trips,
    )


def fares_by_passenger_count(counts: "DataFrame") -> "DataFrame":
    """The published rows: one for each year and passenger count.

    Args:
        counts: What ``count_by_fare`` returns.

    Returns:
        ``year`` INT32, ``passenger_count`` and ``trips`` INT64; ``total_fare``, ``avg_fare``,
        ``median_fare``, ``p95_fare`` and ``avg_tip`` in US dollars and ``avg_distance`` in miles,
        all DECIMAL(38,9). Means are rounded half-up at the 9th digit. The percentiles are fares
        that occurred: the smallest one whose cumulative share of the trips reaches p, as the SQL
        standard defines PERCENTILE_DISC (ISO/IEC 9075-2, 10.9).
    """

    def mean(name: str) -> str:
        return exact_quotient_sql(f"TRY_SUM(sum_{name})", f"SUM(n_{name})")

    def percentile(percent: int) -> str:
        # In whole numbers, where a share would be a rounded fraction.
        return f"MIN(IF(trips_so_far * 100 >= trips_of_group * {percent}, fare, NULL))"

    return counts.sparkSession.sql(
        f"""
        WITH ranked AS (
            SELECT
                *,
                SUM(trips) OVER (
                    PARTITION BY year, passenger_count ORDER BY fare ROWS UNBOUNDED PRECEDING
                ) AS trips_so_far,
                SUM(trips) OVER (PARTITION BY year, passenger_count) AS trips_of_group
            FROM {{counts}}
            WHERE excluded_by IS NULL
        )
        SELECT
            year,
            passenger_count,
            SUM(trips) AS trips,
            TRY_SUM(sum_fare_amount) AS total_fare,
            {mean("fare_amount")} AS avg_fare,
            {percentile(50)} AS median_fare,
            {percentile(95)} AS p95_fare,
            {mean("tip_amount")} AS avg_tip,
            {mean("trip_distance")} AS avg_distance
        FROM ranked
        GROUP BY year, passenger_count
        """,
        counts=counts,
    )


def audit_fares(counts: "DataFrame") -> "DataFrame":
    """What the published rows are checked against, on another way from the same aggregate.

    Args:
        counts: What ``count_by_fare`` returns.

    Returns:
        One row for each year, rule (``excluded_by``) and passenger count: ``trips``,
        ``total_fare``, ``min_fare``, ``max_fare``, and ``overflowed``, the names of those columns
        whose sum has more than 38 digits.
    """

    def overflows(name: str) -> str:
        # A sum that overflowed is NULL, and a sum over sums leaves NULLs out: look at both.
        within = f"MAX(n_{name} > 0 AND sum_{name} IS NULL)"
        across = f"(SUM(n_{name}) > 0 AND TRY_SUM(sum_{name}) IS NULL)"
        return f"IF({within} OR {across}, '{name}', NULL)"

    return counts.sparkSession.sql(
        f"""
        SELECT
            year,
            excluded_by,
            passenger_count,
            SUM(trips) AS trips,
            TRY_SUM(sum_fare_amount) AS total_fare,
            MIN(fare) AS min_fare,
            MAX(fare) AS max_fare,
            ARRAY_COMPACT(ARRAY({", ".join(map(overflows, SUMMED_COLUMNS))})) AS overflowed
        FROM {{counts}}
        GROUP BY year, excluded_by, passenger_count
        """,
        counts=counts,
    )
