"""Putting a published version back, and telling Dagster of it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from sparkpar_assets.io_managers.history import PublishedVersions, Version, put_back
from sparkpar_assets.io_managers.materialization import (
    OF_ONE_PUBLICATION,
    of_changes,
    of_object,
    of_rows,
)
from sparkpar_assets.io_managers.published import version_name


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

    What is known of the rows, and the tags, are those of the run that computed the version, if
    Dagster still has them: code version and data versions are then what they were, and the UI says
    what they lag behind.
    """
    key = dg.AssetKey(published.dataset.asset.split("/"))
    original = _original(instance, key, published.year, chosen.run_id)
    current, rows = published.current, chosen.rows
    metadata: dict[str, Any] = {
        "rolled_back_from": current.name if current else None,
        "rolled_back_to": chosen.origin,
        "original_run_id": chosen.run_id,
        **(_of_the_rows(original) if original else {}),
        "dagster/uri": published.uri,
        **(of_object(published.dataset, published.year, rows) if rows is not None else {}),
        "version": name,
        "source_version": chosen.noted.get("source-version") or None,
        **(of_changes(current, rows, definition) if rows is not None else {}),
        **(of_rows(rows, definition) if rows is not None else {}),
    }
    return dg.AssetMaterialization(
        asset_key=key,
        partition=published.year,
        description=f"Rolled back to the version {chosen.origin}.",
        metadata={name: value for name, value in metadata.items() if value is not None},
        tags=original.tags if original else None,
    )


def _of_the_rows(original: dg.AssetMaterialization) -> dict[str, Any]:
    """What a materialization says of its rows, and not of their publication."""
    return {
        name: value
        for name, value in original.metadata.items()
        if not name.startswith(OF_ONE_PUBLICATION)
    }


def _original(
    instance: dg.DagsterInstance, key: dg.AssetKey, year: str | None, run_id: str
) -> dg.AssetMaterialization | None:
    """What the run logged that computed a version."""
    events = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[year] if year else None)
    records = instance.fetch_materializations(events, limit=1000).records
    return next((r.asset_materialization for r in records if r.run_id == run_id), None)
