"""What a year must satisfy before it is published, and what is worth a warning."""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import dagster as dg

from sparkpar_assets.comparison import figure, total
from sparkpar_assets.io_managers.publication import Outcome, StagedYear
from sparkpar_assets.metadata import readable
from sparkpar_assets.transforms.aggregation import GROUPS, OUTSIDE, OVERFLOWED, ROWS

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Row

DOMINATING_SHARE = Decimal("0.01")
DOMINATED_TRIPS = 1000
"""In groups so large, a fare of over 1 % of the whole is a broken meter rather than a long ride."""

FARE_CHECKS = {
    "groups_are_unique": "One row for each passenger count.",
    "every_group_has_trips": "Every row counts at least one trip.",
    "sums_are_exact": "No sum needs more than the 38 digits of DECIMAL(38,9).",
    "totals_add_up": "Trips and fares of the groups add up to those counted, and the counted and "
    "excluded trips to the rows of the table.",
    "means_lie_within_the_fares": "Each group's mean lies between its lowest and highest fare.",
    "no_fare_dominates": "In no group of 1,000 trips or more one fare alone is over 1 % of the "
    "group's total (a warning: broken meters are real data).",
}
AGGREGATION_CHECKS = {
    "groups_are_unique": "One row for each group.",
    "sums_are_exact": "No sum needs more digits than its type has.",
    "totals_add_up": "Groups, counts and sums are as many as when they were aggregated, and the "
    "rows aggregated those of the table, if none is left out.",
    "means_lie_within_the_values": "Each exact mean lies between its lowest and highest value.",
}
TREND_CHECKS = {
    "published_years_are_there": "Every year that Dagster has materialized is in S3 "
    "(a warning: the others are used).",
}


def check_specs(asset: str, checks: dict[str, str]) -> list[dg.AssetCheckSpec]:
    """Specs of an asset's checks, evaluated in the asset's own step."""
    return [
        dg.AssetCheckSpec(name=name, asset=asset, description=description)
        for name, description in checks.items()
    ]


def validate_fares(staged: StagedYear) -> list[Outcome]:
    """Check a staged year of ``fare_by_passenger_count``: one outcome for each of FARE_CHECKS.

    Args:
        staged: The rows to publish, and audit rows as ``transforms.fares.audit_fares`` makes them.
    """
    rows = staged.rows.to_pylist()
    groups = {row["passenger_count"]: row for row in staged.audit if row["excluded_by"] is None}
    with localcontext(prec=100):  # Python's default of 28 digits is less than a sum may have.
        findings = {
            "groups_are_unique": _repeated(rows),
            "every_group_has_trips": _without_trips(rows),
            "sums_are_exact": _overflowed(groups.values()),
            "totals_add_up": _not_adding_up(staged, rows, groups.values()),
            "means_lie_within_the_fares": _outside(rows, groups),
        }
        dominating = _dominating(groups.values())
    outcomes = [
        Outcome(check, finding or FARE_CHECKS[check], passed=not finding)
        for check, finding in findings.items()
    ]
    return [
        *outcomes,
        Outcome(
            "no_fare_dominates",
            dominating or _as_it_should_be(FARE_CHECKS["no_fare_dominates"]),
            passed=not dominating,
            severity=dg.AssetCheckSeverity.WARN,
        ),
    ]


def excluded_trips(audit: "Sequence[Row]") -> dict[str, int]:
    """How many trips each rule left out, from the audit rows of a year."""
    return {row["excluded_by"]: row["trips"] for row in audit if row["excluded_by"] is not None}


def validate_aggregation(
    staged: StagedYear, *, group_by: Sequence[str], totals: Sequence[str], is_filtered: bool
) -> list[Outcome]:
    """Check a staged year of an analysis: one outcome for each of AGGREGATION_CHECKS.

    Args:
        staged: The rows to publish, and the audit row that ``transforms.aggregation`` makes.
        group_by: The columns that tell rows apart.
        totals: The columns whose sum has a meaning.
        is_filtered: Whether rows of the table were left out.
    """
    (counted,) = staged.audit
    findings = {
        "groups_are_unique": _repeated_groups(staged.rows, group_by),
        "sums_are_exact": _listed("A sum needs more digits than its type has", counted[OVERFLOWED]),
        "totals_add_up": _different_totals(staged, counted, totals, is_filtered=is_filtered),
        "means_lie_within_the_values": _listed(
            "A mean lies outside of its values", counted[OUTSIDE]
        ),
    }
    return [
        Outcome(check, finding or AGGREGATION_CHECKS[check], passed=not finding)
        for check, finding in findings.items()
    ]


def validate_trends(missing: Sequence[str], asset: str) -> list[Outcome]:
    """Name the years that were materialized once and are in S3 no more.

    Args:
        missing: Those years.
        asset: The asset whose they are.
    """
    found = (
        f"Materialized, but not in S3: {', '.join(missing)}. Materialize {asset} for these again."
        if missing
        else _as_it_should_be(TREND_CHECKS["published_years_are_there"])
    )
    return [
        Outcome(
            "published_years_are_there",
            found,
            passed=not missing,
            severity=dg.AssetCheckSeverity.WARN,
        )
    ]


def _as_it_should_be(description: str) -> str:
    """A check's description without what its warning is about."""
    return f"{description.partition(' (')[0]}."


def _repeated_groups(rows: "pa.Table", group_by: Sequence[str]) -> str:
    groups = rows.group_by(list(group_by)).aggregate([([], "count_all")])
    repeated = groups.num_rows < rows.num_rows
    return f"{rows.num_rows - groups.num_rows:,} rows repeat a group." if repeated else ""


def _listed(finding: str, where: Sequence[str]) -> str:
    return f"{finding}: {'; '.join(where)}." if where else ""


def _different_totals(
    staged: StagedYear, counted: "Row", totals: Sequence[str], *, is_filtered: bool
) -> str:
    found = []
    if staged.rows.num_rows != counted[GROUPS]:
        found.append(f"There are {staged.rows.num_rows:,} groups, of {counted[GROUPS]:,}.")
    found += [
        f"The sum of {name} is {figure(staged_total)}, and {figure(counted[name])} was aggregated."
        for name in totals
        # NULL where the sums of the groups do not fit into one.
        if counted[name] is not None
        and not _is_float(counted[name])
        and (staged_total := total(staged.rows, name)) != counted[name]
    ]
    if staged.source_rows is not None:
        read, there = counted[ROWS], staged.source_rows
        if read > there or (read < there and not is_filtered):
            found.append(f"The table has {there:,} rows, and {read:,} were read.")
    return " ".join(found)


def _is_float(value: object) -> bool:
    """Whether the last digits of a sum hang on the order in which it was added up."""
    return isinstance(value, float)


def _repeated(rows: Iterable[dict[str, Any]]) -> str:
    counts = Counter(row["passenger_count"] for row in rows)
    repeated = sorted(str(group) for group, count in counts.items() if count > 1)
    return f"Passenger counts stand in several rows: {', '.join(repeated)}." if repeated else ""


def _without_trips(rows: Iterable[dict[str, Any]]) -> str:
    empty = [str(row["passenger_count"]) for row in rows if not row["trips"] or row["trips"] < 0]
    return f"Passenger counts without a trip: {', '.join(empty)}." if empty else ""


def _overflowed(groups: "Iterable[Row]") -> str:
    return " ".join(
        f"The sum of {column} for passenger count {group['passenger_count']} needs more than the "
        "38 digits of DECIMAL(38,9)."
        for group in groups
        for column in group["overflowed"]
    )


def _not_adding_up(
    staged: StagedYear, rows: Sequence[dict[str, Any]], groups: "Iterable[Row]"
) -> str:
    counted = list(groups)
    found = []
    trips, expected = sum(row["trips"] for row in rows), sum(row["trips"] for row in counted)
    if trips != expected:
        found.append(f"The groups have {trips:,} trips, and {expected:,} were counted.")
    fares, expected_fares = _total(rows), _total(counted)
    if fares != expected_fares:
        found.append(
            f"The groups have fares of {readable(fares)}, and {readable(expected_fares)} were "
            "counted."
        )
    read = expected + sum(excluded_trips(staged.audit).values())
    if staged.source_rows is not None and read != staged.source_rows:
        found.append(f"The table has {staged.source_rows:,} rows, and {read:,} were read.")
    return " ".join(found)


def _total(rows: "Iterable[dict[str, Any] | Row]") -> Decimal:
    """The sum of the fares; a group whose own sum overflowed is another check's finding."""
    return reduce(add, (row["total_fare"] or Decimal(0) for row in rows), Decimal(0))


def _outside(rows: Iterable[dict[str, Any]], groups: "dict[int, Row]") -> str:
    outside = [
        f"The mean {readable(row['avg_fare'])} of passenger count {row['passenger_count']} lies "
        f"outside of its fares, {readable(group['min_fare'])} to {readable(group['max_fare'])}."
        for row in rows
        if row["avg_fare"] is not None
        and (group := groups.get(row["passenger_count"]))
        and not group["min_fare"] <= row["avg_fare"] <= group["max_fare"]
    ]
    return " ".join(outside)


def _dominating(groups: "Iterable[Row]") -> str:
    return " ".join(
        f"One fare of {readable(group['max_fare'])} is {group['max_fare'] / total:.0%} of all "
        f"fares with passenger count {group['passenger_count']} ({group['trips']:,} trips)."
        for group in groups
        if group["trips"] >= DOMINATED_TRIPS
        and (total := group["total_fare"])
        and group["max_fare"] > total * DOMINATING_SHARE
    )
