"""The main job through Dagster's command line, on real trips, against DuckDB's figures."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import dagster as dg
import duckdb
import pytest
import requests
from duckdb_extensions import import_extension

from sparkpar_assets.assets.fares import SCHEMA as FARES_SCHEMA
from sparkpar_assets.checks import FARE_CHECKS, TREND_CHECKS
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.metadata import readable
from sparkpar_assets.project import PROJECT_ROOT
from tests.expected import (
    expected_exclusions,
    expected_fares,
    expected_trends,
    has_dominating_fare,
)
from tests.integration.workbench import FARES, Workbench, new_workbench, wait_until

TRENDS = "fare_trends"
SAMPLE_YEARS = (2017, 2018, 2019, 2021)


def sample(year: int) -> Path:
    return PROJECT_ROOT / "sample_data" / f"tlc_yellow_trips_{year}.parquet"


@pytest.fixture(scope="module")
def main_job(embedded_stack: EmbeddedStack) -> Iterator[Workbench]:
    """The sample years published by two commands: a range of three, then one with the trends."""
    with new_workbench(embedded_stack, "main_job") as bench:
        for year in SAMPLE_YEARS:
            embedded_stack.load(f"{bench.settings.taxi_table_prefix}{year}", sample(year))
        bench.materialize_years(2017, 2018, 2019)
        done = bench.materialize("--select", f"{FARES},{TRENDS}", "--partition", "2021")
        assert done.returncode == 0, done.stderr
        yield bench


def materializations(bench: Workbench, asset: str) -> dict[str, dg.AssetMaterialization]:
    """The materializations by partition; each partition has exactly one."""
    with bench.instance() as instance:
        records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
    found = {
        str(record.partition_key): record.asset_materialization
        for record in records
        if record.asset_materialization
    }
    assert len(found) == len(records)
    return found


def metadata(bench: Workbench, asset: str, partition: str) -> Mapping[str, Any]:
    return {
        name: value.value
        for name, value in materializations(bench, asset)[partition].metadata.items()
    }


@pytest.mark.parametrize("year", SAMPLE_YEARS)
def test_published_fares_equal_those_of_duckdb(main_job: Workbench, year: int) -> None:
    assert main_job.published(year).to_pylist() == expected_fares(sample(year))


def test_the_trends_equal_those_of_duckdbs_fares(main_job: Workbench) -> None:
    assert main_job.published(None, TRENDS).to_pylist() == expected_trends(
        {year: expected_fares(sample(year)) for year in SAMPLE_YEARS}
    )


def test_duckdb_sees_the_objects_as_one_table_with_the_year_from_the_path(
    main_job: Workbench,
) -> None:
    import_extension("httpfs")
    settings = main_job.settings
    assert settings.aws_access_key_id
    assert settings.aws_secret_access_key
    connection = duckdb.connect()
    connection.execute("LOAD httpfs")
    connection.execute(
        f"""CREATE SECRET (TYPE s3, URL_STYLE 'path', USE_SSL false, REGION 'us-east-1',
        ENDPOINT '{str(settings.s3_endpoint).removeprefix("http://")}',
        KEY_ID '{settings.aws_access_key_id.get_secret_value()}',
        SECRET '{settings.aws_secret_access_key.get_secret_value()}')"""
    )
    found = connection.execute(
        "SELECT year, sum(trips)::BIGINT FROM read_parquet(?, hive_partitioning = true) "
        "GROUP BY 1 ORDER BY 1",
        [f"s3://{main_job.bucket}/{main_job.root}{FARES}/*/*.parquet"],
    ).fetchall()
    assert found == [
        (year, sum(row["trips"] for row in expected_fares(sample(year)))) for year in SAMPLE_YEARS
    ]


def test_there_is_one_object_a_year_and_nothing_staged_is_left(main_job: Workbench) -> None:
    assert sorted(main_job.keys(f"{FARES}/")) == [main_job.key(year) for year in SAMPLE_YEARS]
    assert main_job.keys("_staging/") == []


@pytest.mark.parametrize("year", SAMPLE_YEARS)
def test_each_years_metadata_are_its_own_also_in_a_run_of_several(
    main_job: Workbench, year: int
) -> None:
    expected, excluded = expected_fares(sample(year)), expected_exclusions(sample(year))
    trips = sum(row["trips"] for row in expected)
    found = metadata(main_job, FARES, str(year))
    assert found["dagster/partition_row_count"] == len(expected)
    assert found["trips"] == trips
    assert found["excluded_trips_by_rule"] == excluded
    assert found["rows_read"] == trips + sum(excluded.values())
    assert found["dagster/uri"] == f"s3://{main_job.bucket}/{main_job.key(year)}"
    assert [(column.name, column.type) for column in found["dagster/column_schema"].columns] == [
        (column.name, column.type) for column in FARES_SCHEMA.columns
    ]
    lineage = found["dagster/column_lineage"].deps_by_column
    assert {dep.column_name for dep in lineage["avg_tip"]} == {
        "passenger_count",
        "fare_amount",
        "tip_amount",
    }
    assert len(found["preview"].records) == len(expected)
    assert found["preview"].records[0].data["total_fare"] == readable(expected[0]["total_fare"])
    assert found["spark_ui"].endswith(f"/history/{found['spark_application_id']}/")
    assert all(
        found[f"seconds_{phase}"] >= 0
        for phase in (
            "waiting",
            "starting_spark",
            "reading_and_aggregating",
            "validating",
            "publishing",
        )
    )


def test_the_link_to_spark_opens_the_ended_application_on_the_history_server(
    main_job: Workbench,
) -> None:
    found = metadata(main_job, FARES, "2018")
    records = main_job.materializations()
    (run_id,) = {record.run_id for record in records if record.partition_key == "2018"}
    link, application = found["spark_ui"], found["spark_application_id"]
    wait_until(lambda: requests.get(link, timeout=60).ok, "the application on the History Server")
    page = requests.get(link, timeout=60)
    assert f"<title>{FARES} {run_id} - Spark Jobs</title>" in page.text
    api = f"{link.partition('/history/')[0]}/api/v1/applications/{application}"
    (attempt,) = requests.get(api, timeout=60).json()["attempts"]
    assert attempt["completed"]


def test_the_trends_metadata_have_a_chart_and_name_the_years(main_job: Workbench) -> None:
    found = metadata(main_job, TRENDS, "None")
    assert found["years"] == "2017, 2018, 2019, 2021"
    assert found["dagster/row_count"] == main_job.published(None, TRENDS).num_rows
    assert found["mean_fares"].startswith(
        "![Mean fare by passenger count (groups of 100 trips or more)](data:image/png;base64,"
    )


def test_the_years_of_a_range_are_one_spark_application_and_so_are_both_assets_of_a_run(
    main_job: Workbench,
) -> None:
    applications = {
        year: metadata(main_job, FARES, str(year))["spark_application_id"] for year in SAMPLE_YEARS
    }
    assert len({applications[year] for year in (2017, 2018, 2019)}) == 1
    assert applications[2021] != applications[2017]
    assert metadata(main_job, TRENDS, "None")["spark_application_id"] == applications[2021]


def test_fares_that_dominate_their_group_are_warnings_that_name_them(main_job: Workbench) -> None:
    evaluations = check_evaluations(main_job)
    assert len(evaluations) == 2 * len(FARE_CHECKS) + len(TREND_CHECKS)
    failed = [found for found in evaluations if not found.passed]
    assert [(found.check_name, found.severity) for found in failed] == [
        ("no_fare_dominates", dg.AssetCheckSeverity.WARN)
    ] * 2
    assert {found.description for found in failed} == {
        "2018: One fare of 429490.20 is 28% of all fares with passenger count 1 (85,288 trips).",
        "2021: One fare of 200.00 is 1% of all fares with passenger count 3 (1,141 trips).",
    }
    outcomes = {
        row.data["partition"]: row.data["passed"]
        for found in failed
        for row in cast("dg.TableMetadataValue", found.metadata["outcomes"]).records
    }
    assert outcomes == {str(year): not has_dominating_fare(sample(year)) for year in SAMPLE_YEARS}


def check_evaluations(bench: Workbench) -> list[dg.AssetCheckEvaluation]:
    with bench.instance() as instance:
        events = [
            log.dagster_event
            for run in instance.get_run_records()
            for log in instance.all_logs(run.dagster_run.run_id)
        ]
    return [
        event.asset_check_evaluation_data
        for event in events
        if event and event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]


def test_years_that_were_published_and_are_gone_from_s3_are_named(main_job: Workbench) -> None:
    main_job.s3.copy_object(
        Bucket=main_job.bucket,
        Key=f"{main_job.root}kept",
        CopySource={"Bucket": main_job.bucket, "Key": main_job.key(2019)},
    )
    main_job.s3.delete_object(Bucket=main_job.bucket, Key=main_job.key(2019))
    try:
        done = main_job.materialize("--select", TRENDS)
    finally:
        main_job.s3.copy_object(
            Bucket=main_job.bucket,
            Key=main_job.key(2019),
            CopySource={"Bucket": main_job.bucket, "Key": f"{main_job.root}kept"},
        )
    assert done.returncode == 0
    assert "Materialized, but not in S3: 2019." in done.stdout + done.stderr
    found = main_job.published(None, TRENDS).to_pylist()
    assert found == expected_trends(
        {year: expected_fares(sample(year)) for year in (2017, 2018, 2021)}
    )
