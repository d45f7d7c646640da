"""Fares by passenger count, a year each."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from sparkpar_assets.checks import FARE_CHECKS, check_specs, excluded_trips, validate_fares
from sparkpar_assets.io_managers.bigquery import SourceYears
from sparkpar_assets.io_managers.publication import Publication, StagedYear
from sparkpar_assets.io_managers.source import TAXI_TABLES, TableSource
from sparkpar_assets.metadata import (
    COMPARED_KEY,
    GROUP_BY_KEY,
    LINEAGE_KEY,
    SCHEMA_KEY,
    TOTALS_KEY,
    column_lineage,
    column_schema,
    with_sources,
)
from sparkpar_assets.partitions import TAXI_YEARS
from sparkpar_assets.spark_pool import POOL
from sparkpar_assets.transforms import fares

SCHEMA = column_schema(
    {
        "passenger_count": (
            "INT64",
            "Passengers, as the driver entered them; 0 is a group as well",
        ),
        "trips": ("INT64", "Trips with a passenger count and a fare above 0"),
        "total_fare": ("DECIMAL(38,9)", "Sum of the fares, US dollars"),
        "avg_fare": ("DECIMAL(38,9)", "Mean fare, US dollars, rounded half-up"),
        "median_fare": ("DECIMAL(38,9)", "Median fare, US dollars: one that occurred"),
        "p95_fare": (
            "DECIMAL(38,9)",
            "95th percentile of the fares, US dollars: one that occurred",
        ),
        "avg_tip": ("DECIMAL(38,9)", "Mean tip, US dollars, rounded half-up"),
        "avg_distance": ("DECIMAL(38,9)", "Mean distance, miles, rounded half-up"),
    }
)
TRIPS = TableSource(TAXI_TABLES, fares.TRIP_COLUMNS)

RULE = ("passenger_count", "fare_amount")
"""The columns that decide whether a trip is counted, and in which group."""

LINEAGE = column_lineage(
    SCHEMA,
    "yellow_taxi_trips",
    lambda column: {
        "avg_tip": (*RULE, "tip_amount"),
        "avg_distance": (*RULE, "trip_distance"),
    }.get(column, RULE),
)


@dg.asset(
    ins={"trips": TRIPS.as_input()},
    partitions_def=TAXI_YEARS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="s3_parquet",
    pool=POOL,
    check_specs=check_specs("fare_by_passenger_count", FARE_CHECKS),
    group_name="taxi_fares",
    kinds={"spark", "s3", "parquet"},
    owners=["team:data-engineering"],
    code_version="1",
    metadata={
        SCHEMA_KEY: with_sources(SCHEMA, LINEAGE),
        LINEAGE_KEY: LINEAGE,
        GROUP_BY_KEY: ["passenger_count"],
        TOTALS_KEY: ["trips", "total_fare"],
        COMPARED_KEY: ["avg_fare"],
    },
)
def fare_by_passenger_count(trips: SourceYears) -> Iterator[dg.Output[Publication] | Any]:
    """Trips, fares, tips and distances by passenger count, one Parquet object a year.

    Counted are the trips with a passenger count and a fare above 0. What is left out stands in the
    metadata, by rule. All amounts are exact.
    """
    counts = fares.count_by_fare(trips.rows)
    publication = Publication(
        rows=fares.fares_by_passenger_count(counts),
        order_by=["passenger_count"],
        source=trips,
        shared=counts,
        audit=fares.audit_fares(counts),
        validate=validate_fares,
        describe=_describe,
    )
    yield dg.Output(publication)
    yield from publication.check_results()


def _describe(staged: StagedYear) -> dict[str, Any]:
    excluded = excluded_trips(staged.audit)
    counted = sum(row["trips"] for row in staged.audit if row["excluded_by"] is None)
    return {
        "trips": counted,
        "rows_read": counted + sum(excluded.values()),
        "excluded_trips": sum(excluded.values()),
        "excluded_trips_by_rule": dg.MetadataValue.json(excluded),
    }
