"""How a driver is configured: what stands on its command line, and the secrets that do not."""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import SecretStr

from sparkpar_assets.resources.environment import variables
from sparkpar_assets.resources.private_files import read_private, write_private
from sparkpar_assets.resources.spark_security import AUTHENTICATION
from sparkpar_assets.settings import Settings

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
FEW_ROWS = 4_000_000
"""Below it a run is over before Java's second compiler has paid, which compiles what runs most once
more: on two cores it takes some 5 s, and saves over a second of each million rows (measured, see
benchmarks/NOTES.md)."""
FIRST_COMPILER_ALONE = "-XX:TieredStopAtLevel=1"
SHUFFLE_CORES = 8
"""Assumed where a run takes what is free: the counts by fare are small even for all years."""


def spark_properties(
    settings: Settings, application: str, scratch: Path, rows: int | None = None
) -> dict[str, str]:
    """The session's configuration, without secrets: PySpark puts it on the JVM's command line.

    Args:
        settings: Those of the run.
        application: The application's name.
        scratch: The folder of what is gone with the run.
        rows: How many the application reads in all; None if that is not known, or no end of it.
    """
    is_short = rows is not None and rows < FEW_ROWS
    class_path = f"{settings.jars_dir}/*"
    trust = _trust_store_options(settings)
    values = {
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
            [
                f"-D{SCRATCH_PROPERTY}=.",
                *trust,
                *([FIRST_COMPILER_ALONE] if is_short else []),
                settings.spark_executor_java_options,  # the last one has the say
            ]
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
    return {name: value for name, value in values.items() if value}


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


def secret_properties(settings: Settings) -> dict[str, str]:
    """The rest of the configuration, which no command line may show."""
    values = {
        "spark.hadoop.fs.s3a.access.key": settings.aws_access_key_id,
        "spark.hadoop.fs.s3a.secret.key": settings.aws_secret_access_key,
        "spark.hadoop.fs.s3a.session.token": settings.aws_session_token,
        "spark.authenticate.secret": cluster_secret(settings),
    }
    return {name: value.get_secret_value() for name, value in values.items() if value}


def cluster_secret(settings: Settings) -> SecretStr | None:
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
def launch_environment(settings: Settings, java_home: str, scratch: Path) -> Iterator[None]:
    """The environment in which PySpark starts its JVM; as it was, afterwards.

    The secrets reach the JVM in a properties file that only this user can read, and that is gone
    when the JVM has read it.
    """
    properties = scratch / "spark.properties"
    write_private(properties, spark_defaults() + _as_properties(secret_properties(settings)))
    values = {
        "JAVA_HOME": java_home,
        "SPARK_LOCAL_DIRS": str(scratch),
        "PYSPARK_SUBMIT_ARGS": f"--properties-file {shlex.quote(str(properties))} pyspark-shell",
    }
    if settings.google_credentials_file:
        values["NO_GCE_CHECK"] = "true"
    if settings.spark_driver_host:
        values["SPARK_LOCAL_IP"] = settings.spark_driver_host
    try:
        with variables(values):
            yield
    finally:
        properties.unlink()


def spark_defaults() -> str:
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
