"""Nothing is read, requested or collected in vain: counted between a run and its servers."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
import yaml

from benchmarks.model import BYTES_A_ROW, S3_REQUESTS_OF_A_PARTITION, S3_REQUESTS_OF_A_RUN
from sparkpar_assets.components.aggregation import aggregation_asset
from sparkpar_assets.components.attributes import AggregationAttributes
from sparkpar_assets.components.loading import tables_of
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.transforms.fares import TRIP_COLUMNS
from tests.faults.clouds import Clouds, clouds_behind_proxies, materialize
from tests.faults.runs import YEARS, load_samples, sample
from tests.integration.traffic import Traffic, counted
from tests.integration.warm_spark import run_on_warm_session
from tests.integration.workbench import Workbench

LIST = "ListObjectsV2"
LISTINGS_MORE_OR_LESS = 3
COPIES = 5
"""How many times the trips of a year make a larger one."""
EMPTY_RESULT_BYTES = 4_000
"""More than a task tells the driver that has no rows for it: its metrics."""
RESULT_BYTES = 150_000
"""More than all tasks of a run of one year tell the driver."""


@pytest.fixture(scope="module")
def clouds(embedded_stack: EmbeddedStack) -> Iterator[Clouds]:
    with clouds_behind_proxies(embedded_stack) as clouds:
        yield clouds


@pytest.fixture
def bench(clouds: Clouds, workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A workbench with three years of trips, behind the proxies; this process has its settings."""
    load_samples(workbench)
    clouds.lead(workbench)
    for name, value in workbench.env.items():
        monkeypatch.setenv(name, value)
    return workbench


def run(bench: Workbench, clouds: Clouds, *years: int) -> Traffic:
    """Publish the fares of some years, and count."""
    with counted(clouds) as traffic:
        done = materialize(bench, years)
    assert done.success, done.log[-5000:]
    return traffic


def rows_of(year: int) -> int:
    return int(pq.ParquetFile(sample(year)).metadata.num_rows)


def test_a_run_reads_the_columns_that_it_needs_and_every_row_once(
    bench: Workbench, clouds: Clouds
) -> None:
    traffic = run(bench, clouds, *YEARS)
    assert {session.columns for session in traffic.sessions.values()} == {tuple(TRIP_COLUMNS)}
    assert {session.restriction for session in traffic.sessions.values()} == {""}
    assert [(session.table, session.rows) for session in traffic.read] == [
        (f"tlc_yellow_trips_{year}", rows_of(year)) for year in YEARS
    ]
    for session in traffic.read:
        assert session.bytes <= session.rows * BYTES_A_ROW * 1.05
    # Beside each session that is read, the free one that asks what reading will cost.
    assert len(traffic.sessions) == 2 * len(YEARS)


def test_an_analysis_reads_the_rows_of_its_condition_and_no_others(
    bench: Workbench, clouds: Clouds
) -> None:
    condition = "passenger_count >= 3 AND fare_amount > 10.5"
    text = f"""
        asset: tips_of_groups
        years: {{start: 2011}}
        table: {bench.settings.taxi_table_prefix}{{year}}
        where: {condition}
        group_by: [passenger_count]
        metrics: {{tips: sum(tip_amount)}}
    """
    asset = aggregation_asset(AggregationAttributes.model_validate(yaml.safe_load(text)))
    year = str(YEARS[0])
    span = dict.fromkeys(
        ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end"), year
    )
    with counted(clouds) as traffic:
        done = run_on_warm_session(
            bench, "tips_of_groups", span, assets=[asset, *tables_of([asset])]
        )
    assert done.success
    (session,) = traffic.read
    query = f"SELECT count(*) FROM read_parquet(?) WHERE {condition}"
    ((expected,),) = duckdb.execute(query, [str(sample(YEARS[0]))]).fetchall()
    assert 0 < expected < rows_of(YEARS[0])
    assert session.rows == expected
    # BigQuery alone looks at the condition: the fare stays there.
    assert set(session.columns) == {"passenger_count", "tip_amount"}


@pytest.mark.slow
def test_a_run_sends_s3_a_constant_number_of_requests_and_a_small_one_for_each_year(
    bench: Workbench, clouds: Clouds
) -> None:
    bench.configure(STAGING_LEASE_SECONDS="3000")  # else it is renewed where the machine is slow
    run(bench, clouds, *YEARS)
    for years in (YEARS[:1], YEARS):
        expected = Counter(S3_REQUESTS_OF_A_RUN) + Counter(
            {name: count * len(years) for name, count in S3_REQUESTS_OF_A_PARTITION.items()}
        )
        sent = run(bench, clouds, *years).s3
        # S3A looks for a folder of staged files once more or less, as its threads meet.
        assert abs(sent.pop(LIST) - expected.pop(LIST)) <= LISTINGS_MORE_OR_LESS
        assert sent == expected


@dataclass(frozen=True)
class Collected:
    """What tasks have sent to the driver.

    Attributes:
        tasks: How many tasks were run.
        bytes: The size of their results, metrics included.
    """

    tasks: int
    bytes: int


def collected(first_stage: int) -> Collected:
    """What the stages from a number on have sent, as Spark's REST API says."""
    stages = [stage for stage in _stages() if stage["stageId"] >= first_stage]
    return Collected(
        sum(stage["numCompleteTasks"] for stage in stages),
        sum(stage["resultSize"] for stage in stages),
    )


def _stages() -> list[dict[str, int]]:
    from pyspark.sql import SparkSession

    session = SparkSession.getActiveSession()
    if session is None:
        return []
    context = session.sparkContext
    api = f"{context.uiWebUrl}/api/v1/applications/{context.applicationId}"
    stages: list[dict[str, int]] = requests.get(f"{api}/stages", timeout=30).json()
    return stages


@pytest.mark.slow
def test_no_trip_goes_through_the_driver(bench: Workbench, clouds: Clouds) -> None:
    year = YEARS[1]
    found = []
    for copies in (1, COPIES):
        bench.load_trips(year, pa.concat_tables([pq.read_table(sample(year))] * copies))
        first_stage = max((stage["stageId"] for stage in _stages()), default=-1) + 1
        traffic = run(bench, clouds, year)
        assert sum(session.rows for session in traffic.read) == copies * rows_of(year)
        found.append(collected(first_stage))
    small, large = found
    assert small.bytes < RESULT_BYTES
    assert large.bytes - small.bytes < EMPTY_RESULT_BYTES * (large.tasks - small.tasks)
