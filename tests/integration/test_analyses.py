"""Analyses as YAML describes them, on the real BigQuery, S3 and Spark of the embedded stack."""

import importlib
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from sparkpar_assets.components.aggregation import aggregation_asset
from sparkpar_assets.components.attributes import AggregationAttributes
from sparkpar_assets.components.loading import tables_of
from sparkpar_assets.embedded import tables
from sparkpar_assets.embedded.samples import SAMPLES
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.io_managers.bigquery import SourceYears
from sparkpar_assets.io_managers.publication import Publication
from sparkpar_assets.io_managers.source import TableSource
from tests.expected import half_up
from tests.integration.warm_spark import end_warm_session, run_on_warm_session
from tests.integration.workbench import Workbench, new_workbench
from tests.unit.readmes import analysis_in_python

NUMERIC = pa.decimal128(38, 9)
FIRST_YEAR, LAST_YEAR = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
Analyse = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(scope="module")
def bench(embedded_stack: EmbeddedStack) -> Iterator[Workbench]:
    """A workbench whose environment this process has, and a Spark session that all runs share."""
    with (
        new_workbench(embedded_stack, "analyses") as bench,
        pytest.MonkeyPatch.context() as patch,
    ):
        bench.configure(SPARK_MASTER_URL="local[1]", SPARK_EVENT_LOG_DIR="")
        for name, value in bench.env.items():
            patch.setenv(name, value)
        yield bench
    end_warm_session()


def table_name(bench: Workbench, name: str) -> str:
    return f"bigquery-public-data.{bench.name}.{name}"


def load(bench: Workbench, name: str, rows: pa.Table | Path) -> str:
    """Create a table; returns its name."""
    file = rows if isinstance(rows, Path) else bench.folder / f"{name}.parquet"
    if isinstance(rows, pa.Table):
        pq.write_table(rows, file)
    bench.stack.load(table_name(bench, name), file)
    return table_name(bench, name)


def analyse(
    bench: Workbench, text: str, *years: int, **changed: object
) -> dg.ExecuteInProcessResult:
    """Materialize the analysis that a YAML text describes, for a year or the range of two."""
    attributes = AggregationAttributes.model_validate(yaml.safe_load(text) | changed)
    asset = aggregation_asset(attributes)
    tags = {FIRST_YEAR: str(years[0]), LAST_YEAR: str(years[-1])} if years else {}
    return run_on_warm_session(bench, attributes.asset, tags, assets=[asset, *tables_of([asset])])


def failure(run: dg.ExecuteInProcessResult) -> str:
    """What a failed run says, in one line."""
    assert not run.success
    (event,) = [event for event in run.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data is not None, event.step_failure_data.error
    return str(data.description)


def said(bench: Workbench, asset: str, year: int | None = None) -> dict[str, Any]:
    """The metadata of the last materialization."""
    found = [r for r in bench.materializations(asset) if r.partition_key == (year and str(year))]
    materialization = found[-1].asset_materialization
    assert materialization
    return {name: value.value for name, value in materialization.metadata.items()}


def rounded(amount: Decimal, count: Decimal | int = 1) -> Decimal:
    """An exact quotient, at the 9th digit."""
    found = half_up(amount, count)  # type: ignore[arg-type]  # any divisor but 0
    assert found is not None
    return found


def query(sql: str, file: Path) -> list[tuple[Any, ...]]:
    """What DuckDB answers about a Parquet file, which is called {file} in the query."""
    return duckdb.connect().execute(sql.replace("{file}", f"'{file}'")).fetchall()


def rows_of(bench: Workbench, year: int | None, path: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in bench.published(year, path).to_pylist()]


def test_the_original_example_is_published_under_its_own_path(bench: Workbench) -> None:
    """Groups by category, the mean value of each, descending; without partitions."""
    values = ["1.5", "2.25", "7", "0.333333333", "0.333333334", "-4", None, "100"]
    categories = ["a", "a", "b", "c", "c", None, "d", None]
    events = pa.table(
        {
            "category": pa.array(categories),
            "value": pa.array([value and Decimal(value) for value in values], NUMERIC),
        }
    )
    text = f"""
        asset: custom_analytics
        table: {load(bench, "events", events)}
        path: custom-analytics
        group_by: [category]
        metrics: {{avg_value: avg(value)}}
        order_by: [avg_value DESC]
    """
    assert analyse(bench, text).success
    sums = query(
        "SELECT category, sum(value), count(value) FROM {file} GROUP BY 1",
        bench.folder / "events.parquet",
    )
    means = [(group, half_up(total, n) if n else None) for group, total, n in sums]
    published = rows_of(bench, None, "custom-analytics")
    assert set(published) == set(means)
    assert [mean for _, mean in published] == [
        *sorted((mean for _, mean in means if mean is not None), reverse=True),
        None,
    ]
    shown = said(bench, "custom_analytics")
    assert shown["rows_read"] == 8
    assert shown["dagster/uri"].endswith("/custom-analytics/data.parquet")
    types = {column.name: column.type for column in shown["dagster/column_schema"].columns}
    assert types == {"category": "STRING", "avg_value": "DECIMAL(38,9)"}


def test_years_of_tables_are_the_same_as_duckdbs_to_the_last_digit(bench: Workbench) -> None:
    """The README's analysis, on real trips."""
    samples = {year: SAMPLES / f"tlc_yellow_trips_{year}.parquet" for year in (2018, 2019)}
    for year, file in samples.items():
        load(bench, f"trips_{year}", file)
    text = f"""
        asset: zone_tips
        table: {table_name(bench, "trips_{year}")}
        years: {{start: 2011}}
        where: fare_amount > 0 AND pickup_location_id IS NOT NULL
        group_by: [pickup_location_id]
        metrics:
          trips: count(*)
          avg_tip: avg(tip_amount)
          tip_share: sum(tip_amount) / sum(fare_amount)
          fare_and_tip: sum(fare_amount + tip_amount)
          squared: sum(fare_amount * fare_amount)
        order_by: [avg_tip DESC]
        max_bytes_read: 20 GB
    """
    assert analyse(bench, text, 2018, 2019).success
    for year, file in samples.items():
        groups = query(
            "SELECT pickup_location_id, count(*), count(tip_amount), sum(tip_amount), "
            "sum(fare_amount), list(fare_amount) FROM {file} "
            "WHERE fare_amount > 0 AND pickup_location_id IS NOT NULL GROUP BY 1",
            file,
        )
        expected = [
            (
                zone,
                trips,
                rounded(tips, n),
                rounded(tips, fares),
                fares + tips,
                sum(map(rounded, (fare * fare for fare in each))),
            )
            for zone, trips, n, tips, fares, each in groups
        ]
        expected.sort(key=lambda row: (-row[2], row[0]))
        assert rows_of(bench, year, "zone_tips") == expected
        shown = said(bench, "zone_tips", year)
        (there,) = query("SELECT count(*) FROM {file}", file)[0]
        counted = sum(row[1] for row in expected)
        assert (shown["rows_read"], shown["rows_left_out"]) == (counted, there - counted)


INSTANTS = [
    datetime(2017, 12, 31, 23, 59, 59, 999_999),  # of both kinds
    datetime(2018, 1, 1),
    datetime(2018, 12, 31, 23, 59, 59, 999_999),
    datetime(2019, 1, 1),
    datetime(2019, 6, 1, 12),
]


def test_the_readmes_analysis_in_python_is_published_as_duckdb_computes_it(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = analysis_in_python()
    table = "bigquery-public-data.new_york_taxi_trips.tlc_yellow_trips_"
    assert table in example
    (tmp_path / "tips_example.py").write_text(example.replace(table, table_name(bench, "paid_")))
    monkeypatch.syspath_prepend(tmp_path)
    asset = importlib.import_module("tips_example").tips_by_payment_type
    for year in (2018, 2019):
        load(bench, f"paid_{year}", SAMPLES / f"tlc_yellow_trips_{year}.parquet")
    tags = {FIRST_YEAR: "2018", LAST_YEAR: "2019"}
    name = "tips_by_payment_type"
    assert run_on_warm_session(bench, name, tags, assets=[asset, *tables_of([asset])]).success
    for year in (2018, 2019):
        sums = query(
            "SELECT payment_type, count(*), sum(tip_amount), count(tip_amount) FROM {file} "
            "WHERE fare_amount > 0 GROUP BY 1 ORDER BY 1",
            SAMPLES / f"tlc_yellow_trips_{year}.parquet",
        )
        expected = [(kind, n, total, half_up(total, tips)) for kind, n, total, tips in sums]
        assert rows_of(bench, year, name) == expected
    assert said(bench, name, 2019)["bytes_to_read"] > 0


def test_rows_whose_audit_cannot_be_computed_are_not_published(bench: Workbench) -> None:
    kinds = pa.table({"kind": pa.array(["a", "b", "b"])})
    source = TableSource(load(bench, "unaudited", kinds), {"kind": "STRING"})

    @dg.asset(ins={"source": source.as_input()}, io_manager_key="s3_parquet")
    def audited(source: SourceYears) -> Publication:
        rows = source.rows.groupBy("kind").count()
        return Publication(rows, source=source, audit=rows.selectExpr("1 / (count - 2) AS share"))

    run = run_on_warm_session(bench, "audited", assets=[audited, *tables_of([audited])])
    assert "Spark cannot compute audited: Division by zero." in failure(run)
    assert bench.keys("audited/") == bench.keys("_staging/") == []


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("timestamp", pa.array([one.replace(tzinfo=UTC) for one in INSTANTS])),
        ("datetime", pa.array(INSTANTS, pa.timestamp("us"))),
        ("date", pa.array([one.date() for one in INSTANTS])),
    ],
)
def test_a_year_of_a_year_column_begins_and_ends_at_midnight_in_utc(
    bench: Workbench, kind: str, values: pa.Array
) -> None:
    rows = pa.table({"at": values, "amount": pa.array([1, 2, 4, 8, 16])})
    text = f"""
        asset: by_{kind}
        table: {load(bench, f"all_years_{kind}", rows)}
        year_column: at
        years: {{start: 2017, end: 2019}}
        group_by: [year(at) AS its_year]
        metrics: {{total: sum(amount)}}
    """
    assert analyse(bench, text, 2017, 2019).success
    found = {year: rows_of(bench, year, f"by_{kind}") for year in (2017, 2018, 2019)}
    assert found == {2017: [(2017, 1)], 2018: [(2018, 6)], 2019: [(2019, 24)]}
    refused = analyse(bench, text, 2017, 2019, where="amount < 20 AND amount <> 1")
    assert "Not published: 2017. 2017: no row is left" in failure(refused)
    assert rows_of(bench, 2017, f"by_{kind}") == [(2017, 1)]


def test_a_year_whose_sum_overflows_keeps_what_it_has_and_names_metric_and_group(
    bench: Workbench,
) -> None:
    largest = Decimal("9" * 29)
    for year, amounts in {2018: [largest, largest], 2019: [Decimal(1), Decimal(2)]}.items():
        load(
            bench,
            f"large_{year}",
            pa.table({"kind": ["x", "x"], "amount": pa.array(amounts, NUMERIC)}),
        )
    text = f"""
        asset: large
        table: {table_name(bench, "large_{year}")}
        years: {{start: 2018}}
        group_by: [kind]
        metrics: {{total: sum(amount)}}
    """
    message = failure(analyse(bench, text, 2018, 2019))
    assert "2018: A sum needs more digits than its type has: total of kind x." in message
    assert rows_of(bench, 2019, "large") == [("x", Decimal(3))]
    assert "year=2018" not in str(bench.keys("large/"))


def test_a_condition_keeps_as_many_digits_as_a_group(bench: Workbench) -> None:
    """Spark's own product of the two has 6 after the point: 0."""
    amounts = {"a": [Decimal("0.001")], "b": [Decimal("0.0004")]}
    rows = pa.table({name: pa.array(one, NUMERIC) for name, one in amounts.items()})
    text = f"""
        asset: small
        table: {load(bench, "small", rows)}
        where: a * b > 0
        group_by: [a * b AS product]
        metrics: {{n: count(*)}}
    """
    assert analyse(bench, text).success
    assert rows_of(bench, None, "small") == [(Decimal("0.0000004"), 1)]


EXAMPLE = pa.table(
    {
        "word": ["1", "zwei"],
        "zero": pa.array([0, 0]),
        "amount": pa.array([Decimal(1), Decimal(2)], NUMERIC),
        "list": pa.array([[1], [2]]),
        "record": pa.array([{"a": 1}, {"a": 2}]),
        "clock": pa.array([time(1), time(2)]),
        "day": pa.array([date(2018, 1, 1)] * 2),
    }
)


@pytest.mark.parametrize(
    ("changed", "sentences"),
    [
        ({"metrics": {"m": "avg(word)"}}, "The metric m: AVG(`word`) is asked of a value of type"),
        ({"metrics": {"m": "sum(day)"}}, "Take a column of numbers, or cast it."),
        ({"metrics": {"m": "sum(missing)"}}, " has no column missing. Mend the table"),
        ({"group_by": ["list"]}, " has list as INT64 REPEATED where BOOL, BYTES, DATE, DATETIME, "),
        ({"group_by": ["record"]}, " has record as STRUCT where "),
        ({"group_by": ["clock"]}, " has clock as TIME where "),
        ({"table": "bigquery-public-data.nowhere.table"}, "nowhere.table does not exist. Mend the"),
        ({"metrics": {"m": "sum(cast(word AS INT))"}}, "'zwei' of the type \"STRING\" cannot be"),
        ({"metrics": {"m": "sum(amount / zero)"}}, "Division by zero."),
        ({"metrics": {"m": "sum(abs(day))"}}, "The metric m: Cannot resolve"),
        ({"where": "abs(day) > 0"}, "The condition where: "),
        ({"group_by": ["abs(day) AS g"]}, "The column g: Cannot resolve"),
    ],
)
def test_what_a_table_does_not_allow_ends_in_a_cause_and_a_remedy(
    bench: Workbench, changed: dict[str, object], sentences: str
) -> None:
    if not bench.keys("example/"):
        load(bench, "example", EXAMPLE)
    text = f"""
        asset: example
        table: {table_name(bench, "example")}
        group_by: [zero]
        metrics: {{m: sum(amount)}}
    """
    if not bench.keys("example/"):
        assert analyse(bench, text).success
    message = failure(analyse(bench, text, **changed))
    assert sentences in message
    assert rows_of(bench, None, "example") == [(0, Decimal(3))]


def test_a_view_is_read_where_a_dataset_for_its_rows_is_named(bench: Workbench) -> None:
    load(bench, "viewed", pa.table({"kind": ["x", "y", "x"], "n": pa.array([1, 2, 3])}))
    client = tables.connect(bench.stack.stack.config)
    client.query(
        f"CREATE VIEW `{table_name(bench, 'a_view')}` AS "
        f"SELECT kind, n FROM `{table_name(bench, 'viewed')}`"
    ).result()
    text = f"""
        asset: of_a_view
        table: {table_name(bench, "a_view")}
        group_by: [kind]
        metrics: {{total: sum(n)}}
    """
    message = failure(analyse(bench, text))
    assert "a_view is a view, whose rows BigQuery has to compute first" in message
    assert "BIGQUERY_VIEW_DATASET" in message
    bench.configure(BIGQUERY_VIEW_DATASET=f"bigquery-public-data.{bench.name}")
    try:
        run = analyse(bench, text)
    finally:
        bench.configure(BIGQUERY_VIEW_DATASET="")
    assert run.success
    assert rows_of(bench, None, "of_a_view") == [("x", 4), ("y", 2)]
