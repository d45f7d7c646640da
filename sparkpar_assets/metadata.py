"""Metadata in the forms that Dagster's UI shows: schemas, previews, plots."""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_KEY = "dagster/column_schema"
LINEAGE_KEY = "dagster/column_lineage"
GROUP_BY_KEY = "group_by"
"""Names the columns that tell an asset's rows apart."""
TOTALS_KEY = "totals"
"""Names the columns whose sum over all rows has a meaning: counts and sums, not means."""
PATH_KEY = "path"
"""Names the folder under S3_PREFIX that an asset is published in, if it is not the asset's name."""
ANY = "ANY"
"""Stands for a declared column's type that follows from the table that is read."""
COMPARED_KEY = "compared"
"""Names the further columns whose change from the version before is shown; without it, all are."""
PREVIEW_ROWS = 20
CHART_INCHES = (8, 4.2)
CHART_DPI = 110


def column_schema(columns: Mapping[str, tuple[str, str]]) -> dg.TableSchema:
    """A schema from types and descriptions by column name."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=name, type=kind, description=description)
            for name, (kind, description) in columns.items()
        ]
    )


def column_lineage(
    schema: dg.TableSchema, upstream: str, sources: Callable[[str], Iterable[str]]
) -> dg.TableColumnLineage:
    """Which of an upstream asset's columns each column of a schema is computed from."""
    return dg.TableColumnLineage(
        {
            column.name: [
                dg.TableColumnDep(dg.AssetKey(upstream), source) for source in sources(column.name)
            ]
            for column in schema.columns
        }
    )


def table_schema(schema: "pa.Schema", declared: dg.TableSchema | None = None) -> dg.TableSchema:
    """The schema that a Parquet file has, with the descriptions of the declared one."""
    descriptions = (
        {column.name: column.description for column in declared.columns} if declared else {}
    )
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=field.name, type=sql_type(field.type), description=descriptions.get(field.name)
            )
            for field in schema
        ]
    )


def with_sources(schema: dg.TableSchema, lineage: dg.TableColumnLineage) -> dg.TableSchema:
    """A schema whose descriptions end with the columns that each column is computed from.

    Dagster's web interface has a view for column lineage in its paid edition alone.
    """
    columns = []
    for column in schema.columns:
        sources = _sources(lineage.deps_by_column.get(column.name, ()))
        description = " ".join([column.description or "", *sources]).strip()
        columns.append(dg.TableColumn(column.name, column.type, description))
    return dg.TableSchema(columns)


def _sources(deps: Iterable[dg.TableColumnDep]) -> list[str]:
    """In brackets, the columns of each asset."""
    by_asset: dict[str, list[str]] = {}
    for dep in deps:
        by_asset.setdefault(dep.asset_key.to_user_string(), []).append(dep.column_name)
    return [f"(from {asset}: {', '.join(columns)})" for asset, columns in by_asset.items()]


def sql_type(kind: "pa.DataType") -> str:
    """The SQL name of an Arrow type: INT64, DECIMAL(38,9), STRING, …."""
    import pyarrow.types as types

    if types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    names = {"double": "FLOAT64", "float": "FLOAT32", "bool": "BOOL", "date32[day]": "DATE"}
    text = str(kind)
    return names.get(text, "TIMESTAMP" if text.startswith("timestamp") else text.upper())


def same_columns(expected: dg.TableSchema, found: dg.TableSchema) -> str:
    """A sentence on where ``found`` differs from ``expected``; empty where it does not.

    A type ``ANY`` that is expected is that which is found.
    """
    want = {column.name: column.type for column in expected.columns}
    have = {column.name: column.type for column in found.columns}
    parts = [f"lacks {name} {kind}" for name, kind in want.items() if name not in have]
    parts += [f"has {name} {kind} besides" for name, kind in have.items() if name not in want]
    parts += [
        f"has {name} as {have[name]} where {kind} is declared"
        for name, kind in want.items()
        if name in have and kind not in (ANY, have[name])
    ]
    if not parts and list(want) != list(have):
        parts.append("has its columns in another order")
    return f"It {' and '.join(parts)}." if parts else ""


def preview(rows: "pa.Table") -> dg.TableMetadataValue:
    """The first rows, as a table; decimals as text, so that no digit is lost."""
    columns = [dg.TableColumn(field.name, sql_type(field.type)) for field in rows.schema]
    return dg.MetadataValue.table(
        [
            dg.TableRecord({name: _plain(value) for name, value in row.items()})
            for row in rows.slice(0, PREVIEW_ROWS).to_pylist()
        ],
        schema=dg.TableSchema(columns=columns),
    )


def _plain(value: object) -> str | int | float | bool | None:
    if isinstance(value, Decimal):
        return readable(value)
    return value if value is None or isinstance(value, int | float | bool) else str(value)


def readable(amount: Decimal) -> str:
    """An amount with all its digits, at least two after the point, and no more zeros: 429490.20."""
    whole, _, fraction = f"{amount:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def line_chart(
    title: str, unit: str, series: Mapping[str, Mapping[int, float]]
) -> dg.MarkdownMetadataValue:
    """A chart of one line a series over the years, as an image that Dagster's UI shows.

    Args:
        title: Stands above the chart.
        unit: Stands at the vertical axis.
        series: Values by year by the series' name; where years are missing, the line is broken.
    """
    import base64
    import io
    import math

    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=CHART_INCHES, dpi=CHART_DPI, layout="constrained")
    axes: Any = figure.subplots()
    for name, values in series.items():
        years = range(min(values), max(values) + 1)
        axes.plot(years, [values.get(year, math.nan) for year in years], "o-", label=name)
    axes.set_title(title)
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if series:  # there is none of groups that are all too small
        years_of_all = [year for values in series.values() for year in values]
        # matplotlib's own margin around a lone year is a century.
        axes.set_xlim(min(years_of_all) - 0.5, max(years_of_all) + 0.5)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    encoded = base64.b64encode(image.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")
