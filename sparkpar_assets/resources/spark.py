"""The life of the Spark session: one a run, started at first use, stopped in the end."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import dagster as dg
from pydantic import PrivateAttr, SecretStr

from sparkpar_assets.resources.environment import RunEnvironment
from sparkpar_assets.resources.java import JavaNotUsableError, find_java_home
from sparkpar_assets.resources.private_files import read_private
from sparkpar_assets.resources.s3 import check_bucket
from sparkpar_assets.resources.scratch import SCRATCH_PREFIX, hold_scratch, remove_dead_scratch
from sparkpar_assets.resources.spark_losses import (
    EXECUTORS_END,
    MOST_LOST_EXECUTORS,
    LostExecutors,
)
from sparkpar_assets.resources.spark_security import AUTHENTICATION, refusal
from sparkpar_assets.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterLogManager
    from pyspark.sql import SparkSession

MASTER_TIMEOUT_SECONDS = 5
PROGRESS_SECONDS = 3
JVM_EXIT_SECONDS = 120
SCRATCH_PROPERTY = "run.scratch"
"""System property of driver and executors: the folder of what is gone with the run. (Spark refuses
to pass on names that begin with its own.)"""
SQL_SEMANTICS = {
    "spark.sql.session.timeZone": "UTC",
    # What overflows, divides by zero or cannot be cast is an error, not NULL or another number.
    "spark.sql.ansi.enabled": "true",
    # The default is INT96, which the Parquet format has given up.
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
}
"""What the transforms count on."""
DATA_ERROR = re.compile(
    r"\[(?:ARITHMETIC_OVERFLOW|CAST_INVALID_INPUT|CAST_OVERFLOW|DIVIDE_BY_ZERO|"
    r"NUMERIC_VALUE_OUT_OF_RANGE)[A-Z_.]*\] (?P<sentence>[^\n]*?\.)(?= If necessary| Use `|\n|$)"
)
"""What Spark says of rows that its SQL refuses, without the advice to turn that off (Spark's
documentation, "Error Conditions")."""
SHUFFLE_CORES = 8
"""Assumed where a run takes what is free: the counts by fare are small even for all years."""


class Spark(dg.ConfigurableResource[object]):
    """One Spark application for a whole run, on whichever master the settings name.

    Built on ``dagster_pyspark.LazyPySparkResource``, which starts a session at first use but never
    stops it: here it is stopped, its JVM with it, when the run ends in whatever way.
    """

    environment: RunEnvironment

    _session: "SparkSession | None" = PrivateAttr(default=None)
    _application: str = PrivateAttr(default="sparkpar_assets")
    _session_seconds: float = PrivateAttr(default=0.0)
    _session_since: float = PrivateAttr(default=0.0)
    _scratch: str | None = PrivateAttr(default=None)
    _scratch_lock: int | None = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Spark"]:
        """Give the resource to the run; stop what was started, however the run ends."""
        self._application = _application_name(context.run)
        try:
            yield self
        finally:
            self._stop()

    @property
    def session(self) -> "SparkSession":
        """The run's session. The first use starts it, in some seconds.

        Raises:
            dg.Failure: There is no usable Java, jar, bucket or master.
        """
        if self._session is None:
            started = time.monotonic()
            self._session = self._start(self.environment.settings)
            self._session_seconds = time.monotonic() - started
            self._session_since = time.time()
        return self._session

    def seconds_starting(self, since: float) -> float:
        """How long the session took to start; 0 if it had started before already.

        Args:
            since: A time, in seconds since 1970.
        """
        return self._session_seconds if self._session_since > since else 0.0

    @property
    def application_id(self) -> str:
        """Spark's id of the application, as its UIs show it."""
        return str(self.session.sparkContext.applicationId)

    @property
    def ui_url(self) -> str:
        """Where the application's stages are shown: on a History Server, if there is one.

        The application's own UI ends with the run.
        """
        history = self.environment.settings.spark_history_url
        if history:
            return f"{history.rstrip('/')}/history/{quote(self.application_id)}/"
        return str(self.session.sparkContext.uiWebUrl or "")

    @contextmanager
    def progress(self, log: "DagsterLogManager") -> Iterator[None]:
        """Write Spark's progress to the run's log while the block lasts; if it fails, end its jobs.

        Raises:
            dg.Failure: One executor after the other ended, and no task was done.
        """
        context = self.session.sparkContext
        ended, hopeless = threading.Event(), threading.Event()

        def give_up() -> None:
            hopeless.set()
            context.cancelAllJobs()

        watcher = threading.Thread(
            target=_watch,
            args=(
                f"{context.uiWebUrl}/api/v1/applications/{context.applicationId}",
                log,
                ended,
                give_up,
            ),
            name="spark-progress",
            daemon=True,
        )
        watcher.start()
        try:
            yield
        except BaseException as error:
            _ask_apart(context.cancelAllJobs)  # else they would go on for nobody
            if hopeless.is_set() and isinstance(error, Exception):
                raise dg.Failure(EXECUTORS_END, allow_retries=False) from error
            raise
        finally:
            ended.set()
            watcher.join(timeout=PROGRESS_SECONDS)

    def _start(self, settings: Settings) -> "SparkSession":
        from dagster_pyspark import LazyPySparkResource
        from py4j.protocol import Py4JError
        from pyspark import SparkContext
        from pyspark.errors import PySparkException

        java_home = _java_home(settings)
        check_jars(Path(settings.jars_dir))
        check_bucket(settings)
        check_master(settings.spark_master, _cluster_secret(settings))
        if SparkContext._active_spark_context is not None:
            raise dg.Failure(
                "A Spark session is already running in this process. "
                "Stop it first: a run starts one of its own."
            )
        remove_dead_scratch()
        self._scratch = tempfile.mkdtemp(prefix=SCRATCH_PREFIX)
        self._scratch_lock = hold_scratch(Path(self._scratch))
        interrupt_handler = signal.getsignal(signal.SIGINT)
        try:
            with _launch_environment(settings, java_home, Path(self._scratch)):
                session: SparkSession = LazyPySparkResource(
                    spark_config=_configuration(settings, self._application, Path(self._scratch))
                ).spark_session
        except (Py4JError, PySparkException, OSError) as error:
            raise dg.Failure(
                f"Spark did not start: {_cause(error)} "
                "Look at the run's stderr for more, and check the SPARK_ settings.",
            ) from error
        if threading.current_thread() is threading.main_thread():
            # PySpark puts its own handler here; Dagster's is the one that can cancel a run.
            signal.signal(signal.SIGINT, interrupt_handler)
        session.sparkContext.setLogLevel("ERROR")
        return session

    def _stop(self) -> None:
        session, self._session = self._session, None
        try:
            if session is not None:
                _ask_apart(session.stop)
        finally:
            if self._scratch is not None:
                stop_jvm()
                shutil.rmtree(self._scratch, ignore_errors=True)
                self._scratch = None
                if self._scratch_lock is not None:
                    os.close(self._scratch_lock)
                    self._scratch_lock = None


@contextmanager
def explained_data_errors(asset: str) -> Iterator[None]:
    """Say in a sentence what Spark's strict SQL refuses of the rows it reads.

    Args:
        asset: What is computed.

    Raises:
        dg.Failure: A value overflows, is divided by zero or cannot be cast.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        found = DATA_ERROR.search(str(error))
        if found is None:
            raise
        raise dg.Failure(
            f"Spark cannot compute {asset}: {found['sentence'].strip()} "
            "Mend the rows, or the expression that they go into.",
            allow_retries=False,
        ) from error


def _ask_apart(call: Callable[[], object]) -> None:
    """Call into the JVM from a thread of its own; a JVM that was killed answers nothing.

    Each thread has a connection of its own. That of a thread which was interrupted still waits for
    an answer: its next call would begin when the job has ended, and get the answer to that one.
    """
    from py4j.protocol import Py4JError

    def ask() -> None:
        with suppress(Py4JError, OSError):
            call()

    thread = threading.Thread(target=ask, name="spark-end", daemon=True)
    thread.start()
    thread.join(timeout=JVM_EXIT_SECONDS)


def stop_jvm() -> None:
    """End the JVM that PySpark started in this process, if it did.

    Settings such as its class path, its credentials and its cached file systems belong to one run;
    PySpark would keep it for the next session.
    """
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    if gateway is None:
        return
    SparkContext._gateway = None
    SparkContext._jvm = None
    _ask_apart(gateway.shutdown)
    gateway.proc.stdin.close()
    try:
        gateway.proc.wait(timeout=JVM_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        gateway.proc.kill()  # what the run has published stays, whatever keeps its JVM


def check_jars(jars_dir: Path) -> None:
    """Make sure that every jar that ``jars.toml`` pins is there.

    A missing one would show as a ClassNotFoundException in the middle of a run.

    Raises:
        dg.Failure: One is missing, by name.
    """
    manifest = jars_dir / "jars.toml"
    if not manifest.is_file():
        return  # A folder of the user's own: what it holds is up to them.
    pinned = tomllib.loads(manifest.read_text())["jar"]
    needed = [
        "-".join(jar["coordinates"].split(":")[1:]) + ".jar"
        for jar in pinned
        if not jar.get("group") and not jar.get("server")
    ]
    missing = [name for name in needed if not (jars_dir / name).is_file()]
    if missing:
        raise dg.Failure(
            f"{'A jar is' if len(missing) == 1 else 'Jars are'} missing from {jars_dir}: "
            f"{', '.join(missing)}. Run ./download_jars.sh.",
            allow_retries=False,
        )


def check_master(master: str, secret: SecretStr | None = None) -> None:
    """Make sure that a standalone master answers, and would let the driver in.

    Spark itself tries for a minute, then hangs, or fails wherever it is by then.

    Args:
        master: A master URL; only ``spark://host:port[,host:port…]`` is looked at.
        secret: What the driver knows of the cluster's secret.

    Raises:
        dg.Failure: None of the hosts accepts a connection, or the one that does wants another
            secret.
    """
    if not master.startswith("spark://"):
        return
    reasons = []
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        try:
            connection = socket.create_connection((host, int(port)), MASTER_TIMEOUT_SECONDS)
        except (OSError, ValueError) as error:
            reasons.append(f"{address}: {error}")
            continue
        with connection:
            _check_secret(connection, master, secret)
        return
    raise dg.Failure(
        f"No Spark master answers at {master} ({'; '.join(reasons)}). "
        "Start the cluster, or correct SPARK_MASTER_URL.",
        allow_retries=False,
    )


def _check_secret(connection: socket.socket, master: str, secret: SecretStr | None) -> None:
    why = ""
    with suppress(OSError):  # a master that does not say may be busy: the driver will see
        why = refusal(connection, secret.get_secret_value() if secret else None)
    if why:
        raise dg.Failure(
            f"The Spark master at {master} would not let the run in: {why}. Set "
            "SPARK_AUTH_SECRET_FILE to a file with the cluster's spark.authenticate.secret, or "
            "unset it where the cluster asks for none.",
            allow_retries=False,
        )


def _cause(error: Exception) -> str:
    """The first line of what the JVM says, where it is the JVM that says it."""
    from py4j.protocol import Py4JJavaError

    text = str(error.java_exception.toString() if isinstance(error, Py4JJavaError) else error)
    line = text.strip().splitlines()[0]
    return line if line.endswith(".") else f"{line}."


def _java_home(settings: Settings) -> str:
    try:
        return find_java_home(settings.java_home)
    except JavaNotUsableError as error:
        raise dg.Failure(str(error), allow_retries=False) from None


def _application_name(run: dg.DagsterRun | None) -> str:
    if run is None:
        return "sparkpar_assets"
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return f"{', '.join(assets) or run.job_name} {run.run_id}"


def _configuration(settings: Settings, application: str, scratch: Path) -> dict[str, str]:
    """The session's configuration, without secrets: PySpark puts it on the JVM's command line."""
    class_path = f"{settings.jars_dir}/*"
    trust = _trust_store_options(settings)
    configuration = {
        "spark.app.name": application,
        "spark.master": settings.spark_master,
        "spark.driver.memory": settings.spark_driver_memory,
        "spark.driver.host": settings.spark_driver_host,
        "spark.driver.bindAddress": settings.spark_driver_host,
        "spark.driver.extraClassPath": class_path,
        "spark.driver.extraJavaOptions": " ".join(
            [
                f'"-D{SCRATCH_PROPERTY}={scratch}"',
                f'"-Dhadoop.tmp.dir={scratch}"',
                f'"-Djava.io.tmpdir={scratch}"',
                *trust,
                settings.spark_driver_java_options,
            ]
        ),
        "spark.executor.memory": settings.spark_executor_memory,
        "spark.executor.cores": str(settings.spark_executor_cores),
        "spark.executor.extraClassPath": class_path,
        "spark.executor.extraJavaOptions": " ".join(
            # An executor's working folder is the application's own, on every kind of cluster.
            [f"-D{SCRATCH_PROPERTY}=.", *trust, settings.spark_executor_java_options]
        ),
        "spark.cores.max": settings.spark_cores_max and str(settings.spark_cores_max),
        "spark.eventLog.enabled": "true" if settings.spark_event_log_dir else None,
        "spark.eventLog.dir": settings.spark_event_log_dir,
        "spark.ui.showConsoleProgress": "false",
        # Whoever sees the page could end the run's jobs. Dagster's web interface cancels a run.
        "spark.ui.killEnabled": "false",
        **(AUTHENTICATION if settings.spark_auth_secret_file else {}),
        "spark.sql.shuffle.partitions": str(_shuffle_partitions(settings)),
        # Without a key file the client asks Google's metadata server, which only Google's cloud
        # has: elsewhere the question costs seconds in every JVM.
        "spark.executorEnv.NO_GCE_CHECK": "true" if settings.google_credentials_file else None,
        **SQL_SEMANTICS,
        **_s3a_configuration(settings),
    }
    return {name: value for name, value in configuration.items() if value}


def _shuffle_partitions(settings: Settings) -> int:
    """Two tasks a core. Spark's default is 200, nearly all of them empty for a dozen groups."""
    return 2 * (settings.spark_cores_max or SHUFFLE_CORES)


def _trust_store_options(settings: Settings) -> list[str]:
    if not settings.trust_store:
        return []
    return [
        f'"-Djavax.net.ssl.trustStore={settings.trust_store}"',
        "-Djavax.net.ssl.trustStoreType=PKCS12",
    ]


def _s3a_configuration(settings: Settings) -> dict[str, str | None]:
    cloud = "org.apache.spark.internal.io.cloud"
    endpoint = settings.s3_endpoint
    return {
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": settings.aws_region,
        # Servers other than AWS's seldom answer at bucket.host.
        "spark.hadoop.fs.s3a.path.style.access": "true" if endpoint else None,
        "spark.hadoop.fs.s3a.connection.ssl.enabled": (
            "false" if endpoint and endpoint.startswith("http://") else None
        ),
        "spark.hadoop.fs.s3a.aws.credentials.provider": _credentials_provider(settings),
        # The bucket was looked at before Spark started.
        "spark.hadoop.fs.s3a.bucket.probe": "0",
        # A system property, which each JVM has its own of; Hadoop's default is in /tmp for good.
        "spark.hadoop.fs.s3a.buffer.dir": f"${{{SCRATCH_PROPERTY}}}/s3a",
        # Else each file that is written is followed by the removal of the markers of the folders
        # above it, a request each time (Hadoop's documentation, "Directory Marker Retention").
        # All of them are in the run's staging area, which is removed as a whole.
        "spark.hadoop.fs.s3a.directory.marker.retention": "keep",
        "spark.hadoop.fs.s3a.committer.name": "magic",
        "spark.sql.sources.commitProtocolClass": f"{cloud}.PathOutputCommitProtocol",
        "spark.sql.parquet.output.committer.class": f"{cloud}.BindingParquetOutputCommitter",
        # Nobody would read it: a run knows what it has staged by a listing.
        "spark.hadoop.mapreduce.fileoutputcommitter.marksuccessfuljobs": "false",
        "spark.sql.parquet.compression.codec": "zstd",
    }


def _credentials_provider(settings: Settings) -> str:
    if not settings.aws_access_key_id:
        return "com.amazonaws.auth.DefaultAWSCredentialsProviderChain"
    kind = "Temporary" if settings.aws_session_token else "Simple"
    return f"org.apache.hadoop.fs.s3a.{kind}AWSCredentialsProvider"


def _secrets(settings: Settings) -> dict[str, str]:
    values = {
        "spark.hadoop.fs.s3a.access.key": settings.aws_access_key_id,
        "spark.hadoop.fs.s3a.secret.key": settings.aws_secret_access_key,
        "spark.hadoop.fs.s3a.session.token": settings.aws_session_token,
        "spark.authenticate.secret": _cluster_secret(settings),
    }
    return {name: value.get_secret_value() for name, value in values.items() if value}


def _cluster_secret(settings: Settings) -> SecretStr | None:
    """What the cluster asks for, read anew for each run.

    Raises:
        dg.Failure: The file cannot be read, can be read by others, or is empty.
    """
    if not settings.spark_auth_secret_file:
        return None
    secret = read_private(
        Path(settings.spark_auth_secret_file),
        "The cluster's secret",
        "Set SPARK_AUTH_SECRET_FILE to a file of yours that holds the secret of master and "
        "workers, or unset it where they ask for none.",
    )
    return SecretStr(secret.strip())


@contextmanager
def _launch_environment(settings: Settings, java_home: str, scratch: Path) -> Iterator[None]:
    """The environment in which PySpark starts its JVM; as it was, afterwards.

    The secrets reach the JVM in a properties file that only this user can read, and that is gone
    when the JVM has read it.
    """
    properties = scratch / "spark.properties"
    descriptor = os.open(properties, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(_spark_defaults() + _as_properties(_secrets(settings)))
    variables = {
        "JAVA_HOME": java_home,
        "SPARK_LOCAL_DIRS": str(scratch),
        "PYSPARK_SUBMIT_ARGS": f"--properties-file {shlex.quote(str(properties))} pyspark-shell",
    }
    if settings.google_credentials_file:
        variables["NO_GCE_CHECK"] = "true"
    if settings.spark_driver_host:
        variables["SPARK_LOCAL_IP"] = settings.spark_driver_host
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        properties.unlink()


def _spark_defaults() -> str:
    """The user's ``spark-defaults.conf``, which ``--properties-file`` would otherwise replace."""
    from pyspark.find_spark_home import _find_spark_home

    folder = os.environ.get("SPARK_CONF_DIR") or f"{_find_spark_home()}/conf"  # type: ignore[no-untyped-call]
    with suppress(FileNotFoundError):
        return (Path(folder) / "spark-defaults.conf").read_text() + "\n"
    return ""


def _as_properties(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={_escape(value)}\n" for name, value in values.items())


def _escape(value: str) -> str:
    """A value as Java reads it back (java.util.Properties.load); settings have no line breaks."""
    escaped = value.replace("\\", "\\\\")
    return f"\\{escaped}" if escaped.startswith(" ") else escaped


def _watch(
    api: str, log: "DagsterLogManager", ended: threading.Event, give_up: Callable[[], None]
) -> None:
    """Log each change of the application's active stages until ``ended``.

    Args:
        api: The application's address in Spark's REST API (Spark documentation, "Monitoring").
        log: The run's log.
        ended: Set when there is nothing more to watch.
        give_up: Called when one executor after the other ends, and no task is done. Spark's
            master would start executors for ever: each that begins resets its count of failures.
    """
    import requests

    last, losses = "", LostExecutors()
    while not ended.wait(PROGRESS_SECONDS):
        try:
            stages = requests.get(f"{api}/stages?status=active", timeout=PROGRESS_SECONDS).json()
            executors = requests.get(f"{api}/allexecutors", timeout=PROGRESS_SECONDS).json()
        except (requests.RequestException, ValueError):
            continue  # Progress is a courtesy: a UI that does not answer is not the run's failure.
        line = _describe_progress(stages, [item for item in executors if item["isActive"]])
        if line and line != last:
            log.info(line)
            last = line
        if losses.count(executors) >= MOST_LOST_EXECUTORS:
            give_up()


def _describe_progress(
    stages: Sequence[Mapping[str, object]], executors: Sequence[Mapping[str, object]]
) -> str:
    if not stages:
        return ""
    working = sum(1 for item in executors if item["id"] != "driver" or item["totalCores"])
    if not working:
        return "Spark waits for an executor: the cluster has no free worker with enough memory."
    return "Spark: " + "; ".join(
        f"stage {stage['stageId']}, {stage['numCompleteTasks']} of {stage['numTasks']} tasks done, "
        f"{stage['numActiveTasks']} running"
        for stage in stages
    )
