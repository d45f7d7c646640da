"""What stands in an analysis' ``defs.yaml``, and what may not.

Dagster's loader puts file and line before what a validator here says.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from sparkpar_assets.cost import parse_size
from sparkpar_assets.io_managers.source import YEAR
from sparkpar_assets.transforms import sql

FIRST_YEAR, LAST_YEAR = 1900, 9998
NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
TABLE = r"^[A-Za-z0-9:.-]+\.[A-Za-z0-9_]+\.[A-Za-z0-9_$*{} -]+$"
FOLDER = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"
"""Neither a partition's folder, ``year=2018``, nor one of the platform's, ``_history``."""
OWNER = r"^(team:\S+|[^@\s]+@[^@\s]+)$"

Name = Annotated[str, Field(pattern=NAME)]


def _checked(check: Callable[[Any], object]) -> AfterValidator:
    def validate(text: Any) -> Any:  # noqa: ANN401  # as it is checked, so it is kept
        check(text)
        return text

    return AfterValidator(validate)


class Years(BaseModel):
    """The years of an analysis that is partitioned by them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=FIRST_YEAR, le=LAST_YEAR, description="The first year.")
    end: int | None = Field(
        default=None,
        ge=FIRST_YEAR,
        le=LAST_YEAR,
        description="The last year. Left out: every year that is over.",
    )

    @field_validator("end")
    @classmethod
    def _check_order(cls, end: int | None, info: ValidationInfo) -> int | None:
        start = info.data.get("start")
        if end is not None and start is not None and end < start:
            raise ValueError(f"The years end in {end}, before they start. Write {start} or later.")
        return end


class AggregationAttributes(BaseModel):
    """An aggregation over a BigQuery table, published as Parquet in S3."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    asset: Name = Field(description="Name of the asset.")
    description: str | None = Field(default=None, description="What the rows say.")
    table: str = Field(
        pattern=TABLE,
        description="The BigQuery table, project.dataset.table; with {year}, one table a year.",
    )
    year_column: Name | None = Field(
        default=None,
        description="A DATE, DATETIME or TIMESTAMP column of a table that holds all years.",
    )
    years: Years | None = Field(
        default=None,
        validate_default=True,
        description="The partitions, for {year} and year_column.",
    )
    path: str | None = Field(
        default=None,
        pattern=FOLDER,
        description="Folder under S3_PREFIX. Left out: the asset's name.",
    )
    where: Annotated[str, _checked(sql.parse_row)] | None = Field(
        default=None, description="Condition in Spark's SQL: rows for which it is true are read."
    )
    group_by: list[Annotated[str, _checked(sql.parse_group)]] = Field(
        min_length=1, description="Columns, or expressions in Spark's SQL AS a name."
    )
    metrics: dict[Name, Annotated[str, _checked(sql.parse_metric)]] = Field(
        min_length=1, description="Aggregates in Spark's SQL, by the name of their column."
    )
    order_by: list[Annotated[str, _checked(sql.parse_order)]] = Field(
        default=[], description="Published columns to sort the rows by, with or without DESC."
    )
    max_bytes_read: Annotated[str | int, _checked(parse_size)] | None = Field(
        default=None, description="A run that would read more is refused: 20 GB, say."
    )
    group: Name = Field(default="analyses", description="Dagster's group of the asset.")
    owners: list[Annotated[str, Field(pattern=OWNER)]] = Field(
        default=["team:data-engineering"], description="E-mail addresses, or team:NAME."
    )

    @field_validator("table")
    @classmethod
    def _check_braces(cls, table: str) -> str:
        if re.search(r"[{}]", table.replace(YEAR, "", 1)):
            raise ValueError(f"Of braces a table's name may have {YEAR}, once. Correct it.")
        return table

    @field_validator("year_column")
    @classmethod
    def _check_one_way_to_years(cls, column: str | None, info: ValidationInfo) -> str | None:
        if column and YEAR in info.data.get("table", ""):
            raise ValueError(f"The table has {YEAR} already. Leave one of the two out.")
        return column

    @field_validator("years")
    @classmethod
    def _check_years_are_of_use(cls, years: Years | None, info: ValidationInfo) -> Years | None:
        if "table" not in info.data or "year_column" not in info.data:
            return years
        is_yearly = YEAR in info.data["table"] or info.data["year_column"] is not None
        if is_yearly and years is None:
            raise ValueError("The first year is missing. Write years: {start: 2011}, say.")
        if years is not None and not is_yearly:
            raise ValueError(
                f"Nothing tells the years apart. Write {YEAR} in the table's name, add a "
                "year_column, or leave years out."
            )
        if years is not None and years.start > datetime.now(UTC).year:
            raise ValueError(f"The year {years.start} has not begun. Write an earlier start.")
        return years

    @field_validator("group_by")
    @classmethod
    def _check_groups(cls, groups: list[str], info: ValidationInfo) -> list[str]:
        names = [sql.parse_group(text)[0] for text in groups]
        _check_names(names, [], is_yearly=info.data.get("years") is not None)
        return groups

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        groups = [sql.parse_group(text)[0] for text in info.data.get("group_by", ())]
        _check_names(list(metrics), groups, is_yearly=info.data.get("years") is not None)
        return metrics

    @field_validator("order_by")
    @classmethod
    def _check_sorted_columns(cls, order: list[str], info: ValidationInfo) -> list[str]:
        if "group_by" not in info.data or "metrics" not in info.data:
            return order
        columns = [sql.parse_group(text)[0] for text in info.data["group_by"]]
        columns += info.data["metrics"]
        for text in order:
            if sql.parse_order(text)[0] not in columns:
                raise ValueError(
                    f"'{text}' is no column of the result. Its columns are {', '.join(columns)}."
                )
        return order


def _check_names(names: list[str], others: list[str], *, is_yearly: bool) -> None:
    """Column names differ in more than upper and lower case: neither Spark nor BigQuery tell."""
    seen = {name.lower() for name in others}
    for name in names:
        if not re.match(NAME, name):
            raise ValueError(f"'{name}' is no name for a column. Add AS and letters, digits, _.")
        if name.lower() in seen:
            raise ValueError(f"Two columns are called {name}. Give each a name of its own.")
        if is_yearly and name.lower() == "year":
            raise ValueError("The column year is the partition's. Give this one another name.")
        seen.add(name.lower())


def as_json(attributes: AggregationAttributes) -> Any:  # noqa: ANN401  # what JSON can hold
    """What decides on the published rows, for the code version."""
    return attributes.model_dump(
        mode="json", exclude={"description", "max_bytes_read", "group", "owners", "path"}
    )
