"""Putting a published version back, and telling Dagster of it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from sparkpar_assets.io_managers.history import PublishedVersions, Version, put_back
from sparkpar_assets.io_managers.published import version_name
from sparkpar_assets.metadata import LINEAGE_KEY, SCHEMA_KEY, preview, table_schema


def roll_back(
    instance: dg.DagsterInstance,
    published: PublishedVersions,
    chosen: Version,
    definition: Mapping[str, Any],
) -> str:
    """Put a version back, and log a materialization that says so; nothing if it is current.

    Args:
        instance: Where to log it.
        published: The versions of the year.
        chosen: One of them.
        definition: The metadata that the asset declares.

    Returns:
        What was done, in sentences.

    Raises:
        VersionError: The history has the version no more.
    """
    current, title = published.current, published.title
    if current and current.origin == chosen.origin:
        return f"{title} is at {published.short(chosen.name)} already: nothing to do."
    name = put_back(published, chosen)
    instance.report_runless_asset_event(
        _materialization(instance, published, chosen, name, definition)
    )
    before = f", from {published.short(current.name)}" if current else ""
    said = f"{title} is rolled back to {published.short(chosen.name)}{before}."
    now = version_name(published.dataset.published_metadata(published.year) or {})
    if now != name:
        return f"{said}\nMeanwhile {now} was published, which is what readers see now."
    return (
        f"{said}\nReaders see it at {published.uri}.\n"
        "The next run publishes over it: mend the source first."
    )


def _materialization(
    instance: dg.DagsterInstance,
    published: PublishedVersions,
    chosen: Version,
    name: str,
    definition: Mapping[str, Any],
) -> dg.AssetMaterialization:
    """What Dagster is told of a rollback.

    Its tags are those of the run that computed the version, if Dagster still has them: code version
    and data versions are then what they were, and the UI says what they lag behind.
    """
    key = dg.AssetKey(published.dataset.asset.split("/"))
    metadata: dict[str, Any] = {
        "rolled_back_from": published.current.name if published.current else None,
        "rolled_back_to": chosen.origin,
        "version": name,
        "original_run_id": chosen.run_id,
        "source_version": chosen.noted.get("source-version") or None,
        "dagster/uri": published.uri,
        LINEAGE_KEY: definition.get(LINEAGE_KEY),
    }
    if chosen.rows is not None:
        count_key = "dagster/partition_row_count" if published.year else "dagster/row_count"
        metadata |= {
            count_key: chosen.rows.num_rows,
            SCHEMA_KEY: table_schema(chosen.rows.schema, definition.get(SCHEMA_KEY)),
            "preview": preview(chosen.rows),
        }
    return dg.AssetMaterialization(
        asset_key=key,
        partition=published.year,
        description=f"Rolled back to the version {chosen.origin}.",
        metadata={name: value for name, value in metadata.items() if value is not None},
        tags=_tags_of_run(instance, key, published.year, chosen.run_id),
    )


def _tags_of_run(
    instance: dg.DagsterInstance, key: dg.AssetKey, year: str | None, run_id: str
) -> Mapping[str, str] | None:
    events = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[year] if year else None)
    records = instance.fetch_materializations(events, limit=1000).records
    return next(
        (
            record.asset_materialization.tags
            for record in records
            if record.run_id == run_id and record.asset_materialization
        ),
        None,
    )
