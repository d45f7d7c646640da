"""Dagster's tools work as the README prints them."""

import signal
import socket
import subprocess
import time
from decimal import Decimal

import dagster as dg
import psutil
import pyarrow as pa
import pytest
import requests

from sparkpar_assets.definitions import defs
from sparkpar_assets.project import PROJECT_ROOT
from tests.integration.workbench import FARES, Workbench

ASSETS = {"yellow_taxi_trips", "fare_by_passenger_count", "fare_trends"}
START_SECONDS = 90
NODES = "{ assetNodes { assetKey { path } } }"

TRIPS = pa.table(
    {
        "passenger_count": pa.array([1, 1, 2], pa.int64()),
        "fare_amount": pa.array([Decimal(5), Decimal(7), Decimal(9)], pa.decimal128(38, 9)),
        "tip_amount": pa.array([Decimal(1)] * 3, pa.decimal128(38, 9)),
        "trip_distance": pa.array([Decimal(2)] * 3, pa.decimal128(38, 9)),
    }
)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def asset_names(port: int, server: subprocess.Popen[str], bench: Workbench) -> set[str]:
    """The assets that a web server lists, once it serves."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            answer = requests.post(
                f"http://127.0.0.1:{port}/graphql", json={"query": NODES}, timeout=30
            ).json()
        except requests.ConnectionError:
            time.sleep(0.2)  # a port that does not listen yet can only be tried again
            continue
        return {node["assetKey"]["path"][0] for node in answer["data"]["assetNodes"]}
    raise AssertionError(bench.output_of(server))


def test_dg_launch_materializes_a_year(workbench: Workbench) -> None:
    workbench.share_driver()
    workbench.load_trips(2018, TRIPS)
    done = workbench.run(
        *workbench.command("dg", "launch", "--assets", FARES, "--partition", "2018")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert workbench.materialized_years() == ["2018"]
    assert workbench.published(2018)["trips"].to_pylist() == [2, 1]


@pytest.mark.parametrize("tool", [["dagster-webserver"], ["dagster", "dev"]], ids=" ".join)
def test_the_ui_serves_the_three_assets_and_stops_at_ctrl_c(
    workbench: Workbench, free_port: int, tool: list[str]
) -> None:
    options = ["-w", "workspace.local.yaml", "-h", "127.0.0.1", "-p", str(free_port)]
    server = workbench.start(*workbench.command(*tool, *options))
    assert asset_names(free_port, server, workbench) == ASSETS
    children = psutil.Process(server.pid).children(recursive=True)
    server.send_signal(signal.SIGINT)
    server.wait(60)
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []


def test_observing_all_years_asks_for_metadata_alone_and_leaves_out_years_without_a_table(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for year in (2018, 2019):
        workbench.load_trips(year, TRIPS)
    workbench.configure(SPARK_MASTER_URL="spark://127.0.0.1:1", JAVA_HOME="/nonexistent")
    for name, value in workbench.env.items():
        monkeypatch.setenv(name, value)

    def observe() -> dict[str, dg.AssetObservation]:
        with workbench.instance() as instance:
            job = defs.resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(
                asset_selection=[dg.AssetKey("yellow_taxi_trips")], instance=instance
            )
        return {
            str(observation.partition): observation
            for observation in result.asset_observations_for_node("yellow_taxi_trips")
        }

    first = observe()
    assert list(first) == ["2018", "2019"]
    metadata = {name: value.value for name, value in first["2018"].metadata.items()}
    assert metadata["dagster/table_name"] == f"{workbench.settings.taxi_table_prefix}2018"
    assert metadata["dagster/partition_row_count"] == 3
    versions = {year: seen.tags["dagster/data_version"] for year, seen in first.items()}
    workbench.load_trips(2019, TRIPS.slice(0, 2))
    again = {year: seen.tags["dagster/data_version"] for year, seen in observe().items()}
    assert again["2018"] == versions["2018"]
    assert again["2019"] > versions["2019"]


@pytest.mark.parametrize("workspace", ["workspace.yaml", "workspace.local.yaml"])
def test_the_workspaces_name_the_location_as_the_project_does(workspace: str) -> None:
    project = (PROJECT_ROOT / "pyproject.toml").read_text()
    assert 'code_location_name = "sparkpar_assets"' in project
    assert "location_name: sparkpar_assets" in (PROJECT_ROOT / workspace).read_text()
