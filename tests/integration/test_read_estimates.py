"""What reading will cost: asked before it is read, said in the log, and held against the limit."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime

import dagster as dg
import grpc
import pyarrow.parquet as pq
import pytest
from google.cloud.bigquery_storage_v1 import types

from sparkpar_assets.cost import BY_BIGQUERY, BY_DRY_RUN, COMPUTED, RATE_DATE
from sparkpar_assets.io_managers.read_plan import ReadPlan, plan_reading
from sparkpar_assets.io_managers.source import TAXI_TABLES, TableSource
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.resources.bigquery import BigQueryTables, TableScan
from sparkpar_assets.resources.environment import RunEnvironment
from tests.integration.storage_read_server import StorageReadServer, storage_read_server
from tests.integration.workbench import FARES, Workbench

SAMPLES = {
    year: PROJECT_ROOT / "sample_data" / f"tlc_yellow_trips_{year}.parquet" for year in (2018, 2019)
}
ROWS = {year: int(pq.ParquetFile(sample).metadata.num_rows) for year, sample in SAMPLES.items()}
COLUMNS = {
    "passenger_count": "INT64",
    "fare_amount": "NUMERIC",
    "tip_amount": "NUMERIC",
    "trip_distance": "NUMERIC",
}
"""What the fares read."""
WIDTH = 8 + 16 + 16 + 16
SOURCE = TableSource(TAXI_TABLES, COLUMNS)
NO_SPARK = {"SPARK_MASTER_URL": "spark://127.0.0.1:1", "JAVA_HOME": "/nonexistent"}

InForce = Callable[..., AbstractContextManager[BigQueryTables]]
Plan = Callable[..., ReadPlan]


@pytest.fixture
def bench(workbench: Workbench) -> Workbench:
    """A workbench with the sample trips of 2018 and 2019, in the columns that the tests read."""
    for year, sample in SAMPLES.items():
        workbench.load_trips(year, pq.read_table(sample, columns=[*COLUMNS, "pickup_datetime"]))
    return workbench


@pytest.fixture
def server(bench: Workbench) -> Iterator[StorageReadServer]:
    """A server that says 2,204 rows and 123,456 bytes, in place of the emulator's."""
    with storage_read_server(bench.stack.stack.state, rows=2204, scanned=123_456) as served:
        bench.configure(BIGQUERY_STORAGE_GRPC_ENDPOINT=served.endpoint)
        yield served


@pytest.fixture
def in_force(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> InForce:
    """The bench's tables as a run sees them, in this process."""

    @contextmanager
    def tables(**values: str) -> Iterator[BigQueryTables]:
        bench.configure(**values)
        for name, value in bench.env.items():
            monkeypatch.setenv(name, value)
        environment = RunEnvironment()
        with environment.in_force():
            yield BigQueryTables(environment=environment)

    return tables


@pytest.fixture
def plan(in_force: InForce) -> Plan:
    """Plan the reading of a source, 2018 by default, in this process."""

    def planned(source: TableSource = SOURCE, *years: int, **values: str) -> ReadPlan:
        with in_force(**values) as tables:
            return plan_reading(tables, source, map(str, years or (2018,)), "tips")

    return planned


def table(bench: Workbench, year: int = 2018) -> str:
    return f"{bench.settings.taxi_table_prefix}{year}"


def test_where_the_server_gives_no_estimate_it_is_rows_by_widths_and_says_so(plan: Plan) -> None:
    found = plan(SOURCE, 2018, 2019).estimates
    assert {year: (one.rows, one.bytes, one.method) for year, one in found.items()} == {
        str(year): (rows, rows * WIDTH, COMPUTED) for year, rows in ROWS.items()
    }


def test_a_filter_on_rows_makes_a_computed_estimate_no_smaller(
    bench: Workbench, plan: Plan
) -> None:
    source = TableSource(table(bench), {"fare_amount": "NUMERIC"}, year_column="pickup_datetime")
    found = plan(source).estimates["2018"]
    assert (found.rows, found.bytes) == (ROWS[2018], ROWS[2018] * (16 + 8))


def test_bigquerys_own_estimate_is_asked_for_the_very_read(
    bench: Workbench, server: StorageReadServer, plan: Plan
) -> None:
    before = datetime.now(UTC)
    planned = plan(BIGQUERY_SNAPSHOT_READS="true")
    (request,) = server.requests
    project, dataset, name = table(bench).split(".")
    session = request.read_session
    assert request.parent == f"projects/{bench.settings.gcp_project}"
    assert request.max_stream_count == 1
    assert session.table == f"projects/{project}/datasets/{dataset}/tables/{name}"
    assert session.data_format == types.DataFormat.ARROW
    assert list(session.read_options.selected_fields) == list(COLUMNS)
    assert session.read_options.row_restriction == ""
    assert before <= session.table_modifiers.snapshot_time == planned.moments["2018"]
    found = planned.estimates["2018"]
    assert (found.rows, found.bytes, found.method) == (2204, 123_456, BY_BIGQUERY)


def test_a_year_of_a_table_of_all_years_is_asked_for_by_its_range(
    bench: Workbench, server: StorageReadServer, plan: Plan
) -> None:
    plan(TableSource(table(bench), {"fare_amount": "NUMERIC"}, year_column="pickup_datetime"))
    (request,) = server.requests
    options = request.read_session.read_options
    assert options.row_restriction == (
        "`pickup_datetime` >= TIMESTAMP '2018-01-01 00:00:00+00:00' "
        "AND `pickup_datetime` < TIMESTAMP '2019-01-01 00:00:00+00:00'"
    )
    assert list(options.selected_fields) == ["fare_amount", "pickup_datetime"]
    assert "table_modifiers" not in request.read_session, "the emulator has no snapshots"


def test_nothing_to_read_costs_nothing(server: StorageReadServer, plan: Plan) -> None:
    server.rows, server.scanned, server.streams = 0, 0, []
    found = plan().estimates["2018"]
    assert (found.rows, found.bytes, found.method) == (0, 0, BY_BIGQUERY)


def test_of_a_view_the_query_is_estimated_by_a_dry_run(bench: Workbench, in_force: InForce) -> None:
    from google.cloud.bigquery import Client, Table

    name = f"{table(bench)}_view"
    view = Table(name)
    view.view_query = f"SELECT fare_amount, pickup_datetime FROM `{table(bench)}`"
    with in_force() as tables:
        Client(project=bench.settings.gcp_project).create_table(view)
        state = tables.states({"": name})[""]
        assert state is not None
        where = "`pickup_datetime` >= TIMESTAMP '2018-01-01 00:00:00+00:00'"
        read = TableScan(state, ("fare_amount",), where)
        found = tables.read_estimates({"all": read})["all"]
        # The emulator's dry run says 0 bytes of every query.
        assert (found.rows, found.bytes, found.method) == (None, 0, BY_DRY_RUN)
        with pytest.raises(dg.Failure, match=f"BigQuery refuses to read {name}: 400 "):
            tables.read_estimates({"all": TableScan(state, ("no_such_column",))})


REFUSALS = [
    (
        grpc.StatusCode.PERMISSION_DENIED,
        "BigQuery denied access: 403 no. Give the account the roles BigQuery Read Session User on "
        "the project and BigQuery Data Viewer on the dataset.",
    ),
    (grpc.StatusCode.UNAUTHENTICATED, " was rejected: 401 no. Make a new key for the account, "),
    (
        grpc.StatusCode.INVALID_ARGUMENT,
        "_2018: 400 no. Correct the columns and the filter that the asset names.",
    ),
    (
        grpc.StatusCode.NOT_FOUND,
        " does not answer as it should: 404 no. Check the network and "
        "BIGQUERY_STORAGE_GRPC_ENDPOINT, and run it again.",
    ),
]


@pytest.mark.parametrize(("status", "sentences"), REFUSALS, ids=lambda value: str(value)[11:30])
def test_a_refusal_is_explained_as_that_of_the_rest_interface(
    server: StorageReadServer, plan: Plan, status: grpc.StatusCode, sentences: str
) -> None:
    server.refusal = status, "no"
    with pytest.raises(dg.Failure) as raised:
        plan()
    assert sentences in str(raised.value.description)


@pytest.mark.parametrize(
    ("values", "sentences"),
    [
        (
            {"BIGQUERY_STORAGE_GRPC_ENDPOINT": "localhost:1"},
            "BigQuery at localhost:1 does not answer as it should: ",
        ),
        ({"TLS_TRUST_STORE": "/etc/hostname"}, "The trust store /etc/hostname cannot be read: "),
        ({"TLS_TRUST_STORE": "/none.p12"}, "The trust store /none.p12 cannot be read: "),
    ],
)
def test_a_storage_api_that_cannot_be_reached_is_named(
    plan: Plan, values: dict[str, str], sentences: str
) -> None:
    with pytest.raises(dg.Failure) as raised:
        plan(**values)
    assert str(raised.value.description).startswith(sentences)


def test_the_lower_limit_of_the_setting_and_the_source_counts_for_all_years(plan: Plan) -> None:
    each, both = ROWS[2018] * WIDTH, sum(ROWS.values()) * WIDTH
    own = TableSource(TAXI_TABLES, COLUMNS, max_bytes_read=each)
    assert plan(own).why_refused is None
    assert plan(own, 2018, 2019, MAX_BYTES_READ="1 TB").why_refused == (
        f"The run would read {both:,} bytes ({both / 1e6:.1f} MB) from BigQuery, "
        f"and max_bytes_read of tips allows {each:,} bytes (6.7 MB). "
        "Choose fewer years or columns, or raise the limit."
    )
    assert "MAX_BYTES_READ allows 1,000 bytes" in str(plan(own, MAX_BYTES_READ="1kB").why_refused)


def test_a_run_above_the_limit_is_refused_before_spark_starts_and_changes_nothing(
    bench: Workbench,
) -> None:
    published = b"as it was"
    bench.s3.put_object(Bucket=bench.bucket, Key=bench.key(2018), Body=published)
    bench.configure(**NO_SPARK, MAX_BYTES_READ="6 MB")
    done = bench.materialize("--select", FARES, "--partition", "2018")
    assert done.returncode != 0
    assert (
        f"The run would read {ROWS[2018] * WIDTH:,} bytes (6.7 MB) from BigQuery, "
        "and MAX_BYTES_READ allows 6,000,000 bytes (6.0 MB). "
        "Choose fewer years or columns, or raise the limit."
    ) in done.stdout + done.stderr
    assert bench.content(bench.key(2018)) == published
    assert bench.keys() == [bench.key(2018)]
    assert bench.materialized_years() == []


def test_a_run_at_the_limit_says_what_it_reads_first_and_each_year_keeps_its_own(
    bench: Workbench,
) -> None:
    scanned = sum(ROWS.values()) * WIDTH
    bench.share_driver()
    bench.configure(MAX_BYTES_READ=str(scanned))
    done = bench.materialize("--select", FARES, "--partition-range", "2018...2019")
    assert done.returncode == 0, done.stderr
    said = done.stderr.index(f"To read from BigQuery (2018, 2019): {sum(ROWS.values()):,} rows, ")
    assert said < done.stderr.index("Spark application ")
    assert done.stderr.count("To read from BigQuery") == 1
    with bench.instance() as instance:
        records = instance.fetch_materializations(dg.AssetKey(FARES), limit=9).records
    for record in records:
        assert record.asset_materialization
        found = record.asset_materialization.metadata
        metadata = {name: value.value for name, value in found.items()}
        rows = ROWS[int(str(record.partition_key))]
        assert metadata["bytes_to_read"] == rows * WIDTH
        assert metadata["estimated_cost_usd"] == float(f"{rows * WIDTH * 1.1 / 2**40:.2g}")
        assert metadata["estimate_method"] == COMPUTED
    assert len(records) == 2


def estimate(bench: Workbench, *words: str, **values: str) -> tuple[int, str, str]:
    """Exit code, output and errors of ``./run.sh estimate``, without Java and a Spark to go to."""
    bench.configure(**NO_SPARK, **values)
    done = bench.run(sys.executable, "-m", "sparkpar_assets.estimate", *words)
    return done.returncode, done.stdout, done.stderr


def test_the_command_prints_each_year_the_sum_the_method_and_the_limit(bench: Workbench) -> None:
    code, output, errors = estimate(bench, FARES, "2017...2019")
    assert (code, errors) == (0, "")
    cells = [line.split() for line in output.splitlines()]
    assert cells[2] == ["2017", table(bench, 2017), *"———", "does", "not", "exist."]
    for line, year in ((cells[3], 2018), (cells[4], 2019)):
        scanned = ROWS[year] * WIDTH
        assert line[:4] == [str(year), table(bench, year), f"{ROWS[year]:,}", f"{scanned:,}"]
        assert float(line[4]) == pytest.approx(scanned * 1.1 / 2**40, rel=0.05)
        assert line[5:] == ["US", "dollars"]
    rows = sum(ROWS.values())
    assert cells[5][:3] == ["total", f"{rows:,}", f"{rows * WIDTH:,}"]
    assert output.splitlines()[-2:] == [
        "Computed from row count and column widths, at the list price of "
        f"{RATE_DATE}, 1.1 US dollars per TiB.",
        "MAX_BYTES_READ is not set: there is no limit.",
    ]

    _, output, _ = estimate(bench, FARES, "2018", MAX_BYTES_READ="20 GB")
    limit = "MAX_BYTES_READ allows 20,000,000,000 bytes (20.0 GB): the run would start.\n"
    assert output.endswith(limit)
    code, output, _ = estimate(bench, FARES, "2018", MAX_BYTES_READ="6 MB")
    assert code == 0
    assert output.endswith(
        f"The run would read {ROWS[2018] * WIDTH:,} bytes (6.7 MB) from BigQuery, and "
        "MAX_BYTES_READ allows 6,000,000 bytes (6.0 MB). "
        "Choose fewer years or columns, or raise the limit.\n"
    )
    _, output, _ = estimate(bench, FARES, "2012")
    assert output.endswith("Nothing of this can be read.\n")


@pytest.mark.parametrize(
    ("words", "values", "sentences"),
    [
        (
            "fare_trends",
            {},
            "fare_trends reads no BigQuery table, so that nothing is billed for reading. "
            "Those that do are: ",
        ),
        (FARES, {}, f"{FARES} has the partitions 2011 to "),
        (f"{FARES} 1999", {}, f"{FARES} has no partition '1999'. The partitions are 2011 to "),
        (f"{FARES} 2019...2018", {}, "2019...2018 ends before it begins. Write 2018...2019."),
        ("fares 2018", {}, "There is no asset fares to materialize. The assets are: "),
        (
            f"{FARES} 2018",
            {"MAX_BYTES_READ": "hush"},
            "Settings cannot be read: MAX_BYTES_READ: Value error, That is no size above 0. "
            "Write it like 20 GB, 1.5 TiB or 1000000. Correct them as .env.example explains.",
        ),
        (
            f"{FARES} 2018",
            {"GOOGLE_APPLICATION_CREDENTIALS": "/none.json"},
            "The key file /none.json does not exist. Set GOOGLE_APPLICATION_CREDENTIALS to ",
        ),
        (
            f"{FARES} 2018",
            {"BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:1"},
            "BigQuery at http://127.0.0.1:1 does not answer as it should: ",
        ),
    ],
)
def test_what_a_user_can_mend_ends_the_command_in_a_cause_and_a_remedy(
    workbench: Workbench, words: str, values: dict[str, str], sentences: str
) -> None:
    code, output, errors = estimate(workbench, *words.split(), **values)
    assert (code, output) == (1, "")
    assert errors.startswith(f"Error: {sentences}")
    assert "Traceback" not in errors
