"""Fares by passenger count: exact sums, means and percentiles in one pass over the trips."""

from typing import TYPE_CHECKING

from sparkpar_assets.transforms.decimals import exact_quotient

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

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

    Args:
        trips: ``year`` and ``TRIP_COLUMNS``, one row a trip.

    Returns:
        One row for each ``year``, ``excluded_by`` (the rule that leaves the trips out; NULL where
        they are counted), ``passenger_count`` and ``fare_amount`` (both NULL where left out), with
        ``trips`` and, for each of ``SUMMED_COLUMNS``, its non-NULL values' count ``n_…`` and exact
        sum ``sum_…`` (NULL where it has more than 38 digits).
    """
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    rule = (
        F.when(F.col("passenger_count").isNull(), "no passenger count")
        .when(F.col("fare_amount").isNull(), "no fare")
        .when(F.col("fare_amount") <= 0, "fare not above 0")
    )
    counted = F.col("excluded_by").isNull()
    return (
        trips.withColumn("excluded_by", rule)
        .groupBy(
            "year",
            "excluded_by",
            F.when(counted, F.col("passenger_count")).alias("passenger_count"),
            F.when(counted, F.col("fare_amount")).alias("fare"),
        )
        .agg(
            F.count("*").alias("trips"),
            *(F.count(name).alias(f"n_{name}") for name in SUMMED_COLUMNS),
            *(F.try_sum(name).alias(f"sum_{name}") for name in SUMMED_COLUMNS),
        )
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
    from pyspark.sql import Window
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    group = ["year", "passenger_count"]
    upwards = Window.partitionBy(*group).orderBy("fare").rowsBetween(Window.unboundedPreceding, 0)
    ranked = counts.where("excluded_by IS NULL").select(
        "*",
        F.sum("trips").over(upwards).alias("trips_so_far"),
        F.sum("trips").over(Window.partitionBy(*group)).alias("trips_of_group"),
    )

    def mean(name: str) -> "Column":
        return exact_quotient(F.try_sum(f"sum_{name}"), F.sum(f"n_{name}"))

    def percentile(percent: int) -> "Column":
        # In whole numbers, where a share would be a rounded fraction.
        reached = F.col("trips_so_far") * 100 >= F.col("trips_of_group") * percent
        return F.min(F.when(reached, F.col("fare")))

    return ranked.groupBy(*group).agg(
        F.sum("trips").alias("trips"),
        F.try_sum("sum_fare_amount").alias("total_fare"),
        mean("fare_amount").alias("avg_fare"),
        percentile(50).alias("median_fare"),
        percentile(95).alias("p95_fare"),
        mean("tip_amount").alias("avg_tip"),
        mean("trip_distance").alias("avg_distance"),
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
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    def overflows(name: str) -> "Column":
        # A sum that overflowed is NULL, and a sum over sums leaves NULLs out: look at both.
        within = F.max((F.col(f"n_{name}") > 0) & F.col(f"sum_{name}").isNull())
        across = (F.sum(f"n_{name}") > 0) & F.try_sum(f"sum_{name}").isNull()
        return F.when(within | across, F.lit(name))

    return counts.groupBy("year", "excluded_by", "passenger_count").agg(
        F.sum("trips").alias("trips"),
        F.try_sum("sum_fare_amount").alias("total_fare"),
        F.min("fare").alias("min_fare"),
        F.max("fare").alias("max_fare"),
        F.array_compact(F.array(*(overflows(name) for name in SUMMED_COLUMNS))).alias("overflowed"),
    )
