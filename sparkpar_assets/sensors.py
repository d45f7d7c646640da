"""What starts when something has happened: tables changed, years were published, runs failed."""

import dagster as dg

from sparkpar_assets.alerts import describe_failure, post_alert
from sparkpar_assets.assets.fares import fare_by_passenger_count
from sparkpar_assets.io_managers.staging import ended_runs, remove_dead_staging
from sparkpar_assets.partitions import TAXI_YEARS
from sparkpar_assets.pending import pending_years
from sparkpar_assets.resources.bigquery import BigQueryTables
from sparkpar_assets.resources.environment import read_settings
from sparkpar_assets.resources.s3 import explained_errors, s3_client
from sparkpar_assets.settings import automation_is_on

STATUS = dg.DefaultSensorStatus("RUNNING" if automation_is_on() else "STOPPED")
SECONDS = 30
"""Between two looks, at least; a look is one free request for each year."""
SWEEP_SECONDS = 60
"""Between two looks at S3's staging, at least; a look is two listings."""


@dg.sensor(
    target=fare_by_passenger_count,
    minimum_interval_seconds=SECONDS,
    default_status=STATUS,
    description="Publishes the years whose table has changed, one run for each range of years.",
)
def changed_taxi_years(
    context: dg.SensorEvaluationContext, bigquery: BigQueryTables
) -> dg.SkipReason | list[dg.RunRequest]:
    """Publishes the years whose table has changed, one run for each range of adjacent years.

    A year stays on the list until it is published from the table as it is. A run that fails is not
    repeated for the same state of the table. If BigQuery does not answer, the tick fails, and the
    next one sees all that has changed by then.
    """
    found = pending_years(context.instance, bigquery, TAXI_YEARS.get_partition_keys())
    held = " ".join(f"{year}: {reason}" for year, reason in found.held.items())
    if held:
        context.log.warning(held)
    if not found.due:
        return dg.SkipReason(held or "Every table is published as it is.")
    return list(found.run_requests())


# Under the name that Dagster gives it where there is none. Assets say in their automation_condition
# when they are refreshed.
automation_conditions = dg.AutomationConditionSensorDefinition(
    name="default_automation_condition_sensor",
    target=dg.AssetSelection.all(),
    minimum_interval_seconds=SECONDS,
    default_status=STATUS,
    description="Refreshes assets by their automation condition: fare_trends after its years.",
)


@dg.run_failure_sensor(
    minimum_interval_seconds=SECONDS,
    default_status=STATUS,
    description="Posts each failed run to ALERT_WEBHOOK_URL, or logs it where that is not set.",
)
def run_failure_alert(context: dg.RunFailureSensorContext) -> None:
    """Posts each failed run to ALERT_WEBHOOK_URL: asset, partition, cause, link. Else logs it."""
    settings = read_settings()
    failure = describe_failure(
        context.dagster_run,
        context.failure_event,
        context.get_step_failure_events(),
        settings.dagster_ui_url,
    )
    if settings.alert_webhook_url is None:
        context.log.error(failure["text"])
    elif problem := post_alert(settings.alert_webhook_url, failure, settings):
        context.log.error(f"{problem} The failure: {failure['text']}")


@dg.sensor(minimum_interval_seconds=SWEEP_SECONDS, default_status=dg.DefaultSensorStatus.RUNNING)
def dead_staging(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Removes what killed runs left staged, with their unfinished uploads; on from the start.

    Every run that publishes does the same first. Where none follows, this is what cleans up.
    """
    settings = read_settings()
    if not settings.s3_bucket:
        return dg.SkipReason("S3_BUCKET is not set, so nothing is staged.")
    with explained_errors(settings):
        removed = remove_dead_staging(
            s3_client(settings),
            settings.s3_bucket,
            settings.s3_root,
            settings.staging_lease_seconds,
            context.log,
            ended_runs(context.instance),
        )
    if not removed:
        return dg.SkipReason("No dead run has left anything staged.")
    return dg.SkipReason(f"Removed what dead runs had left staged: {', '.join(removed)}")
