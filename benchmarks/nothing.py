"""Assets that do nothing, with as many partitions as a backfill of years or days may have."""

import os

import dagster as dg

PARTITIONS = 10_000
METADATA_BYTES = "SPARKPAR_BACKFILL_METADATA_BYTES"
"""Names the variable that says how much metadata a partition's materialization gets."""
DAYS = dg.DailyPartitionsDefinition(start_date="1990-01-01", end_date="2017-05-19")
"""10,000 days."""


def publish_nothing(context: dg.AssetExecutionContext) -> None:
    """Give each partition of the run metadata, as a publication does."""
    metadata = {"preview": "x" * int(os.environ.get(METADATA_BYTES, "0"))}
    for partition in context.partition_keys:
        context.add_asset_metadata(metadata, partition_key=partition)


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def at_once(context: dg.AssetExecutionContext) -> None:
    """All partitions of a backfill in one run."""
    publish_nothing(context)


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.multi_run(1))
def one_by_one(context: dg.AssetExecutionContext) -> None:
    """One run for each partition of a backfill."""
    publish_nothing(context)


defs = dg.Definitions(assets=[at_once, one_by_one], executor=dg.in_process_executor)
