"""The right result of a workload, and what a contender has published, compared before it counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa

from tests.expected import COUNTED, half_up

TOLERANCE = Decimal("1e-9")
"""Of means: contenders round them in their own way. Counts and sums have to be equal."""
EXACT = ("passenger_count", "trips", "total_fare")
MEANS = ("avg_fare", "avg_tip", "avg_distance")
Group = Mapping[str, int | Decimal]


@dataclass(frozen=True)
class Answer:
    """The groups of one year, as DuckDB and Python's decimals compute them from its file."""

    groups: Sequence[Group]

    def difference(self, found: pa.Table) -> str:
        """What a published table has otherwise, as a sentence; empty if nothing.

        Args:
            found: Columns of the fares by passenger count; others than those compared may be there.
        """
        rows = sorted(found.to_pylist(), key=lambda row: row["passenger_count"])
        groups = [row["passenger_count"] for row in rows]
        if groups != (expected := [group["passenger_count"] for group in self.groups]):
            return f"It has the groups {groups} instead of {expected}."
        for row, group in zip(rows, self.groups, strict=True):
            for name in (*EXACT, *MEANS):
                tolerance = TOLERANCE if name in MEANS else 0
                if abs(Decimal(str(row[name])) - group[name]) > tolerance:
                    return (
                        f"Its {name} of passenger_count {group['passenger_count']} is {row[name]} "
                        f"instead of {group[name]}."
                    )
        return ""


def answer_of(trips: Path) -> Answer:
    """The right groups for the trips of one Parquet file."""
    query = f"""
        SELECT passenger_count, count(*), sum(fare_amount), count(tip_amount), sum(tip_amount),
            count(trip_distance), sum(trip_distance)
        FROM read_parquet(?) WHERE {COUNTED} GROUP BY 1 ORDER BY 1
    """  # noqa: S608  # of a constant
    with duckdb.connect() as connection:
        found = connection.execute(query, [str(trips)]).fetchall()
    return Answer(
        [
            {
                "passenger_count": passengers,
                "trips": count,
                "total_fare": fares,
                "avg_fare": half_up(fares, count) or Decimal(0),
                "avg_tip": half_up(tips, n_tips) or Decimal(0),
                "avg_distance": half_up(distances, n_distances) or Decimal(0),
            }
            for passengers, count, fares, n_tips, tips, n_distances, distances in found
        ]
    )
