"""The embedded stack's life: up, down, the death of a server, the command line."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sparkpar_assets.embedded import processes, tables
from sparkpar_assets.embedded.ports import is_taken
from sparkpar_assets.embedded.stack import Health
from sparkpar_assets.embedded.state import State
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.project import PROJECT_ROOT

TRIPS = PROJECT_ROOT / "sample_data" / "tlc_yellow_trips_2021.parquet"
KEPT = "sparkpar-embedded.kept.trips"


@pytest.fixture(autouse=True)
def running_again(embedded_stack: EmbeddedStack) -> Iterator[None]:
    """Leave the stack up for other tests, whatever a failed one did to it."""
    yield
    embedded_stack.stack.up(say=lambda _: None)


def embedded(stack: EmbeddedStack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sparkpar_assets.embedded", *arguments],
        env=stack.env,
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def pids(stack: EmbeddedStack) -> dict[str, int | None]:
    return {status.server.name: status.pid for status in stack.stack.status()}


def test_a_second_up_starts_nothing_and_is_quick(embedded_stack: EmbeddedStack) -> None:
    before, said = pids(embedded_stack), list[str]()
    embedded_stack.stack.up(say=said.append)
    assert pids(embedded_stack) == before
    assert not [line for line in said if "Starting" in line]


def test_every_server_listens_on_this_machine_alone(embedded_stack: EmbeddedStack) -> None:
    listening = [
        connection.laddr
        for _, process in processes.of_stack(embedded_stack.stack.state)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    servers = set(embedded_stack.ports) - {"dagster"}
    assert {embedded_stack.ports[name] for name in servers} <= {item.port for item in listening}
    assert {item.ip.removeprefix("::ffff:") for item in listening} == {"127.0.0.1"}


def test_no_secret_is_in_a_command_line_or_a_log(embedded_stack: EmbeddedStack) -> None:
    secret = embedded_stack.env["AWS_SECRET_ACCESS_KEY"]
    running = [process for _, process in processes.of_stack(embedded_stack.stack.state)]
    assert len(running) >= 7
    assert not [process for process in running if secret in " ".join(process.cmdline())]
    logs = list(embedded_stack.stack.state.logs.iterdir())
    assert not [file for file in logs if secret in file.read_text(errors="replace")]


def test_a_killed_server_is_reported_with_the_end_of_its_log_and_started_anew(
    embedded_stack: EmbeddedStack,
) -> None:
    embedded_stack.load(KEPT, TRIPS)
    before = pids(embedded_stack)
    for name in ("bigquery", "s3", "spark-master"):
        psutil.Process(before[name]).kill()
        psutil.wait_procs([psutil.Process(before[name])], timeout=10)
    shown = embedded(embedded_stack, "status")
    assert shown.returncode == 1
    assert re.search(r"^bigquery +dead ", shown.stdout, re.MULTILINE)
    assert "bigquery is dead. The end of its log:\n" in shown.stdout
    assert "http.request" in shown.stdout.partition("bigquery is dead")[2]

    assert embedded(embedded_stack, "up").returncode == 0
    after = pids(embedded_stack)
    survivors = ("spark-worker-1", "spark-worker-2", "token-endpoint", "spark-history")
    assert {name: after[name] for name in survivors} == {name: before[name] for name in survivors}
    client = tables.connect(embedded_stack.stack.config)
    assert client.get_table(KEPT).num_rows == 23_792


def test_down_leaves_no_process_and_keeps_the_data(embedded_stack: EmbeddedStack) -> None:
    client = embedded_stack.s3_client()
    client.put_object(Bucket="sparkpar", Key="kept", Body=b"object", Metadata={"run-id": "1"})
    embedded_stack.load(KEPT, TRIPS)
    assert embedded(embedded_stack, "down").returncode == 0
    assert not list(processes.of_stack(embedded_stack.stack.state))
    assert not [name for name, port in embedded_stack.ports.items() if is_taken(port)]
    assert {status.health for status in embedded_stack.stack.status()} == {Health.STOPPED}

    assert embedded(embedded_stack, "up").returncode == 0
    kept = client.get_object(Bucket="sparkpar", Key="kept")
    assert (kept["Body"].read(), kept["Metadata"]) == (b"object", {"run-id": "1"})
    rows = tables.connect(embedded_stack.stack.config).get_table(KEPT).num_rows
    assert rows == 23_792


def test_wrong_s3_keys_are_refused(embedded_stack: EmbeddedStack) -> None:
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.Session().client(
        "s3",
        endpoint_url=embedded_stack.env["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=embedded_stack.env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key="wrong",
        region_name="us-east-1",
    )
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket="sparkpar")


def test_an_interrupted_up_is_taken_up_by_the_next_command(
    embedded_stack: EmbeddedStack, tmp_path: Path
) -> None:
    state = State(tmp_path / "a stack")
    command = [sys.executable, "-m", "sparkpar_assets.embedded"]
    env = embedded_stack.env | {"SPARKPAR_STATE": str(state.root)}
    up = subprocess.Popen([*command, "up"], env=env, stdout=subprocess.PIPE, text=True)
    assert up.stdout is not None
    assert up.stdout.readline().startswith("==> Starting")
    assert up.stdout.readline().strip()  # the first server is up, others are not
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=30) == 130
    assert list(processes.of_stack(state))
    down = subprocess.run([*command, "down"], env=env, capture_output=True, check=True, text=True)
    assert not list(processes.of_stack(state))
    assert "Stopped" in down.stdout


def test_an_unknown_server_is_answered_with_the_known_ones(embedded_stack: EmbeddedStack) -> None:
    shown = embedded(embedded_stack, "logs", "mysql")
    assert shown.returncode == 1
    assert "There is no server mysql. The servers are: bigquery, spark-master" in shown.stderr


def test_logs_show_the_end_of_a_servers_log(embedded_stack: EmbeddedStack) -> None:
    shown = embedded(embedded_stack, "logs", "token-endpoint").stdout
    assert (embedded_stack.stack.state.logs / "token-endpoint.log").read_text().strip() in shown


def test_load_explains_a_file_that_is_not_parquet(embedded_stack: EmbeddedStack) -> None:
    shown = embedded(embedded_stack, "load", KEPT, __file__)
    assert shown.returncode == 1
    assert "is not a Parquet file" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_env_before_any_up_says_what_to_do(embedded_stack: EmbeddedStack, tmp_path: Path) -> None:
    env = embedded_stack.env | {"SPARKPAR_STATE": str(tmp_path)}
    command = [sys.executable, "-m", "sparkpar_assets.embedded", "env"]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (1, "")
    assert "was never started. Start it by ./run.sh embedded up." in shown.stderr
