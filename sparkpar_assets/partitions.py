"""The years."""

import dagster as dg

TAXI_YEARS = dg.TimeWindowPartitionsDefinition(start="2011", fmt="%Y", cron_schedule="0 0 1 1 *")
"""One partition a calendar year from 2011, the first of BigQuery's yellow-taxi tables, to the
last whole one. Without an end: a year that Dagster does not know fails with a stack trace."""
