"""The graph: what loading it costs, and what it says of each asset."""

import os
import subprocess
import sys

import dagster as dg
import pytest

from sparkpar_assets.definitions import defs
from sparkpar_assets.partitions import TAXI_YEARS
from sparkpar_assets.settings import PROJECT_ROOT

ASSETS = ("yellow_taxi_trips", "fare_by_passenger_count", "fare_trends")


def spec(name: str) -> dg.AssetSpec:
    return next(spec for spec in defs.resolve_all_asset_specs() if spec.key == dg.AssetKey(name))


def test_importing_needs_no_variable_java_or_network_and_loads_no_heavy_library() -> None:
    code = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("importing reached out")
socket.socket.connect = refuse
import sparkpar_assets.definitions
heavy = {"pyspark", "py4j", "boto3", "google.cloud.bigquery", "pyarrow", "pandas", "matplotlib"}
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


def test_several_years_go_into_one_run() -> None:
    for name in ASSETS[1:]:
        assets = defs.resolve_asset_graph().get(dg.AssetKey(name))
        assert assets.backfill_policy == dg.BackfillPolicy.single_run()
