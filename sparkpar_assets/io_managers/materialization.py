"""What Dagster's materializations say of a published object, whoever published it."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import dagster as dg

from sparkpar_assets.comparison import (
    Change,
    NotComparableError,
    compare,
    difference,
    figure,
    largest_change,
    most_changed,
    total,
)
from sparkpar_assets.io_managers.history import Version, current_version
from sparkpar_assets.io_managers.published import PublishedDataset
from sparkpar_assets.metadata import (
    COMPARED_KEY,
    GROUP_BY_KEY,
    LINEAGE_KEY,
    SCHEMA_KEY,
    TOTALS_KEY,
    preview,
    table_schema,
)

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_CHANGES = 40
"""Lines of the table of changes: a screen of Dagster's UI. ``./run.sh diff`` shows all."""
COMPARED_ROWS = 20_000
"""More rows are not compared while they are published: so many took 2 s, with all values changed
in six columns."""
TOO_MANY = f"More than {COMPARED_ROWS:,} rows are compared by ./run.sh diff only."
OF_ONE_PUBLICATION = (
    "seconds_",
    "change_of_",
    "largest_change_of_",
    "groups_changed",
    "changes",
    "compared_with",
    "not_compared",
    "bytes_to_read",
    "estimate",
)
"""How the keys begin that tell of one publication, and not of the rows that it published."""
AWS = ".amazonaws.com"
NO_REGION = "aws-global"
"""The region of a botocore client that was given none."""


def of_object(dataset: PublishedDataset, year: str | None, rows: "pa.Table") -> dict[str, Any]:
    """Where a published object is, how to read it, and how many rows it has."""
    return {
        "dagster/uri": dataset.uri(year),
        "read_parquet": read_parquet(dataset, year),
        "dagster/partition_row_count" if year else "dagster/row_count": rows.num_rows,
    }


def of_rows(rows: "pa.Table", definition: Mapping[str, Any]) -> dict[str, Any]:
    """A preview of published rows, and their schema with the asset's descriptions and lineage.

    Args:
        rows: The rows.
        definition: The metadata that the asset declares.
    """
    lineage = definition.get(LINEAGE_KEY)
    return {
        "preview": preview(rows),
        SCHEMA_KEY: table_schema(rows.schema, definition.get(SCHEMA_KEY)),
        **({LINEAGE_KEY: lineage} if lineage else {}),
    }


def read_parquet(dataset: PublishedDataset, year: str | None) -> str:
    """One line of DuckDB's SQL that reads a published object; it holds no key.

    Where DuckDB would not look by itself, the server and the region are parameters of the URI
    (DuckDB's documentation, "S3 API Support", per-request configuration).
    """
    server = urlsplit(dataset.client.meta.endpoint_url)
    parameters: dict[str, str] = {}
    if not str(server.hostname).endswith(AWS):
        # Servers other than AWS's seldom answer at bucket.host.
        parameters |= {"s3_endpoint": server.netloc, "s3_url_style": "path"}
    if server.scheme == "http":
        parameters["s3_use_ssl"] = "false"
    if dataset.client.meta.region_name != NO_REGION:
        parameters["s3_region"] = dataset.client.meta.region_name
    query = f"?{urlencode(parameters, safe=':')}" if parameters else ""
    uri = (dataset.uri(year) + query).replace("'", "''")
    return f"FROM read_parquet('{uri}');"


def of_changes_from_published(
    dataset: PublishedDataset, year: str | None, rows: "pa.Table", definition: Mapping[str, Any]
) -> dict[str, Any]:
    """``of_changes`` from the object that rows are about to replace, read in one GET."""
    from botocore.exceptions import ClientError

    if rows.num_rows > COMPARED_ROWS:  # there is memory for these, and perhaps not for two such
        return {"not_compared": TOO_MANY}
    try:
        before = current_version(dataset, year)
    except ClientError as error:
        # S3 lets one replace what it does not let one read: an object in an archive class.
        code = error.response["Error"].get("Code", "")
        return {"not_compared": f"S3 answered {code} for the version published before."}
    return of_changes(before, rows, definition)


def of_changes(
    before: Version | None, rows: "pa.Table", definition: Mapping[str, Any]
) -> dict[str, Any]:
    """What rows change of the version before them: a table by group, and figures to plot.

    Args:
        before: That version; None where there is none.
        rows: The rows.
        definition: The metadata that the asset declares. Of the columns of ``TOTALS_KEY`` it is the
            change of the sum over all rows, of those of ``COMPARED_KEY`` the largest change that a
            group has; these columns come first where the table has not room for all.

    Returns:
        Nothing without a version before. Where it cannot be compared, a sentence that says why:
        no publication fails for what somebody else has published.
    """
    if before is None:
        return {}
    said: dict[str, Any] = {"compared_with": before.name}
    if before.rows is None:
        return said | {"not_compared": "The version published before is not a Parquet file."}
    if max(before.rows.num_rows, rows.num_rows) > COMPARED_ROWS:
        return said | {"not_compared": TOO_MANY}
    try:
        return said | _changes(before.rows, rows, definition)
    except NotComparableError as error:
        return said | {"not_compared": str(error)}
    except Exception as error:  # noqa: BLE001 — whatever it is, the rows to publish are sound
        return said | {"not_compared": f"The version published before is not comparable: {error!r}"}


def _changes(
    before: "pa.Table", after: "pa.Table", definition: Mapping[str, Any]
) -> dict[str, Any]:
    group_by, totals = definition.get(GROUP_BY_KEY, ()), definition.get(TOTALS_KEY, ())
    others = [name for name in after.column_names if name not in {*group_by, *totals}]
    columns = definition.get(COMPARED_KEY, others)
    found = {
        f"change_of_{name}": _plottable(
            difference(total(before, name), total(after, name)), after.schema.field(name).type
        )
        for name in totals
    }
    if group_by:
        compared = compare(before, after, group_by)
        found |= {
            f"largest_change_of_{name}": _plottable(
                largest_change(compared, name), after.schema.field(name).type
            )
            for name in columns
        }
        found["groups_changed"] = sum(compared.groups.values()) - compared.groups["same"]
        found |= _table(compared.changes, {*totals, *columns})
    return {name: value for name, value in found.items() if value is not None}


def _table(changes: Sequence[Change], first: Collection[str]) -> dict[str, Any]:
    if not changes:
        return {}
    shown = most_changed(changes, SHOWN_CHANGES, first)
    records = [
        dg.TableRecord(
            {
                "group": ", ".join(map(str, change.group)),
                "column": change.column,
                "before": figure(change.before),
                "after": figure(change.after),
                "change": figure(difference(change.before, change.after), "+"),
                "kind": change.kind,
            }
        )
        for change in shown
    ]
    left_out = len(changes) - len(shown)
    return {
        "changes": dg.MetadataValue.table(records),
        "changes_left_out": f"{left_out:,} smaller ones; ./run.sh diff shows them."
        if left_out
        else None,
    }


def _plottable(value: Any, kind: "pa.DataType") -> int | float | None:  # noqa: ANN401  # any number
    """A figure as Dagster plots it, of one type in all partitions; None for what is no number."""
    import pyarrow.types as types

    if value is None or not math.isfinite(value):
        return None
    if types.is_integer(kind):
        return int(value)
    return float(value) if types.is_decimal(kind) or types.is_floating(kind) else None
