"""Fares over the years."""

from collections.abc import Iterator
from datetime import timedelta
from operator import itemgetter
from typing import Any

import dagster as dg

from sparkpar_assets.checks import TREND_CHECKS, check_specs, validate_trends
from sparkpar_assets.io_managers.publication import Publication, StagedYear
from sparkpar_assets.io_managers.s3_parquet import PublishedYears
from sparkpar_assets.metadata import (
    COMPARED_KEY,
    GROUP_BY_KEY,
    LINEAGE_KEY,
    SCHEMA_KEY,
    TOTALS_KEY,
    column_lineage,
    column_schema,
    line_chart,
    with_sources,
)
from sparkpar_assets.spark_pool import POOL
from sparkpar_assets.transforms import trends

CHARTED_TRIPS = 100
"""Of fewer trips a mean is chance: seven passengers paid 7.50 in 2018 and 68.00 in 2019."""

SCHEMA = column_schema(
    {
        "year": ("INT32", "Year of the trips"),
        "passenger_count": ("INT64", "Passengers, as the driver entered them"),
        "trips": ("INT64", "Trips counted"),
        "share_of_trips": ("DECIMAL(38,9)", "Share of the year's trips, 0 to 1, rounded half-up"),
        "avg_fare": ("DECIMAL(38,9)", "Mean fare, US dollars"),
        "median_fare": ("DECIMAL(38,9)", "Median fare, US dollars"),
        "change_in_avg_fare": (
            "DECIMAL(38,9)",
            "Mean fare less that of the year before, US dollars; NULL where that is not published",
        ),
    }
)


LINEAGE = column_lineage(
    SCHEMA,
    "fare_by_passenger_count",
    lambda column: {
        "share_of_trips": ("year", "trips"),
        "change_in_avg_fare": ("year", "passenger_count", "avg_fare"),
    }.get(column, (column,)),
)

_PUBLISHED = dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing())
_NEVER_REFRESHED = (dg.AutomationCondition.missing() & _PUBLISHED).newly_true()
REFRESH = (
    (dg.AutomationCondition.any_deps_updated() | _NEVER_REFRESHED).since(
        dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    )
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("a_year_was_published")
"""When a year was published and no run is publishing one any more: once after several.

``eager`` would wait for the years that will never have a table, and overlook what is there when it
is turned on.
"""

FRESHNESS = dg.FreshnessPolicy.cron(deadline_cron="0 0 1 2 *", lower_bound_delta=timedelta(days=17))
"""By 1 February the trends have the year before, which ``yearly_fares`` publishes on 15 January."""


@dg.asset(
    ins={"fares": dg.AssetIn("fare_by_passenger_count")},
    # Runs with ranges of years of the asset above take this one along only with the same policy.
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="s3_parquet",
    pool=POOL,
    automation_condition=REFRESH,
    freshness_policy=FRESHNESS,
    check_specs=check_specs("fare_trends", TREND_CHECKS),
    group_name="taxi_fares",
    kinds={"spark", "s3", "parquet"},
    owners=["team:data-engineering"],
    code_version="1",
    metadata={
        SCHEMA_KEY: with_sources(SCHEMA, LINEAGE),
        LINEAGE_KEY: LINEAGE,
        GROUP_BY_KEY: ["year", "passenger_count"],
        TOTALS_KEY: ["trips"],
        COMPARED_KEY: ["avg_fare"],
    },
)
def fare_trends(fares: PublishedYears) -> Iterator[dg.Output[Publication] | Any]:
    """Each group's share of the trips and the change of its mean fare, over all published years."""
    publication = Publication(
        rows=trends.fare_trends(fares.rows),
        order_by=["year", "passenger_count"],
        validate=lambda _staged: validate_trends(fares.missing, "fare_by_passenger_count"),
        describe=_describe,
    )
    yield dg.Output(publication)
    yield from publication.check_results()


def _describe(staged: StagedYear) -> dict[str, Any]:
    rows = staged.rows.to_pylist()
    series: dict[str, dict[int, float]] = {}
    for row in sorted(rows, key=itemgetter("passenger_count")):
        if row["trips"] >= CHARTED_TRIPS:
            name = f"{row['passenger_count']} passenger{'' if row['passenger_count'] == 1 else 's'}"
            series.setdefault(name, {})[row["year"]] = float(row["avg_fare"])
    title = f"Mean fare by passenger count (groups of {CHARTED_TRIPS} trips or more)"
    return {
        "years": ", ".join(map(str, sorted({row["year"] for row in rows}))),
        "mean_fares": line_chart(title, "US dollars", series),
    }
