"""``sparkpar_assets.components.BigQueryAggregation``: an analysis in one YAML file."""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster.components.scaffold.scaffold import ScaffoldRequest

from sparkpar_assets.checks import AGGREGATION_CHECKS, check_specs, validate_aggregation
from sparkpar_assets.components.attributes import AggregationAttributes, Years, as_json
from sparkpar_assets.cost import parse_size
from sparkpar_assets.io_managers.bigquery import SourceYears
from sparkpar_assets.io_managers.publication import Publication, StagedYear
from sparkpar_assets.io_managers.source import TableSource, table_key
from sparkpar_assets.metadata import (
    ANY,
    GROUP_BY_KEY,
    LINEAGE_KEY,
    PATH_KEY,
    SCHEMA_KEY,
    TOTALS_KEY,
    with_sources,
)
from sparkpar_assets.spark_pool import POOL
from sparkpar_assets.transforms import sql
from sparkpar_assets.transforms.aggregation import ROWS, Aggregation, aggregate

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pyspark.sql import Column

TEMPLATE = Path(__file__).parent / "template.yaml"


class AggregationScaffolder(dg.Scaffolder[Any]):
    """Writes the ``defs.yaml`` of a new analysis, to be filled in."""

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        """Write the file into the folder that ``dg scaffold defs`` was asked for."""
        request.target_path.mkdir(parents=True, exist_ok=True)
        text = TEMPLATE.read_text().replace("NAME", request.target_path.name)
        (request.target_path / "defs.yaml").write_text(text)


@dg.scaffold_with(AggregationScaffolder)
class BigQueryAggregation(dg.Component):
    """An aggregation over a BigQuery table, published as Parquet in S3."""

    def __init__(self, attributes: AggregationAttributes) -> None:
        self.attributes = attributes

    @classmethod
    def get_model_cls(cls) -> "type[BaseModel]":
        """What may stand under ``attributes``."""
        return AggregationAttributes

    @classmethod
    def load(
        cls,
        attributes: "BaseModel | None",
        context: dg.ComponentLoadContext,  # noqa: ARG003  # Dagster's signature
    ) -> "BigQueryAggregation":
        """The component of a file."""
        return cls(AggregationAttributes.model_validate(attributes or {}))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """The asset. That of its table is added when all analyses are there, which may share it."""
        return dg.Definitions(assets=[aggregation_asset(self.attributes)])


def aggregation_asset(attributes: AggregationAttributes) -> dg.AssetsDefinition:
    """The asset that an analysis describes.

    Args:
        attributes: The analysis.
    """
    query = aggregation(attributes)
    source = table_source(attributes, query)
    lineage = declared_lineage(attributes, query)

    @dg.asset(
        name=attributes.asset,
        description=attributes.description,
        ins={"source": source.as_input()},
        partitions_def=yearly_partitions(attributes.years) if attributes.years else None,
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="s3_parquet",
        pool=POOL,
        check_specs=check_specs(attributes.asset, AGGREGATION_CHECKS),
        group_name=attributes.group,
        kinds={"spark", "s3", "parquet"},
        owners=attributes.owners,
        code_version=_code_version(attributes),
        metadata={
            SCHEMA_KEY: with_sources(declared_schema(query), lineage),
            LINEAGE_KEY: lineage,
            GROUP_BY_KEY: list(query.group_by),
            TOTALS_KEY: list(query.totals),
            PATH_KEY: attributes.path or attributes.asset,
        },
    )
    def analysis(source: SourceYears) -> Iterator[dg.Output[Publication] | Any]:
        publication = _publication(attributes, query, source)
        yield dg.Output(publication)
        yield from publication.check_results()

    return analysis


def aggregation(attributes: AggregationAttributes) -> Aggregation:
    """The groups and metrics of an analysis."""
    from sqlglot import exp

    metrics = {name: sql.parse_metric(text) for name, text in attributes.metrics.items()}
    return Aggregation(
        group_by=dict(map(sql.parse_group, attributes.group_by)),
        metrics=metrics,
        totals=[
            name
            for name, tree in metrics.items()
            if isinstance(tree, exp.Count | exp.Sum | exp.CountIf) and not tree.find(exp.Distinct)
        ],
    )


def table_source(attributes: AggregationAttributes, query: Aggregation) -> TableSource:
    """What an analysis reads."""
    where = sql.parse_row(attributes.where) if attributes.where else None
    trees = [*query.group_by.values(), *query.metrics.values(), *filter(None, [where])]
    columns = [name for tree in trees for name in sql.columns_of(tree)]
    columns += [attributes.year_column] if attributes.year_column else []
    limit = attributes.max_bytes_read
    return TableSource(
        table=attributes.table,
        columns=dict.fromkeys(columns),
        where=sql.sql_of(where) if where else None,
        year_column=attributes.year_column,
        max_bytes_read=parse_size(limit) if limit is not None else None,
    )


def yearly_partitions(years: Years) -> dg.TimeWindowPartitionsDefinition:
    """One partition for each of the years that is over."""
    return dg.TimeWindowPartitionsDefinition(
        start=str(years.start),
        end=str(years.end + 1) if years.end else None,
        fmt="%Y",
        cron_schedule="0 0 1 1 *",
    )


def declared_schema(query: Aggregation) -> dg.TableSchema:
    """The published columns; the types are the table's to say, but for those that are known."""
    from sqlglot import exp

    def kind(tree: Any) -> str:  # noqa: ANN401  # sqlglot's classes
        return "INT64" if isinstance(tree, exp.Count | exp.CountIf) else ANY

    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, kind(tree), description=tree.sql(dialect="spark"))
            for name, tree in [*query.group_by.items(), *query.metrics.items()]
        ]
    )


def declared_lineage(
    attributes: AggregationAttributes, query: Aggregation
) -> dg.TableColumnLineage:
    """Of each column those that it is computed from, or that decide which rows count for it."""
    where = [sql.parse_row(attributes.where)] if attributes.where else []
    deciding = [attributes.year_column] if attributes.year_column else []
    deciding += [
        name for tree in [*query.group_by.values(), *where] for name in sql.columns_of(tree)
    ]
    key = table_key(attributes.table)
    return dg.TableColumnLineage(
        {
            name: [
                dg.TableColumnDep(key, column)
                for column in dict.fromkeys([*sql.columns_of(tree), *deciding])
            ]
            for name, tree in [*query.group_by.items(), *query.metrics.items()]
        }
    )


def _publication(
    attributes: AggregationAttributes, query: Aggregation, source: SourceYears
) -> Publication:
    try:
        result = aggregate(source.rows, query, ["year"] if attributes.years else [])
    except sql.SqlError as error:
        raise dg.Failure(
            f"The analysis {attributes.asset} does not go with its table. {error}",
            allow_retries=False,
        ) from None
    return Publication(
        rows=result.rows,
        order_by=_order(attributes, query),
        source=source,
        shared=result.shared,
        audit=result.audit,
        validate=partial(
            validate_aggregation,
            group_by=list(query.group_by),
            totals=query.totals,
            is_filtered=source.is_filtered,
        ),
        describe=_describe,
    )


def _order(attributes: AggregationAttributes, query: Aggregation) -> "list[Column]":
    """What the rows are sorted by; in the end by their group, so that none are on a par."""
    from pyspark.sql import functions as F  # noqa: N812  # its name in PySpark's documentation

    columns = []
    for name, descends, nulls_first in map(sql.parse_order, attributes.order_by):
        column = F.col(name)
        if descends:
            columns.append(column.desc_nulls_first() if nulls_first else column.desc_nulls_last())
        else:
            columns.append(column.asc_nulls_first() if nulls_first else column.asc_nulls_last())
    return [*columns, *map(F.col, query.group_by)]


def _describe(staged: StagedYear) -> dict[str, Any]:
    (counted,) = staged.audit
    described = {"rows_read": counted[ROWS]}
    if staged.source_rows is not None:
        described["rows_left_out"] = staged.source_rows - counted[ROWS]
    return described


def _code_version(attributes: AggregationAttributes) -> str:
    """Changes with whatever decides on the published rows."""
    text = json.dumps(as_json(attributes), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
