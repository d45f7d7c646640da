"""The graph: what loading it costs, and what it says of each asset."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from sparkpar_assets import spark_pool
from sparkpar_assets.definitions import defs
from sparkpar_assets.partitions import TAXI_YEARS
from sparkpar_assets.project import PROJECT_ROOT

ASSETS = ("yellow_taxi_trips", "fare_by_passenger_count", "fare_trends")


def spec(name: str) -> dg.AssetSpec:
    return next(spec for spec in defs.resolve_all_asset_specs() if spec.key == dg.AssetKey(name))


def test_importing_needs_no_variable_java_or_network_and_loads_no_heavy_library() -> None:
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("importing reached out")
socket.socket.connect = refuse
import sparkpar_assets.definitions
heavy = {"pyspark", "py4j", "boto3", "google.cloud.bigquery", "grpc", "pyarrow", "pandas"}
heavy |= {"google.auth", "cryptography", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env={"PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("command", ["check", "list"])
def test_dg_loads_the_definitions_with_an_empty_environment(
    command: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("home")
    done = subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), "dg"), command, "defs"],  # noqa: PTH118, PTH120
        cwd=PROJECT_ROOT,
        env={"HOME": str(home), "PATH": "/nonexistent", "DAGSTER_DISABLE_TELEMETRY": "yes"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if command == "list":
        assert all(name in done.stdout for name in ASSETS)


@pytest.mark.parametrize("name", ASSETS)
def test_each_asset_says_what_it_is_whose_it_is_and_of_which_version(name: str) -> None:
    found = spec(name)
    assert found.description
    assert found.owners == ["team:data-engineering"]
    assert found.group_name == "taxi_fares"
    assert found.kinds
    assert found.code_version


def test_the_graph_is_a_chain_from_the_trips_to_the_trends() -> None:
    parents = {name: [dep.asset_key.to_user_string() for dep in spec(name).deps] for name in ASSETS}
    assert parents == {
        "yellow_taxi_trips": [],
        "fare_by_passenger_count": ["yellow_taxi_trips"],
        "fare_trends": ["fare_by_passenger_count"],
    }


@pytest.mark.parametrize("name", ASSETS[1:])
def test_every_declared_column_has_a_description_and_its_lineage(name: str) -> None:
    metadata = spec(name).metadata
    columns = metadata["dagster/column_schema"].columns
    lineage = metadata["dagster/column_lineage"].deps_by_column
    assert all(column.description for column in columns)
    assert list(lineage) == [column.name for column in columns]


def test_partitions_are_the_whole_years_from_2011_without_an_end() -> None:
    years = TAXI_YEARS.get_partition_keys()
    assert years[0] == "2011"
    assert years == [str(year) for year in range(2011, 2011 + len(years))]
    assert TAXI_YEARS.end is None


@pytest.mark.parametrize(
    ("value", "status"), [("", "STOPPED"), ("off", "STOPPED"), ("on", "RUNNING")]
)
def test_automations_are_off_unless_they_are_turned_on(value: str, status: str) -> None:
    code = """
from sparkpar_assets.definitions import defs
for automation in [*(defs.sensors or ()), *(defs.schedules or ())]:
    print(automation.name, automation.default_status.value)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PROJECT_ROOT,
        env={"PATH": "/nonexistent", "SPARKPAR_AUTOMATION": value},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split() for line in done.stdout.splitlines())
    names = ("changed_taxi_years", "default_automation_condition_sensor", "run_failure_alert")
    assert found.pop("dead_staging") == "RUNNING", "it cleans up, whatever else is off"
    assert found == dict.fromkeys((*names, "observe_taxi_tables", "yearly_fares"), status)


def test_the_trends_have_to_be_refreshed_between_15_january_and_1_february() -> None:
    policy = spec("fare_trends").freshness_policy
    assert policy == dg.FreshnessPolicy.cron("0 0 1 2 *", timedelta(days=17))


def test_the_pool_that_is_limited_is_that_of_every_asset_that_uses_spark(tmp_path: Path) -> None:
    for name in ASSETS[1:]:
        op = defs.resolve_assets_def(name).op
        assert isinstance(op, dg.OpDefinition)
        assert op.pool == spark_pool.POOL
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        for limit in (3, 1):
            spark_pool.limit_applications(instance, limit)
            found = instance.event_log_storage.get_pool_limits()
            assert [(pool.name, pool.limit) for pool in found] == [("spark", limit)]


def test_several_years_go_into_one_run() -> None:
    for name in ASSETS[1:]:
        assets = defs.resolve_asset_graph().get(dg.AssetKey(name))
        assert assets.backfill_policy == dg.BackfillPolicy.single_run()
