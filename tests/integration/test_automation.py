"""Schedules and sensors on the real BigQuery, S3 and Spark of the embedded stack."""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
import requests
from dagster._core.errors import DagsterUserCodeExecutionError

from sparkpar_assets.definitions import defs
from sparkpar_assets.embedded import tables
from sparkpar_assets.resources import bigquery as bigquery_resource
from sparkpar_assets.schedules import observe_taxi_tables, yearly_fares
from sparkpar_assets.sensors import changed_taxi_years, run_failure_alert
from tests.integration.warm_spark import end_warm_session, run_on_warm_session
from tests.integration.workbench import FARES, Workbench, wait_until

TRENDS = "fare_trends"
NUMERIC = pa.decimal128(38, 9)
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
RESOURCES = {name: (defs.resources or {})[name] for name in ("environment", "bigquery")}
ALL_PUBLISHED = "Every table is published as it is."


def trips(*fares: Decimal | int) -> pa.Table:
    n = len(fares)
    return pa.table(
        {
            "passenger_count": pa.array([1] * n, pa.int64()),
            "fare_amount": pa.array([Decimal(fare) for fare in fares], NUMERIC),
            "tip_amount": pa.array([Decimal(1)] * n, NUMERIC),
            "trip_distance": pa.array([Decimal(2)] * n, NUMERIC),
        }
    )


GOOD = trips(5, 7, 9)
TOO_LARGE = trips(Decimal("9" * 29), Decimal("9" * 29))
"""Their sum has more digits than a DECIMAL(38,9): the year fails validation."""


@pytest.fixture(scope="module", autouse=True)
def _session_of_this_module() -> Iterator[None]:
    """The runs here share a Spark session, which is none of the next module's."""
    yield
    end_warm_session()


@pytest.fixture
def bench(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A workbench whose environment this process has: ticks and runs are evaluated in it."""
    configure = workbench.configure

    def configured(**values: str) -> None:
        configure(**values)
        for name, value in workbench.env.items():
            monkeypatch.setenv(name, value)

    monkeypatch.setattr(workbench, "configure", configured)
    workbench.configure(SPARK_MASTER_URL="local[1]", SPARK_EVENT_LOG_DIR="")
    return workbench


def drop_table(bench: Workbench, year: int) -> None:
    name = f"{bench.settings.taxi_table_prefix}{year}"
    tables.connect(bench.stack.stack.config).delete_table(name)


def tick(bench: Workbench) -> tuple[list[dg.RunRequest], str | None]:
    """What one tick of the sensor asks for, or says; each tick is the first of its process."""
    with (
        bench.instance() as instance,
        dg.build_sensor_context(
            instance=instance, repository_def=defs.get_repository_def(), resources=RESOURCES
        ) as context,
    ):
        found = changed_taxi_years.evaluate_tick(context)
    return list(found.run_requests or ()), found.skip_message


def yearly_tick(bench: Workbench, when: datetime) -> tuple[list[dg.RunRequest], str | None]:
    """What the schedule asks for at a time, or says."""
    with (
        bench.instance() as instance,
        dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=when,
            repository_def=defs.get_repository_def(),
            resources=RESOURCES,
        ) as context,
    ):
        found = yearly_fares.evaluate_tick(context)
    return list(found.run_requests or ()), found.skip_message


def ranges(requests: list[dg.RunRequest]) -> list[tuple[str, str]]:
    return [(request.tags[START], request.tags[END]) for request in requests]


def run(
    bench: Workbench, request: dg.RunRequest | None = None, asset: str = FARES
) -> dg.ExecuteInProcessResult:
    """Carry out a request, on a Spark session that the runs of this process share."""
    return run_on_warm_session(bench, asset, request.tags if request else None)


def test_the_sensor_asks_for_a_run_for_each_range_of_years_whose_table_changed(
    bench: Workbench,
) -> None:
    for year in (2017, 2018, 2020):
        bench.load_trips(year, GOOD)
    bench.load_trips(2021, GOOD.slice(0, 0))  # empty: nothing to publish; 2019 has no table
    requests, _ = tick(bench)
    assert ranges(requests) == [("2017", "2018"), ("2020", "2020")]
    first_keys = [request.run_key for request in requests]
    assert [request.run_key for request in tick(bench)[0]] == first_keys
    assert all(run(bench, request).success for request in requests)
    assert tick(bench) == ([], ALL_PUBLISHED)

    bench.load_trips(2018, trips(5))  # replaced, with fewer rows
    requests, _ = tick(bench)
    assert ranges(requests) == [("2018", "2018")]
    assert requests[0].run_key not in first_keys
    assert str(requests[0].run_key).endswith(" 1 rows")
    assert run(bench, requests[0]).success
    assert tick(bench) == ([], ALL_PUBLISHED)
    assert bench.published(2018)["trips"].to_pylist() == [1]


def test_a_year_waits_for_the_run_that_will_publish_it_whoever_launched_that(
    bench: Workbench,
) -> None:
    bench.load_trips(2018, GOOD)
    launched = dg.DagsterRun(
        job_name="__ASSET_JOB",
        tags={START: "2017", END: "2019"},
        status=dg.DagsterRunStatus.STARTED,
        asset_selection=frozenset({dg.AssetKey(FARES)}),
    )
    with bench.instance() as instance:
        instance.add_run(launched)
    assert tick(bench) == ([], f"2018: run {launched.run_id} is not finished.")
    with bench.instance() as instance:
        instance.report_run_canceled(launched)
    assert ranges(tick(bench)[0]) == [("2018", "2018")]


def test_a_year_that_failed_stays_on_the_list_and_is_run_again_when_its_table_changes(
    bench: Workbench,
) -> None:
    for year in (2017, 2018, 2019):
        bench.load_trips(year, TOO_LARGE if year == 2018 else GOOD)
    (request,), _ = tick(bench)
    failed = run(bench, request)
    assert not failed.success
    assert bench.materialized_years() == ["2017", "2019"]
    requests, said = tick(bench)
    assert requests == []
    assert said == (
        f"2018: run {failed.run_id} did not publish the table as it is now (FAILURE). "
        "Re-execute it, or mend the table."
    )

    bench.load_trips(2019, trips(5))
    (request,), _ = tick(bench)
    assert ranges([request]) == [("2019", "2019")]  # and not 2018 once more with its neighbour
    assert run(bench, request).success
    bench.load_trips(2018, GOOD)
    (request,), _ = tick(bench)
    assert ranges([request]) == [("2018", "2018")]
    assert run(bench, request).success
    assert tick(bench) == ([], ALL_PUBLISHED)


def test_a_table_dropped_between_the_look_and_the_run_fails_that_year_alone(
    bench: Workbench,
) -> None:
    for year in (2018, 2019):
        bench.load_trips(year, GOOD)
    (request,), _ = tick(bench)
    drop_table(bench, 2018)
    failed = run(bench, request)
    assert not failed.success
    assert bench.materialized_years() == ["2019"]
    assert tick(bench) == ([], ALL_PUBLISHED)
    bench.load_trips(2018, GOOD)
    (request,), _ = tick(bench)
    assert ranges([request]) == [("2018", "2018")]


def test_a_year_that_a_person_put_back_to_an_older_version_is_left_so(bench: Workbench) -> None:
    bench.load_trips(2018, GOOD)
    (request,), _ = tick(bench)
    assert run(bench, request).success
    with bench.instance() as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                FARES, partition="2018", metadata={"source_version": "2001-01-01 1 rows"}
            )
        )
    assert tick(bench) == ([], ALL_PUBLISHED)


def test_where_bigquery_does_not_answer_the_tick_says_so_and_the_next_one_catches_up(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigquery_resource, "RETRY_SECONDS", 1)
    bench.load_trips(2018, GOOD)
    there = bench.settings.bigquery_http_endpoint
    bench.configure(BIGQUERY_EMULATOR_HOST="http://127.0.0.1:1")
    says = r"BigQuery at http://127.0.0.1:1 does not answer as it should: .* run it again\."
    with pytest.raises(dg.Failure, match=says):
        tick(bench)
    with pytest.raises(DagsterUserCodeExecutionError) as raised:
        yearly_tick(bench, datetime(2019, 1, 15, 6, tzinfo=UTC))
    assert re.search(says, str(raised.value.user_exception))
    bench.configure(BIGQUERY_EMULATOR_HOST=str(there))
    assert ranges(tick(bench)[0]) == [("2018", "2018")]
    assert ranges(yearly_tick(bench, datetime(2019, 1, 15, 6, tzinfo=UTC))[0]) == [("2018", "2018")]


def test_on_15_january_the_year_before_is_published_or_the_tick_says_why_not(
    bench: Workbench,
) -> None:
    assert (yearly_fares.cron_schedule, yearly_fares.execution_timezone) == ("0 6 15 1 *", "UTC")
    january = datetime(2019, 1, 15, 6, tzinfo=UTC)
    name = f"{bench.settings.taxi_table_prefix}2018"
    assert yearly_tick(bench, january) == ([], f"2018: the table {name} does not exist.")
    bench.load_trips(2018, GOOD.slice(0, 0))
    assert yearly_tick(bench, january) == ([], f"2018: the table {name} is empty.")
    bench.load_trips(2018, GOOD)
    (request,), _ = yearly_tick(bench, january)
    assert ranges([request]) == [("2018", "2018")]
    assert run(bench, request).success
    said = f"2018: published from the table {name} as it is now."
    assert yearly_tick(bench, january) == ([], said)
    assert tick(bench) == ([], ALL_PUBLISHED)


def test_the_daily_observation_is_one_run_of_all_years_and_skips_those_without_a_table(
    bench: Workbench,
) -> None:
    for year in (2018, 2020):
        bench.load_trips(year, GOOD)
    with bench.instance() as instance:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 1, 2, 5, tzinfo=UTC),
            repository_def=defs.get_repository_def(),
        )
        (request,) = observe_taxi_tables.evaluate_tick(context).run_requests or ()
        job = defs.resolve_job_def(str(request.job_name or observe_taxi_tables.job_name))
        done = job.execute_in_process(instance=instance, tags=dict(request.tags))
    assert done.success
    observed = done.asset_observations_for_node("yellow_taxi_trips")
    assert [observation.partition for observation in observed] == ["2018", "2020"]


class Conditions:
    """Evaluates the automation conditions, one tick after the other."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.cursor: Any = None

    def tick(self) -> int:
        """How many runs of ``fare_trends`` a tick asks for."""
        with self.bench.instance() as instance:
            found = dg.evaluate_automation_conditions(
                defs=defs, instance=instance, cursor=self.cursor
            )
        self.cursor = found.cursor
        return found.get_num_requested(dg.AssetKey(TRENDS))


def test_the_trends_are_refreshed_once_after_a_run_of_several_years_with_gaps_between_them(
    bench: Workbench,
) -> None:
    conditions = Conditions(bench)
    assert conditions.tick() == 0  # nothing is published yet
    for year in (2017, 2018, 2020):
        bench.load_trips(year, TOO_LARGE if year == 2018 else GOOD)
    requests, _ = tick(bench)
    assert [run(bench, request).success for request in requests] == [False, True]
    assert bench.materialized_years() == ["2017", "2020"]
    assert [conditions.tick() for _ in range(3)] == [1, 0, 0]
    assert run(bench, asset=TRENDS).success
    assert conditions.tick() == 0
    assert bench.published(None, TRENDS)["year"].to_pylist() == [2017, 2020]
    assert Conditions(bench).tick() == 0  # as it is when automation is turned on only now

    bench.load_trips(2020, trips(5))
    (request,), _ = tick(bench)
    assert run(bench, request).success
    assert [conditions.tick() for _ in range(2)] == [1, 0]


def test_the_trends_wait_while_another_run_is_publishing_years(bench: Workbench) -> None:
    conditions = Conditions(bench)
    assert conditions.tick() == 0
    for year in (2018, 2020):
        bench.load_trips(year, GOOD)
    first, second = tick(bench)[0]
    with bench.instance() as instance:
        waiting = instance.create_run_for_job(
            defs.resolve_implicit_global_asset_job_def(),
            tags=dict(second.tags),
            asset_selection=frozenset({dg.AssetKey(FARES)}),
            status=dg.DagsterRunStatus.STARTED,
        )
    assert run(bench, first).success
    assert conditions.tick() == 0
    with bench.instance() as instance:
        instance.report_run_failed(waiting)
    assert [conditions.tick() for _ in range(2)] == [1, 0]


def test_what_was_published_before_automation_was_turned_on_is_refreshed_once(
    bench: Workbench,
) -> None:
    bench.load_trips(2018, GOOD)
    assert run(bench, tick(bench)[0][0]).success
    conditions = Conditions(bench)
    assert [conditions.tick() for _ in range(2)] == [1, 0]


AUTOMATIONS = {
    "changed_taxi_years",
    "dead_staging",
    "default_automation_condition_sensor",
    "run_failure_alert",
    "observe_taxi_tables",
    "yearly_fares",
}
INSTIGATORS = """{ repositoriesOrError { ... on RepositoryConnection { nodes {
  sensors { name sensorState { status } }
  schedules { name scheduleState { status } } } } } }"""


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def statuses(port: int) -> dict[str, str]:
    """The status of each schedule and sensor in the web interface; empty while it starts."""
    try:
        answer: Any = requests.post(
            f"http://127.0.0.1:{port}/graphql", json={"query": INSTIGATORS}, timeout=30
        ).json()
    except requests.ConnectionError:
        return {}
    return {
        found["name"]: (found.get("sensorState") or found.get("scheduleState"))["status"]
        for node in answer["data"]["repositoriesOrError"]["nodes"]
        for found in [*node["sensors"], *node["schedules"]]
    }


@pytest.mark.slow
def test_changed_tables_become_published_years_and_refreshed_trends_with_no_hand_on_it(
    bench: Workbench, free_port: int
) -> None:
    for year in (2018, 2020):
        bench.load_trips(year, GOOD)
    assert all(run(bench, request).success for request in tick(bench)[0])
    assert run(bench, asset=TRENDS).success
    bench.configure(SPARKPAR_AUTOMATION="on", SPARK_MAX_APPLICATIONS="1")
    limited = bench.run(sys.executable, "-m", "sparkpar_assets.spark_pool")  # as ./run.sh ui does
    assert limited.returncode == 0, limited.stderr
    workspace = ("-w", "workspace.local.yaml")
    started = time.monotonic()
    for year in (2018, 2020):
        bench.load_trips(year, trips(11))
    bench.start(*bench.command("dagster-daemon", "run", *workspace))
    bench.start(*bench.command("dagster-webserver", *workspace, "-p", str(free_port)))

    def wait_for_materializations(years: list[str], trends: int) -> None:
        wait_until(lambda: sorted(bench.materialized_years()) == years, f"{years}")
        print(f"{time.monotonic() - started:.0f} s: {years}")  # noqa: T201 — shown by -s
        wait_until(lambda: len(bench.materialized_years(TRENDS)) >= trends, f"{trends} trends")
        print(f"{time.monotonic() - started:.0f} s: {TRENDS}")  # noqa: T201

    wait_until(lambda: statuses(free_port), "the web interface")
    assert statuses(free_port) == dict.fromkeys(AUTOMATIONS, "RUNNING")
    wait_for_materializations(["2018", "2018", "2020", "2020"], trends=2)
    assert bench.published(None, TRENDS).select(["year", "avg_fare"]).to_pylist() == [
        {"year": 2018, "avg_fare": Decimal(11)},
        {"year": 2020, "avg_fare": Decimal(11)},
    ]
    with bench.instance() as instance:
        filters = dg.RunsFilter(tags={"dagster/from_automation_condition": "true"})
        refreshed = instance.get_run_records(filters)
        filters = dg.RunsFilter(tags={"dagster/sensor_name": "changed_taxi_years"})
        # The first two are those that this process has carried out.
        *_, first, second = instance.get_run_records(filters, ascending=True)
    assert [record.dagster_run.tags[START] for record in (first, second)] == ["2018", "2020"]
    assert first.end_time
    assert second.start_time
    assert second.start_time >= first.end_time  # the pool has one place: the second one queued
    assert len(refreshed) == 1
    (event,) = [
        found for found in bench.materializations() if found.run_id == second.dagster_run.run_id
    ]
    assert event.asset_materialization
    waited = event.asset_materialization.metadata["seconds_waiting"].value
    assert isinstance(waited, float)
    assert waited >= first.end_time - second.create_timestamp.timestamp()


@contextmanager
def webhook(status: int = 200, seconds: float = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that takes alerts: its URL with a secret in it, and what was posted to it.

    Args:
        status: What it answers.
        seconds: How long it takes to.
    """
    posted: list[dict[str, Any]] = []
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            ended.wait(seconds)
            with suppress(ConnectionError):  # who posted has given up
                self.send_response(status)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/services/hush", posted
        finally:
            ended.set()
            server.shutdown()


@pytest.fixture
def alert(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[str, str]]:
    """Let a run fail, and the sensor react to it: the run's id and what the sensor logged."""
    request = dg.RunRequest(tags={START: "2017", END: "2018"})

    def react() -> tuple[str, str]:
        failed = run(bench, request)
        with bench.instance() as instance:
            capsys.readouterr()
            record = instance.get_run_record_by_id(failed.run_id)
            assert record
            context = dg.build_run_status_sensor_context(
                sensor_name="run_failure_alert",
                dagster_event=failed.get_run_failure_event(),
                dagster_instance=instance,
                dagster_run=record.dagster_run,
            ).for_run_failure()
            run_failure_alert(context)
        return failed.run_id, capsys.readouterr().err

    return react


Alert = Callable[[], tuple[str, str]]


def cause_of(bench: Workbench) -> str:
    prefix = bench.settings.taxi_table_prefix
    return (
        f"Not published: 2017, 2018. 2017: the table {prefix}2017 does not exist. "
        f"2018: the table {prefix}2018 does not exist. "
        "Mend the tables, or leave these years out of the range."
    )


def test_a_failed_run_is_posted_with_asset_partition_cause_and_link(
    bench: Workbench, alert: Alert
) -> None:
    with webhook() as (url, posted):
        bench.configure(ALERT_WEBHOOK_URL=url, DAGSTER_UI_URL="http://dagster.example:3000/")
        run_id, logged = alert()
    cause, link = cause_of(bench), f"http://dagster.example:3000/runs/{run_id}"
    assert posted == [
        {
            "text": f"{FARES} 2017...2018 failed: {cause} {link}",
            "asset": FARES,
            "partition": "2017...2018",
            "cause": cause,
            "run_id": run_id,
            "run_url": link,
        }
    ]
    assert "hush" not in logged


def test_without_a_webhook_a_failed_run_is_logged(bench: Workbench, alert: Alert) -> None:
    bench.configure(ALERT_WEBHOOK_URL="", DAGSTER_UI_URL="")
    run_id, logged = alert()
    assert f"{FARES} 2017...2018 failed: {cause_of(bench)} Run {run_id}" in logged


def test_a_webhook_that_answers_500_is_named_in_the_log_and_harms_nothing(
    bench: Workbench, alert: Alert
) -> None:
    with webhook(status=500) as (url, posted):
        bench.configure(ALERT_WEBHOOK_URL=url)
        _, logged = alert()
    assert len(posted) == 1
    assert "The webhook of ALERT_WEBHOOK_URL answered 500. Check it." in logged
    assert cause_of(bench) in logged
    assert "hush" not in logged


def test_a_webhook_that_hangs_is_given_up_after_seconds(bench: Workbench, alert: Alert) -> None:
    with webhook(seconds=60) as (url, posted):
        bench.configure(ALERT_WEBHOOK_URL=url)
        started = time.monotonic()
        _, logged = alert()
        assert time.monotonic() - started < 15
    assert len(posted) == 1
    assert "could not be reached (ReadTimeout)" in logged
    assert "hush" not in logged


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://127.0.0.1:1/hush", "could not be reached ("),
        ("hush", "is no URL of a server."),
        ("http://[hush", "is no URL of a server."),
        ("http://hush.example.com/T0/B0", "is plain http:// to another machine"),
    ],
)
def test_a_webhook_that_is_not_there_or_no_url_harms_nothing(
    bench: Workbench, alert: Alert, url: str, problem: str
) -> None:
    bench.configure(ALERT_WEBHOOK_URL=url)
    _, logged = alert()
    assert f"The webhook of ALERT_WEBHOOK_URL {problem}" in logged
    assert cause_of(bench) in logged
    assert "hush" not in logged
