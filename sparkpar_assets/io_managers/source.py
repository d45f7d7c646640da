"""What an asset reads of BigQuery: which tables, which columns and rows of them."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import dagster as dg

from sparkpar_assets.settings import Settings

SOURCE_KEY = "source"
YEAR = "{year}"
TAXI_TABLES = "{taxi_table_prefix}{year}"
"""The yearly tables whose name the setting TAXI_TABLE_PREFIX begins."""
READABLE_TYPES = (
    "BOOL",
    "BYTES",
    "DATE",
    "DATETIME",
    "FLOAT64",
    "INT64",
    "NUMERIC",
    "STRING",
    "TIMESTAMP",
)
"""GoogleSQL types whose every value a Spark type of one column holds: BIGNUMERIC has up to 77
digits, Spark's decimals 38."""
LITERALS = {"DATE": "", "DATETIME": " 00:00:00", "TIMESTAMP": " 00:00:00+00:00"}
"""What makes a literal of a day, by the type of a year column. In UTC, as BigQuery has it."""


def table_key(table: str) -> dg.AssetKey:
    """Key of the asset that stands for a table, or for the tables of several years.

    Args:
        table: Name, project.dataset.table, as in ``TableSource.table``.
    """
    if table == TAXI_TABLES:
        return dg.AssetKey("yellow_taxi_trips")
    return dg.AssetKey(table.replace(YEAR, "year").split("."))


@dataclass(frozen=True)
class TableSource:
    """Columns and rows of a BigQuery table, or of one table a year.

    Attributes:
        table: Name, project.dataset.table; with ``{year}`` where each year has a table.
        columns: GoogleSQL types of the columns to read, by name; None for any readable one.
        where: Spark SQL; only rows for which it is true are read.
        year_column: A DATE, DATETIME or TIMESTAMP of a table that holds all years.
        max_bytes_read: The most that one run may read, in BigQuery's logical bytes.
    """

    table: str
    columns: Mapping[str, str | None]
    where: str | None = None
    year_column: str | None = None
    max_bytes_read: int | None = None

    @classmethod
    def of_input(cls, metadata: Mapping[str, Any] | None) -> Self | None:
        """The source that the metadata of an asset's input describe; None if they do not."""
        found = (metadata or {}).get(SOURCE_KEY)
        return None if found is None else cls(**found)

    def as_input(self) -> dg.AssetIn:
        """An asset's input that reads it; the asset function gets a ``SourceYears``."""
        return dg.AssetIn(table_key(self.table), metadata={SOURCE_KEY: asdict(self)})

    @property
    def is_yearly(self) -> bool:
        """Whether it is read by the year."""
        return YEAR in self.table or self.year_column is not None

    @property
    def scanned_columns(self) -> tuple[str, ...]:
        """The columns that BigQuery bills: the year's too, which is compared and not read."""
        return tuple(dict.fromkeys([*self.columns, *filter(None, [self.year_column])]))

    def name(self, year: str, settings: Settings) -> str:
        """Name of a year's table; of the only one, whatever the year, where there are no others."""
        prefix = settings.taxi_table_prefix
        return self.table.replace("{taxi_table_prefix}", prefix).replace(YEAR, year)

    def restriction(self, year: str, types: Mapping[str, str]) -> str | None:
        """The year's rows of a table that holds all years, as GoogleSQL; None for all rows.

        Args:
            year: The year.
            types: GoogleSQL types of the table's columns, by name.
        """
        if self.year_column is None:
            return None
        kind = types[self.year_column]
        first, end = (f"{kind} '{y}-01-01{LITERALS[kind]}'" for y in (int(year), int(year) + 1))
        return f"`{self.year_column}` >= {first} AND `{self.year_column}` < {end}"

    def why_unreadable(self, types: Mapping[str, str]) -> str:
        """What keeps a table with such columns from being read, to follow its name; else empty."""
        problems = []
        for column, kind in self.columns.items():
            expected = (kind,) if kind else READABLE_TYPES
            if column not in types:
                problems.append(f"has no column {column}")
            elif types[column] not in expected:
                problems.append(_has_another_type(column, types[column], expected))
        year_type = types.get(self.year_column or "")
        if year_type and year_type not in LITERALS:
            problems.append(_has_another_type(str(self.year_column), year_type, LITERALS))
        return " and ".join(problems)


def _has_another_type(column: str, kind: str, expected: Iterable[str]) -> str:
    *others, last = expected
    listed = f"{', '.join(others)} or {last}" if others else last
    return f"has {column} as {kind} where {listed} is expected"
