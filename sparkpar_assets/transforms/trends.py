"""How fares change over the years."""

from typing import TYPE_CHECKING

from sparkpar_assets.transforms.decimals import exact_difference_sql, exact_quotient_sql

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
    share = exact_quotient_sql("trips", "SUM(trips) OVER (PARTITION BY year)")
    change = exact_difference_sql("avg_fare", "LAG(avg_fare) OVER before")
    return fares.sparkSession.sql(
        f"""
        SELECT
            year,
            passenger_count,
            trips,
            {share} AS share_of_trips,
            avg_fare,
            median_fare,
            IF(LAG(year) OVER before = year - 1, {change}, NULL) AS change_in_avg_fare
        FROM {{fares}}
        WINDOW before AS (PARTITION BY passenger_count ORDER BY year)
        """,
        fares=fares,
    )
