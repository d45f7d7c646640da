"""The Spark resource's configuration and the looks it takes before it starts."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import dagster as dg
import pytest
from pyspark.errors import PySparkException

from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.resources.scratch import SCRATCH_PREFIX, remove_dead_scratch
from sparkpar_assets.resources.spark import _describe_progress
from sparkpar_assets.resources.spark_checks import check_jars, check_master
from sparkpar_assets.resources.spark_configuration import (
    FEW_ROWS,
    FIRST_COMPILER_ALONE,
    launch_environment,
    spark_properties,
)
from sparkpar_assets.resources.spark_losses import LostExecutors, explained_losses
from sparkpar_assets.resources.spark_security import AUTHENTICATION
from sparkpar_assets.settings import load_settings

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE000000000",
    "AWS_SECRET_ACCESS_KEY": "hush\\hush",
    "AWS_SESSION_TOKEN": "whisper",
}


def test_no_secret_is_in_the_configuration_that_goes_onto_the_command_line(tmp_path: Path) -> None:
    settings = load_settings(SECRETS | {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000"})
    configuration = spark_properties(settings, "application", tmp_path)
    assert not any(secret in str(configuration) for secret in SECRETS.values())


def test_secrets_go_through_a_file_for_this_user_alone_that_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYSPARK_SUBMIT_ARGS", raising=False)
    with launch_environment(load_settings(SECRETS), "/java", tmp_path):
        (file,) = tmp_path.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        lines = file.read_text().splitlines()
        assert str(file) in os.environ["PYSPARK_SUBMIT_ARGS"]
    assert "spark.hadoop.fs.s3a.secret.key=hush\\\\hush" in lines
    assert "spark.hadoop.fs.s3a.session.token=whisper" in lines
    assert list(tmp_path.iterdir()) == []
    assert "PYSPARK_SUBMIT_ARGS" not in os.environ


def test_the_clusters_secret_goes_the_same_way_and_its_absence_changes_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "secret"
    file.write_text("hush\n")
    file.chmod(0o600)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    settings = load_settings({"SPARK_AUTH_SECRET_FILE": str(file)})
    with launch_environment(settings, "/java", scratch):
        lines = (scratch / "spark.properties").read_text().splitlines()
    assert "spark.authenticate.secret=hush" in lines
    configuration = spark_properties(settings, "application", scratch)
    assert configuration.items() >= AUTHENTICATION.items()
    assert "hush" not in str(configuration)
    without = spark_properties(load_settings({}), "application", scratch)
    assert not AUTHENTICATION.keys() & without.keys()


def test_the_containers_ask_for_the_same_as_the_embedded_stack() -> None:
    text = (PROJECT_ROOT / "docker" / "spark-defaults.conf").read_text()
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert dict(lines).items() >= AUTHENTICATION.items()


def test_the_users_spark_defaults_stay_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "spark-defaults.conf").write_text("spark.locality.wait 1s")
    monkeypatch.setenv("SPARK_CONF_DIR", str(conf))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with launch_environment(load_settings({}), "/java", scratch):
        assert "spark.locality.wait 1s\n" in (scratch / "spark.properties").read_text()


@pytest.mark.parametrize(
    ("values", "provider"),
    [
        ({}, "com.amazonaws.auth.DefaultAWSCredentialsProviderChain"),
        (
            {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
            "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
        ),
        (SECRETS, "org.apache.hadoop.fs.s3a.TemporaryAWSCredentialsProvider"),
    ],
)
def test_credentials_that_are_not_set_come_from_the_usual_chain(
    tmp_path: Path, values: dict[str, str], provider: str
) -> None:
    configuration = spark_properties(load_settings(values), "application", tmp_path)
    assert configuration["spark.hadoop.fs.s3a.aws.credentials.provider"] == provider


def test_a_trust_store_in_a_folder_with_a_space_is_one_option(tmp_path: Path) -> None:
    settings = load_settings({"TLS_TRUST_STORE": "/a b/trust.p12"})
    options = spark_properties(settings, "application", tmp_path)["spark.executor.extraJavaOptions"]
    assert '"-Djavax.net.ssl.trustStore=/a b/trust.p12"' in options


@pytest.mark.parametrize(
    ("rows", "is_short"), [(0, True), (FEW_ROWS - 1, True), (FEW_ROWS, False), (None, False)]
)
def test_executors_of_few_rows_have_the_first_compiler_alone_unless_the_user_wants_both(
    tmp_path: Path, rows: int | None, is_short: bool
) -> None:
    settings = load_settings({"SPARK_EXECUTOR_JAVA_OPTIONS": "-XX:TieredStopAtLevel=4"})
    configuration = spark_properties(settings, "application", tmp_path, rows)
    *first, last = configuration["spark.executor.extraJavaOptions"].split()
    assert (FIRST_COMPILER_ALONE in first) == is_short
    assert last == "-XX:TieredStopAtLevel=4"  # of one option given twice Java takes the last


def test_any_of_several_masters_may_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as master:
        check_master(f"spark://127.0.0.1:1,127.0.0.1:{master.getsockname()[1]}")


@pytest.mark.parametrize("master", ["local[*]", "yarn", "k8s://https://127.0.0.1:1"])
def test_only_standalone_masters_are_asked(master: str) -> None:
    check_master(master)


def test_a_master_url_without_a_port_is_named() -> None:
    with pytest.raises(dg.Failure) as refused:
        check_master("spark://somewhere")
    assert "No Spark master answers at spark://somewhere" in str(refused.value.description)


def test_jars_of_optional_groups_and_of_servers_are_not_missed(tmp_path: Path) -> None:
    (tmp_path / "jars.toml").write_text(
        '[[jar]]\ncoordinates = "org.a:one:1"\n'
        '[[jar]]\ncoordinates = "org.a:two:2:shaded"\n'
        '[[jar]]\ncoordinates = "org.a:three:3"\ngroup = "gcs"\n'
        '[[jar]]\ncoordinates = "org.a:four:4"\nserver = true\n'
    )
    with pytest.raises(dg.Failure) as missing:
        check_jars(tmp_path)
    assert str(missing.value.description) == (
        f"Jars are missing from {tmp_path}: one-1.jar, two-2-shaded.jar. Run ./download_jars.sh."
    )
    (tmp_path / "one-1.jar").touch()
    (tmp_path / "two-2-shaded.jar").touch()
    check_jars(tmp_path)


def test_progress_counts_the_tasks_of_active_stages() -> None:
    stage = {"stageId": 4, "numTasks": 12, "numCompleteTasks": 5, "numActiveTasks": 2}
    driver = {"id": "driver", "totalCores": 0}
    executor = {"id": "0", "totalCores": 1}
    assert _describe_progress([stage], [driver, executor]) == (
        "Spark: stage 4, 5 of 12 tasks done, 2 running"
    )
    assert _describe_progress([stage], [driver]).startswith("Spark waits for an executor")
    assert _describe_progress([], [driver]) == ""


HOLD = """
import sys, time
from pathlib import Path
from sparkpar_assets.resources.scratch import hold_scratch
hold_scratch(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_temporary_files_go_with_the_next_run_once_their_run_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
    (scratch / "spark.properties").write_text("a secret")
    other = Path(tempfile.mkdtemp(prefix="another-program-"))
    command = [sys.executable, "-c", HOLD, str(scratch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stdout.readline() == "held\n"
        remove_dead_scratch()
        assert (scratch / "spark.properties").exists()
        run.kill()
    remove_dead_scratch()
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Job aborted due to stage failure: java.io.IOException: No space left on device", "disk"),
        (
            "Job aborted due to stage failure: ExecutorLostFailure (executor 2 exited) Reason: "
            "Command exited with code 52",
            "SPARK_EXECUTOR_MEMORY",
        ),
        ("An error occurred: java.lang.OutOfMemoryError: Java heap space", "SPARK_DRIVER_MEMORY"),
        ("Job aborted due to stage failure: ExecutorLostFailure (executor 1 exited)", "workers"),
        ("Job 0 cancelled because SparkContext was shut down", "master"),
        ("StatusRuntimeException: PERMISSION_DENIED: no bigquery.readsessions.create", "BigQuery"),
        ("AmazonS3Exception: Forbidden (Service: Amazon S3; Status Code: 403; …)", "policy"),
    ],
)
def test_what_spark_has_lost_is_said_in_a_sentence(said: str, remedy: str) -> None:
    with pytest.raises(dg.Failure, match=remedy), explained_losses():
        raise PySparkException(said)


def test_what_spark_says_of_anything_else_is_left_as_it_is() -> None:
    with pytest.raises(PySparkException, match="AnalysisException"), explained_losses():
        raise PySparkException("AnalysisException")


def test_executors_are_counted_as_lost_until_a_task_is_done() -> None:
    losses = LostExecutors()

    def lost(dead: int, done: int) -> int:
        executors = [{"isActive": False, "completedTasks": 0}] * dead
        return losses.count([*executors, {"isActive": True, "completedTasks": done}])

    assert [lost(0, 0), lost(3, 0), lost(5, 1), lost(5, 1), lost(9, 1)] == [0, 3, 0, 0, 4]
