"""Each check passes on rows as they should be, and fails on rows that are not."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from dagster import AssetCheckSeverity
from pyspark.sql import Row

from sparkpar_assets.checks import FARE_CHECKS, excluded_trips, validate_fares, validate_trends
from sparkpar_assets.io_managers.publication import Outcome, StagedYear

NUMERIC = pa.decimal128(38, 9)


def published(**changes: int | Decimal | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "passenger_count": 1,
        "trips": 2000,
        "total_fare": Decimal(20000),
        "avg_fare": Decimal(10),
        "median_fare": Decimal(9),
        "p95_fare": Decimal(30),
        "avg_tip": Decimal(1),
        "avg_distance": Decimal(2),
    }
    return row | changes


def audited(**changes: int | str | Decimal | list[str] | None) -> Row:
    row: dict[str, Any] = {
        "excluded_by": None,
        "passenger_count": 1,
        "trips": 2000,
        "total_fare": Decimal(20000),
        "min_fare": Decimal("2.50"),
        "max_fare": Decimal(200),
        "overflowed": [],
    }
    return Row(**(row | changes))


EXCLUDED = audited(excluded_by="no fare", passenger_count=None, trips=5, total_fare=None)


def validated(
    rows: list[dict[str, Any]], audit: list[Row], source_rows: int | None = None
) -> dict[str, Outcome]:
    schema = pa.schema(
        [("passenger_count", pa.int64()), ("trips", pa.int64())]
        + [(name, NUMERIC) for name in list(published())[2:]]
    )
    table = pa.Table.from_pylist(rows, schema=schema)
    return {o.check: o for o in validate_fares(StagedYear("2018", table, audit, source_rows))}


def failing(outcomes: dict[str, Outcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if not outcome.passed}


def test_rows_as_they_should_be_pass_every_check() -> None:
    outcomes = validated([published()], [audited(), EXCLUDED], source_rows=2005)
    assert failing(outcomes) == set()
    assert list(outcomes) == list(FARE_CHECKS)


@pytest.mark.parametrize(
    ("rows", "audit", "check", "words"),
    [
        ([published(), published()], [audited(trips=4000, total_fare=Decimal(40000))],
         "groups_are_unique", "Passenger counts stand in several rows: 1."),
        ([published(), published(passenger_count=2, trips=0, total_fare=Decimal(0))], [audited()],
         "every_group_has_trips", "Passenger counts without a trip: 2."),
        ([published(total_fare=None)], [audited(total_fare=None, overflowed=["fare_amount"])],
         "sums_are_exact", "The sum of fare_amount for passenger count 1 needs more than"),
        ([published()], [audited(trips=2001)],
         "totals_add_up", "The groups have 2,000 trips, and 2,001 were counted."),
        ([published()], [audited(total_fare=Decimal("20000.000000001"))],
         "totals_add_up", "The groups have fares of 20000.00, and 20000.000000001 were counted."),
        ([published(avg_fare=Decimal("200.000000001"))], [audited()],
         "means_lie_within_the_fares",
         "The mean 200.000000001 of passenger count 1 lies outside of its fares, 2.50 to 200.00."),
    ],
)  # fmt: skip
def test_each_check_names_what_is_wrong_and_refuses_the_year(
    rows: list[dict[str, Any]], audit: list[Row], check: str, words: str
) -> None:
    outcomes = validated(rows, audit)
    assert failing(outcomes) == {check}
    assert words in outcomes[check].sentence
    assert outcomes[check].refuses


def test_rows_that_bigquery_counts_and_nobody_read_refuse_the_year() -> None:
    outcome = validated([published()], [audited(), EXCLUDED], source_rows=2006)["totals_add_up"]
    assert outcome.refuses
    assert outcome.sentence == "The table has 2,006 rows, and 2,005 were read."


def test_totals_of_38_digits_are_compared_to_the_last_one() -> None:
    nearly = Decimal("9" * 29 + ".123456789")
    outcomes = validated(
        [published(total_fare=nearly)], [audited(total_fare=nearly - Decimal("1e-9"))]
    )
    assert failing(outcomes) == {"totals_add_up"}


def test_a_fare_of_over_1_percent_in_a_large_group_is_a_warning_that_names_it() -> None:
    broken = audited(max_fare=Decimal("429490.200000000"), total_fare=Decimal(1_500_000))
    outcome = validated([published(total_fare=Decimal(1_500_000))], [broken])["no_fare_dominates"]
    assert not outcome.passed
    assert not outcome.refuses
    assert outcome.severity == AssetCheckSeverity.WARN
    assert "429490.20 is 29% of all fares with passenger count 1" in outcome.sentence


@pytest.mark.parametrize(
    ("trips", "fare", "passed"),
    [(1000, "200", True), (1000, "200.000000001", False), (999, "10000", True)],
)
def test_the_warning_begins_above_1_percent_and_at_1000_trips(
    trips: int, fare: str, *, passed: bool
) -> None:
    group = audited(trips=trips, max_fare=Decimal(fare))
    outcome = validated([published(trips=trips)], [group])["no_fare_dominates"]
    assert outcome.passed == passed


def test_excluded_trips_are_counted_by_rule() -> None:
    assert excluded_trips([audited(), EXCLUDED]) == {"no fare": 5}


def test_years_that_s3_lacks_are_named_with_the_remedy() -> None:
    (outcome,) = validate_trends(["2018", "2019"], "fare_by_passenger_count")
    assert not outcome.passed
    assert outcome.severity == AssetCheckSeverity.WARN
    assert outcome.sentence == (
        "Materialized, but not in S3: 2018, 2019. "
        "Materialize fare_by_passenger_count for these again."
    )
    assert validate_trends([], "fare_by_passenger_count")[0].passed
