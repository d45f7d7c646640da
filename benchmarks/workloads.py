"""What is computed in the benchmark: how many rows, of how many years, on how many workers."""

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb

from sparkpar_assets.embedded.samples import SAMPLES
from tests.integration.workbench import Workbench

FIRST_YEAR = 2011
SAMPLE = "sample"
SAMPLE_YEARS = (2018, 2019, 2017, 2021)
"""The real years, in the order in which they stand for the benchmark's: the largest comes first."""
SIZE = re.compile(r"(\d+)m")
SEED = 20_110_101


@dataclass(frozen=True)
class Workload:
    """One job that all contenders do.

    Attributes:
        size: ``sample`` for the real trips, or the millions of synthetic ones in a year: ``10m``.
        years: Tables, one a year, from ``FIRST_YEAR`` on.
        workers: Spark workers that the platform may use, each with one core.
    """

    size: str
    years: int = 1
    workers: int = 2

    @property
    def rows(self) -> int | None:
        """Rows of a synthetic year; None for the real trips."""
        found = SIZE.fullmatch(self.size)
        return int(found[1]) * 1_000_000 if found else None

    @property
    def all_years(self) -> list[int]:
        """The years."""
        return list(range(FIRST_YEAR, FIRST_YEAR + self.years))

    def __str__(self) -> str:
        rows = "the real trips" if self.rows is None else f"{self.rows // 1_000_000} million rows"
        years = "1 year" if self.years == 1 else f"{self.years} years"
        return f"{rows}, {years}, {self.workers} worker{'s' if self.workers > 1 else ''}"


def load_tables(bench: Workbench, size: str, years: int) -> dict[int, Path]:
    """Load a table for each year into the embedded BigQuery.

    Args:
        bench: Has the tables' names.
        size: As in a ``Workload``.
        years: The number of years.

    Returns:
        The Parquet file that each table was loaded from, by year.
    """
    files = {}
    for position, year in enumerate(Workload(size, years).all_years):
        files[year] = _file(bench, size, position)
        bench.stack.load(f"{bench.settings.taxi_table_prefix}{year}", files[year])
    return files


def _file(bench: Workbench, size: str, position: int) -> Path:
    rows = Workload(size).rows
    if rows is None:
        sample = SAMPLE_YEARS[position % len(SAMPLE_YEARS)]
        return SAMPLES / f"tlc_yellow_trips_{sample}.parquet"
    file = bench.folder / f"{size}_{position}.parquet"
    write_trips(file, rows, SEED + position)
    return file


def write_trips(file: Path, rows: int, seed: int) -> None:
    """Write synthetic trips: the columns that the fares are computed from, and one more.

    As among the real ones, one trip in fifty has no passenger count and one in a hundred a fare of
    0 or below; there are some 6,000 different fares.

    Args:
        file: The Parquet file.
        rows: Number of trips.
        seed: The same one gives the same trips.
    """

    def digits(column: str, below: int) -> str:
        return f"CAST(hash(i, {seed}, '{column}') % {below} AS DECIMAL(18, 0))"

    def amount(column: str, below: int, least: int = 0) -> str:
        cents = f"({digits(column, below)} + {least}) * CAST(0.01 AS DECIMAL(4, 2))"
        return f"CAST({cents} AS DECIMAL(38, 9)) AS {column}"

    passengers = digits("passengers", 300)
    query = f"""
        COPY (SELECT
            CASE WHEN {passengers} < 294 THEN CAST(1 + {passengers} % 6 AS BIGINT) END
                AS passenger_count,
            {amount("fare_amount", 6000, least=-59)},
            {amount("tip_amount", 1000)},
            {amount("trip_distance", 3000)},
            CAST(1 + {digits("rate_code", 6)} AS VARCHAR) AS rate_code
        FROM range({rows}) AS trips(i))
        TO '{file}' (FORMAT parquet, COMPRESSION zstd)
    """  # noqa: S608  # numbers and a path of our own
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(query)
