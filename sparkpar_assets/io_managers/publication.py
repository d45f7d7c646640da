"""What an asset hands to the IO manager, and what comes back of its validation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, Row

    from sparkpar_assets.io_managers.bigquery import SourceYears


WHOLE = "all"
"""Stands for the year where an asset has none."""


@dataclass(frozen=True)
class Outcome:
    """What one check says of one year (or of the whole, where there are no years).

    Attributes:
        check: Name of the check, as in the asset's ``check_specs``.
        sentence: What was found.
        passed: Whether it is as it should be.
        severity: ERROR keeps the year from being published; WARN does not.
    """

    check: str
    sentence: str
    passed: bool
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR

    @property
    def refuses(self) -> bool:
        """Whether the year must not be published."""
        return not self.passed and self.severity == dg.AssetCheckSeverity.ERROR


@dataclass(frozen=True)
class StagedYear:
    """A year's staged rows, as read back from S3, and what they are checked against.

    Attributes:
        year: The year; ``WHOLE`` where the asset has none.
        rows: The staged rows.
        audit: The publication's audit rows of the year.
        source_rows: Rows of the source table, as BigQuery counts them; None where it can't tell.
    """

    year: str
    rows: "pa.Table"
    audit: "Sequence[Row]"
    source_rows: int | None = None


Validate = Callable[[StagedYear], list[Outcome]]
Describe = Callable[[StagedYear], Mapping[str, Any]]


@dataclass
class Publication:
    """Rows to stage, validate and publish, with what is needed to do so.

    Attributes:
        rows: The columns to publish; with ``year`` as well where the asset has partitions.
        order_by: Columns that the published rows are sorted by.
        source: The BigQuery years the rows come from, if they do.
        shared: A small DataFrame that ``rows`` and ``audit`` are both computed from: kept while
            they are, so that the source is read once.
        audit: What ``validate`` and ``describe`` compare the rows with; with ``year`` as well.
        validate: What the checks say of a staged year.
        describe: Metadata of a staged year.
    """

    rows: "DataFrame"
    order_by: "Sequence[str | Column]" = ()
    source: "SourceYears | None" = None
    shared: "DataFrame | None" = None
    audit: "DataFrame | None" = None
    validate: Validate = lambda _staged: []
    describe: Describe = lambda _staged: {}
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict, init=False)
    """What validation found, by year; filled by the IO manager."""

    def check_results(self) -> Iterator[dg.AssetCheckResult]:
        """One result for each check, with a table of what it says of each year."""
        names = dict.fromkeys(o.check for outcomes in self.outcomes.values() for o in outcomes)
        for name in names:
            yield _check_result(
                name,
                {
                    year: outcome
                    for year, outcomes in self.outcomes.items()
                    for outcome in outcomes
                    if outcome.check == name
                },
            )


def _check_result(name: str, by_year: Mapping[str, Outcome]) -> dg.AssetCheckResult:
    failed = {year: outcome for year, outcome in by_year.items() if not outcome.passed}
    return dg.AssetCheckResult(
        check_name=name,
        passed=not failed,
        severity=max(
            (outcome.severity for outcome in failed.values()),
            key=lambda severity: severity == dg.AssetCheckSeverity.ERROR,
            default=dg.AssetCheckSeverity.ERROR,
        ),
        description=" ".join(f"{year}: {outcome.sentence}" for year, outcome in failed.items())
        or f"As it should be: {', '.join(by_year)}.",
        metadata={
            "outcomes": dg.MetadataValue.table(
                [
                    dg.TableRecord({"partition": year, "passed": o.passed, "found": o.sentence})
                    for year, o in by_year.items()
                ]
            )
        },
    )
