"""What starts by the calendar."""

import dagster as dg

from sparkpar_assets.assets.fares import fare_by_passenger_count
from sparkpar_assets.assets.trips import yellow_taxi_trips
from sparkpar_assets.partitions import TAXI_YEARS
from sparkpar_assets.pending import pending_years
from sparkpar_assets.resources.bigquery import BigQueryTables
from sparkpar_assets.settings import automation_is_on

STATUS = dg.DefaultScheduleStatus("RUNNING" if automation_is_on() else "STOPPED")

observe_taxi_tables = dg.ScheduleDefinition(
    name="observe_taxi_tables",
    target=yellow_taxi_trips,
    cron_schedule="0 5 * * *",
    execution_timezone="UTC",
    default_status=STATUS,
    description="Looks at the tables of all years each day at 5 h UTC, by their free metadata.",
)


@dg.schedule(
    target=fare_by_passenger_count,
    cron_schedule="0 6 15 1 *",
    execution_timezone="UTC",
    default_status=STATUS,
    description="Publishes the fares of the year before, on 15 January at 6 h UTC.",
)
def yearly_fares(
    context: dg.ScheduleEvaluationContext, bigquery: BigQueryTables
) -> dg.SkipReason | list[dg.RunRequest]:
    """Publishes the fares of the year before, on 15 January at 6 h UTC.

    Skips, with the reason, while there is no table of that year, or if another run was faster. If
    BigQuery does not answer, the tick fails; ``changed_taxi_years`` finds the year all the same.
    """
    year = str(context.scheduled_execution_time.year - 1)
    if year not in TAXI_YEARS.get_partition_keys():
        return dg.SkipReason(f"{year}: not a year that is published here.")
    found = pending_years(context.instance, bigquery, [year])
    if not found.due:
        return dg.SkipReason(f"{year}: {found.reasons[year]}")
    return list(found.run_requests())
