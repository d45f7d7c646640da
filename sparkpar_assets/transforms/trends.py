"""How fares change over the years."""

from typing import TYPE_CHECKING

from sparkpar_assets.transforms.decimals import exact_difference, exact_quotient

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def fare_trends(fares: "DataFrame") -> "DataFrame":
    """Each group's share of its year's trips, and the change of its mean fare.

    Args:
        fares: The columns of ``fares_by_passenger_count``, of any years.

    Returns:
        One row for each year and passenger count: ``year`` INT32, ``passenger_count`` and ``trips``
        INT64; ``share_of_trips`` (of the year's trips, from 0 to 1, rounded half-up),
        ``avg_fare``, ``median_fare`` and ``change_in_avg_fare`` (US dollars, the difference to the
        calendar year before; NULL where that year has no such group), all DECIMAL(38,9).
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    before = Window.partitionBy("passenger_count").orderBy("year")
    year_before = F.lag("year").over(before)
    avg_fare_before = F.lag("avg_fare").over(before)
    return fares.select(
        "year",
        "passenger_count",
        "trips",
        exact_quotient(F.col("trips"), F.sum("trips").over(Window.partitionBy("year"))).alias(
            "share_of_trips"
        ),
        "avg_fare",
        "median_fare",
        F.when(
            year_before == F.col("year") - 1, exact_difference(F.col("avg_fare"), avg_fare_before)
        ).alias("change_in_avg_fare"),
    )
