"""The Spark cluster lets in only who has its secret, and what is said in it cannot be read."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
import requests

from sparkpar_assets.embedded import spark_master
from sparkpar_assets.embedded.credentials import spark_properties_file
from sparkpar_assets.embedded.jvm import spark_command, spark_environment
from sparkpar_assets.embedded.ports import HOST
from sparkpar_assets.embedded.server import StackConfig
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.resources.private_files import write_private
from sparkpar_assets.resources.spark_security import AUTHENTICATION
from tests.integration.versions import fares, trips_table
from tests.integration.workbench import FARES, Workbench, wait_until

WRONG = "0" * 64
Log = Callable[[], str]


def write_properties(folder: Path, values: dict[str, str]) -> Path:
    """A file of Spark properties."""
    file = folder / "spark.properties"
    write_private(file, "".join(f"{name} {value}\n" for name, value in values.items()))
    return file


@contextmanager
def spark_server(config: StackConfig, name: str, log: Path, *arguments: str) -> Iterator[Log]:
    """A master or worker of a test's own; gives what it has logged so far."""
    main_class = f"org.apache.spark.deploy.{name.lower()}.{name}"
    command = spark_command(config, main_class, "--host", HOST, *arguments, properties={})
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=spark_environment(config), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield lambda: log.read_text(errors="replace")
    finally:
        process.kill()  # a worker that was refused may be deaf to all else
        process.wait()


def worker(
    config: StackConfig, folder: Path, properties: Path, master: str
) -> AbstractContextManager[Log]:
    """A worker with these properties that wants to join a master."""
    sizes = ("--cores", "2", "--memory", "2g", "--work-dir", str(folder / "work"))
    options = ("--webui-port", "0", "--properties-file", str(properties))
    return spark_server(config, "Worker", folder / "worker.log", *sizes, *options, master)


@contextmanager
def tapped(master: str) -> Iterator[tuple[str, list[bytes]]]:
    """A way to a master on which all that is said is heard: its URL, and what was said."""
    host, _, port = master.removeprefix("spark://").rpartition(":")
    heard: list[bytes] = []

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                heard.append(piece)
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                behind = socket.create_connection((host, int(port)))
                for ends in ((client, behind), (behind, client)):
                    threading.Thread(target=pass_on, args=ends, daemon=True).start()

    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield f"spark://{HOST}:{server.getsockname()[1]}", heard


@pytest.fixture
def open_cluster(embedded_stack: EmbeddedStack, tmp_path: Path) -> Iterator[str]:
    """The URL of a cluster that asks nobody for a secret, as a user's own may be."""
    config = embedded_stack.stack.config
    nothing = write_properties(tmp_path, {})
    options = ("--port", "0", "--webui-port", "0", "--properties-file", str(nothing))
    with spark_server(config, "Master", tmp_path / "master.log", *options) as log:
        wait_until(lambda: "New state: ALIVE" in log(), "the master")
        found = re.search(r"Starting Spark master at (\S+)", log())
        assert found is not None
        with worker(config, tmp_path, nothing, found[1]) as worker_log:
            wait_until(lambda: "Successfully registered" in worker_log(), "the worker")
            yield found[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "values",
    [{}, {**AUTHENTICATION, "spark.authenticate.secret": WRONG}],
    ids=["without", "with another"],
)
def test_a_worker_without_the_secret_is_not_let_in(
    embedded_stack: EmbeddedStack, tmp_path: Path, values: dict[str, str]
) -> None:
    config = embedded_stack.stack.config
    ui_port = config.ports["spark-master-ui"]
    before = [one["id"] for one in spark_master.master_state(ui_port)["workers"]]
    file = write_properties(tmp_path, values)
    with worker(config, tmp_path, file, spark_master.master_url(config)) as log:
        # The second try begins after the first one was refused, or had no answer.
        wait_until(lambda: "Retrying connection to master (attempt # 2)" in log(), "its tries")
        after = [one["id"] for one in spark_master.master_state(ui_port)["workers"]]
        assert "Successfully registered" not in log()
    assert after == before


def refused_run(bench: Workbench, secret_file: str) -> str:
    """What a run of this secret prints, which has to fail."""
    bench.configure(SPARK_AUTH_SECRET_FILE=secret_file)
    done = bench.materialize("--select", FARES, "--partition", "2018")
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_a_driver_without_the_secret_is_not_let_in_and_the_run_says_so_at_once(
    workbench: Workbench, open_cluster: str
) -> None:
    config = workbench.stack.stack.config
    workbench.load_trips(2018, trips_table(3))
    secret = workbench.folder / "secret"
    write_private(secret, WRONG)
    sentence = f"The Spark master at {spark_master.master_url(config)} would not let the run in: "
    without = refused_run(workbench, "")
    assert f"{sentence}it asks for a secret. Set SPARK_AUTH_SECRET_FILE" in without
    wrong = refused_run(workbench, str(secret))
    assert f"{sentence}it has another secret." in wrong
    assert WRONG not in without + wrong
    state = spark_master.master_state(config.ports["spark-master-ui"])
    applications = [*state["activeapps"], *state["completedapps"]]
    assert not [app for app in applications if "2018" in app["name"]]

    workbench.configure(SPARK_MASTER_URL=open_cluster)
    unasked = refused_run(workbench, str(secret))
    assert f"The Spark master at {open_cluster} would not let the run in: it asks for no" in unasked


@pytest.mark.slow  # Spark itself tries for a minute
def test_spark_itself_lets_no_driver_in_without_the_secret(
    embedded_stack: EmbeddedStack, tmp_path: Path
) -> None:
    config = embedded_stack.stack.config
    master = spark_master.master_url(config)
    asks = (
        "from pyspark.sql import SparkSession\n"
        f"session = SparkSession.builder.master({master!r}).appName('stranger').getOrCreate()\n"
        "print('counted', session.range(3).count())\n"
    )
    strangers = []
    for name, values in {
        "without": {},
        "wrong": {**AUTHENTICATION, "spark.authenticate.secret": WRONG},
    }.items():
        (tmp_path / name).mkdir()
        file = write_properties(tmp_path / name, values)
        arguments = f"--properties-file {file} pyspark-shell"
        strangers.append(
            subprocess.Popen(
                [sys.executable, "-c", asks],
                env=spark_environment(config) | {"PYSPARK_SUBMIT_ARGS": arguments},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for stranger in strangers:
        output, errors = stranger.communicate(timeout=180)
        assert stranger.returncode != 0
        assert "counted" not in output
        assert "All masters are unresponsive" in errors
    state = spark_master.master_state(config.ports["spark-master-ui"])
    applications = [*state["activeapps"], *state["completedapps"]]
    assert not [app for app in applications if app["name"] == "stranger"]


@pytest.mark.slow
def test_what_a_driver_says_to_the_master_cannot_be_read(workbench: Workbench) -> None:
    workbench.load_trips(2018, trips_table(3))
    with tapped(workbench.settings.spark_master) as (master, heard):
        workbench.configure(SPARK_MASTER_URL=master)
        workbench.materialize_years(2018)
    said = b"".join(heard)
    assert len(said) > 1000
    assert FARES.encode() not in said  # of the application's name
    assert b"RegisterApplication" not in said
    assert workbench.published(2018).to_pylist() == fares(3)


@pytest.mark.slow
def test_a_cluster_that_asks_for_no_secret_works_as_ever(
    workbench: Workbench, open_cluster: str
) -> None:
    workbench.load_trips(2018, trips_table(3))
    with tapped(open_cluster) as (master, heard):
        workbench.configure(SPARK_MASTER_URL=master, SPARK_AUTH_SECRET_FILE="")
        workbench.materialize_years(2018)
    said = b"".join(heard)
    assert FARES.encode() in said  # which is why the other test would notice
    assert b"RegisterApplication" in said
    assert workbench.published(2018).to_pylist() == fares(3)


@pytest.mark.slow
def test_pages_of_the_cluster_end_nothing(workbench: Workbench) -> None:
    ui_port = workbench.stack.ports["spark-master-ui"]
    master = workbench.stack.stack.config.url("spark-master-ui")
    workbench.load_trips(2018, trips_table(3))
    run = workbench.popen("--select", FARES, "--partition", "2018")
    wait_until(lambda: spark_master.master_state(ui_port)["activeapps"], "the application")
    (application,) = spark_master.master_state(ui_port)["activeapps"]
    page = requests.get(master, timeout=10)
    assert application["id"] in page.text
    assert "/kill" not in page.text
    form = {"id": application["id"], "terminate": "true"}
    requests.post(f"{master}/app/kill/", data=form, timeout=10)  # leads back to the page
    answer = requests.post(f"{master}/workers/kill/", data={"host": HOST}, timeout=10)
    assert answer.status_code == 405
    assert run.wait(timeout=120) == 0, workbench.output_of(run)
    state = spark_master.master_state(ui_port)
    assert len([one for one in state["workers"] if one["state"] == "ALIVE"]) == 2


def test_the_cluster_takes_no_applications_over_http(embedded_stack: EmbeddedStack) -> None:
    ui_port = embedded_stack.ports["spark-master-ui"]
    assert "resturl" not in {name.lower() for name in spark_master.master_state(ui_port)}
    log = embedded_stack.stack.state.logs / "spark-master.log"
    assert "StandaloneRestServer" not in log.read_text()


@pytest.mark.slow
def test_the_cipher_that_notices_changes_still_loses_messages(
    embedded_stack: EmbeddedStack, tmp_path: Path
) -> None:
    """If this fails, Spark's AES-GCM works: use it in spark_security.py (SPARK-56227)."""
    config = embedded_stack.stack.config
    own = spark_properties_file(config.state).read_text()
    file = tmp_path / "gcm.properties"
    write_private(file, own.replace("AES/CTR/NoPadding", "AES/GCM/NoPadding"))
    options = ("--port", "0", "--webui-port", "0", "--properties-file", str(file))
    with spark_server(config, "Master", tmp_path / "master.log", *options) as log:
        wait_until(lambda: "New state: ALIVE" in log(), "the master")
        found = re.search(r"Starting Spark master at (\S+)", log())
        assert found is not None
        with worker(config, tmp_path, file, found[1]) as worker_log:
            wait_until(lambda: "(attempt # 2)" in worker_log(), "the worker's tries")
            assert "Successfully registered" not in worker_log()
