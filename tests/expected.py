"""The expected figures, computed by DuckDB and Python's Decimal from the same Parquet files."""

from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb

NINTH_DIGIT = Decimal("1e-9")
COUNTED = "passenger_count IS NOT NULL AND fare_amount > 0"


def expected_fares(trips: Path) -> list[dict[str, Any]]:
    """The rows of fare_by_passenger_count for the trips of one file.

    Sums and counts are DuckDB's, exact for decimals. Its quotients of decimals are doubles, and so
    those are Python's; percentiles are read off the sorted fares by position.
    """
    query = f"""
        SELECT passenger_count, count(*), sum(fare_amount), count(tip_amount), sum(tip_amount),
            count(trip_distance), sum(trip_distance), list(fare_amount ORDER BY fare_amount)
        FROM read_parquet(?) WHERE {COUNTED} GROUP BY 1 ORDER BY 1
    """
    return [
        {
            "passenger_count": group,
            "trips": trips_of_group,
            "total_fare": total,
            "avg_fare": half_up(total, trips_of_group),
            "median_fare": percentile_disc(fares, 50),
            "p95_fare": percentile_disc(fares, 95),
            "avg_tip": half_up(tips, n_tips),
            "avg_distance": half_up(distances, n_distances),
        }
        for group, trips_of_group, total, n_tips, tips, n_distances, distances, fares in (
            duckdb.connect().execute(query, [str(trips)]).fetchall()
        )
    ]


def expected_exclusions(trips: Path) -> dict[str, int]:
    """How many trips of one file each rule leaves out."""
    query = """
        SELECT CASE WHEN passenger_count IS NULL THEN 'no passenger count'
            WHEN fare_amount IS NULL THEN 'no fare' ELSE 'fare not above 0' END, count(*)
        FROM read_parquet(?)
        WHERE passenger_count IS NULL OR fare_amount IS NULL OR fare_amount <= 0 GROUP BY 1
    """
    return dict(duckdb.connect().execute(query, [str(trips)]).fetchall())


def expected_trends(fares_by_year: dict[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows of fare_trends over the expected fares of some years."""
    averages: dict[int, dict[int, Decimal]] = defaultdict(dict)
    rows = []
    for year, fares in sorted(fares_by_year.items()):
        trips = sum(row["trips"] for row in fares)
        for row in fares:
            group = row["passenger_count"]
            averages[year][group] = row["avg_fare"]
            before = averages[year - 1].get(group) if year - 1 in fares_by_year else None
            rows.append(
                {
                    "year": year,
                    "passenger_count": group,
                    "trips": row["trips"],
                    "share_of_trips": half_up(Decimal(row["trips"]), trips),
                    "avg_fare": row["avg_fare"],
                    "median_fare": row["median_fare"],
                    "change_in_avg_fare": None if before is None else row["avg_fare"] - before,
                }
            )
    return rows


def has_dominating_fare(trips: Path) -> bool:
    """Whether a group of 1,000 trips or more has a fare of over 1 % of its total."""
    query = f"""
        SELECT count(*) FROM (SELECT passenger_count FROM read_parquet(?) WHERE {COUNTED}
        GROUP BY 1 HAVING count(*) >= 1000 AND 100 * max(fare_amount) > sum(fare_amount))
    """
    (found,) = duckdb.connect().execute(query, [str(trips)]).fetchall()[0]
    return bool(found)


def half_up(total: Decimal | None, count: int) -> Decimal | None:
    """The exact quotient, rounded once, half-up, at the 9th digit."""
    if total is None:
        return None
    with localcontext(prec=200):
        return (total / count).quantize(NINTH_DIGIT, rounding=ROUND_HALF_UP)


def percentile_disc(ascending: list[Decimal], percent: int) -> Decimal:
    """The smallest value whose cumulative share reaches ``percent`` of 100."""
    position = -(-len(ascending) * percent // 100)
    return ascending[max(position, 1) - 1]
