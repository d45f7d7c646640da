"""Made trips whose published fares tell which version they are, in every value of every row.

Version ``k`` has ``k`` trips of ``k`` dollars and miles for each passenger count, and another
number of passenger counts than the version before: of two versions, no rows or columns fit.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

AMOUNTS = ("fare_amount", "tip_amount", "trip_distance")


def groups(version: int) -> int:
    """How many passenger counts a version has."""
    return 3 + version % 5


def trips_table(version: int) -> pa.Table:
    """The trips of a version, as a table to load into BigQuery."""
    counts = [group for group in range(1, groups(version) + 1) for _ in range(version)]
    amounts = pa.array([Decimal(version)] * len(counts), pa.decimal128(38, 9))
    columns = {"passenger_count": pa.array(counts, pa.int64())}
    return pa.table(columns | dict.fromkeys(AMOUNTS, amounts))


def trips_frame(session: "SparkSession", year: str, version: int) -> "DataFrame":
    """The trips of a version, as a reader of BigQuery would hand them to the asset."""
    amounts = ", ".join(f"CAST({version} AS DECIMAL(38,9)) AS {name}" for name in AMOUNTS)
    return session.sql(
        f"SELECT {year} AS year, groups.id AS passenger_count, {amounts} "
        f"FROM range(1, {groups(version) + 1}) AS groups CROSS JOIN range({version})"
    )


def fares(version: int) -> list[dict[str, Any]]:
    """The rows that are published of a version."""
    same = ("avg_fare", "median_fare", "p95_fare", "avg_tip", "avg_distance")
    return [
        {"passenger_count": group, "trips": version, "total_fare": Decimal(version * version)}
        | dict.fromkeys(same, Decimal(version))
        for group in range(1, groups(version) + 1)
    ]


def version_of(rows: Iterable[Mapping[str, Any]]) -> int:
    """The version that the rows are; fails if they are not the whole of one."""
    found = sorted((dict(row) for row in rows), key=lambda row: row["passenger_count"])
    assert found, "no rows"
    version = int(found[0]["trips"])
    assert found == fares(version), f"a mixture: {found}"
    return version
