"""The environment that leads the platform to the embedded stack, and to nothing else."""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sparkpar_assets import settings
from sparkpar_assets.embedded import jars
from sparkpar_assets.embedded.class_archive import class_archive
from sparkpar_assets.embedded.credentials import (
    PROJECT,
    s3_keys,
    service_account_file,
    spark_secret_file,
    trust_store_file,
)
from sparkpar_assets.embedded.dagster_home import write_dagster_yaml
from sparkpar_assets.embedded.ports import HOST
from sparkpar_assets.embedded.s3_proxy import BUCKET, REGION
from sparkpar_assets.embedded.server import StackConfig
from sparkpar_assets.embedded.spark_master import master_url
from sparkpar_assets.resources.private_files import write_private
from sparkpar_assets.resources.spark_configuration import FIRST_COMPILER_ALONE

EXECUTOR_OPTIONS = "-XX:+UseSerialGC"
DRIVER_OPTIONS = f"{EXECUTOR_OPTIONS} {FIRST_COMPILER_ALONE}"
"""Quick to start: a cold session takes half the time. Executors get it where it pays."""

FOREIGN_PREFIXES = ("AWS_", "GOOGLE_", "GCLOUD_", "CLOUDSDK_", "BIGQUERY_", "PYSPARK_", "SPARK_")
FOREIGN_NAMES = ("GCP_PROJECT", "HADOOP_CONF_DIR", "HADOOP_HOME", "YARN_CONF_DIR")
"""What libraries under the platform read by themselves, and must not find here."""

KEPT = ("AWS_CA_BUNDLE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE")
"""Where a company's network needs its certificate authority; these lead nowhere."""

CHOSEN = (
    "SPARKPAR_AUTOMATION",
    "ALERT_WEBHOOK_URL",
    "SPARK_MAX_APPLICATIONS",
    "SPARK_WARM_DRIVER_MINUTES",
)
"""What the user's environment has a say in: these lead to no cloud."""

WARM_DRIVER = "SPARK_WARM_DRIVER"


def platform_values(config: StackConfig) -> dict[str, str]:
    """A value for every variable of the platform; an empty one means that it is not set."""
    keys = s3_keys(config.state)
    storage_host = config.hosts.get("bigquery-storage", "localhost")
    archive = class_archive(config.java_home, jars.JARS)
    values = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(service_account_file(config.state)),
        "GCP_PROJECT_ID": PROJECT,
        "TAXI_TABLE_PREFIX": settings.Settings().taxi_table_prefix,
        "BIGQUERY_EMULATOR_HOST": config.url("bigquery"),
        "BIGQUERY_STORAGE_GRPC_ENDPOINT": f"{storage_host}:{config.ports['bigquery-storage']}",
        "BIGQUERY_SNAPSHOT_READS": "false",  # the emulator has no time travel for reads
        "S3_BUCKET": BUCKET,
        "S3_PREFIX": "taxi",
        "AWS_ACCESS_KEY_ID": keys.access_key_id,
        "AWS_SECRET_ACCESS_KEY": keys.secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL_S3": config.url("s3"),
        "SPARK_MASTER_URL": master_url(config),
        "SPARK_AUTH_SECRET_FILE": str(spark_secret_file(config.state)),
        "SPARK_DRIVER_HOST": HOST,
        "SPARK_DRIVER_MEMORY": "512m",
        "SPARK_EXECUTOR_MEMORY": "1g",
        "SPARK_EXECUTOR_CORES": "1",
        "SPARK_CORES_MAX": "2",
        "SPARK_DRIVER_JAVA_OPTIONS": f"{DRIVER_OPTIONS} {archive.options}".strip(),
        "SPARK_EXECUTOR_JAVA_OPTIONS": f"{EXECUTOR_OPTIONS} {archive.options}".strip(),
        WARM_DRIVER: _warm_driver(config),
        "SPARK_EVENT_LOG_DIR": config.state.event_logs.as_uri(),
        "SPARK_HISTORY_URL": config.url("spark-history"),
        "SPARK_JARS_DIR": str(jars.JARS),
        "TLS_TRUST_STORE": str(trust_store_file(config.state)),
        "JAVA_HOME": config.java_home,
        "DAGSTER_UI_URL": config.url("dagster"),
    } | {name: os.environ.get(name, "") for name in CHOSEN}
    return dict.fromkeys(settings.variable_names(), "") | values


def _warm_driver(config: StackConfig) -> str:
    """Most of a run on sample trips is a driver's start; an empty value from the user prevents it.

    Of containers Compose says whether they have one.
    """
    is_unwanted = config.hosts or os.environ.get(WARM_DRIVER) == ""
    return "" if is_unwanted else str(config.state.warm_driver)


def stack_values(config: StackConfig) -> dict[str, str]:
    """The platform's values, and what Dagster, Spark and Python need beside them."""
    state = config.state
    return platform_values(config) | {
        settings.ENV_FILE_VARIABLE: str(state.environment_file),
        "DAGSTER_HOME": str(state.dagster_home),
        "SPARK_LOCAL_IP": HOST,  # the driver's web interface would listen on all addresses
        "SPARK_LOCAL_DIRS": str(state.temporary),
        "SPARK_LAUNCHER_OPTS": class_archive(config.java_home, jars.JARS).launcher_options,
        "MPLCONFIGDIR": str(state.home / "matplotlib"),  # its font cache, else in the user's home
        # Where a proxy is set, it is not asked for this machine's own servers.
        "NO_PROXY": _no_proxy(os.environ),
        "no_proxy": _no_proxy(os.environ),
    }


def shell_lines(config: StackConfig, environ: Mapping[str, str] | None = None) -> str:
    """Lines for a shell's ``eval`` that set every variable, and unset what must not be there."""
    environ = os.environ if environ is None else environ
    values = stack_values(config)
    empty = [name for name, value in values.items() if not value]
    foreign = sorted({*empty, *_foreign(environ, values)})
    lines = [f"unset {name}" for name in foreign]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in values.items() if value]
    return "\n".join(lines)


def process_environment(
    config: StackConfig, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The whole environment of a child process that works on the stack."""
    environ = os.environ if environ is None else environ
    values = stack_values(config)
    foreign = _foreign(environ, values)
    kept = {name: value for name, value in environ.items() if name not in foreign | values.keys()}
    return kept | {name: value for name, value in values.items() if value}


def write_environment(config: StackConfig) -> None:
    """Write the file that ``SPARKPAR_ENV_FILE`` names, and Dagster's instance folder."""
    write_dagster_yaml(config.state.dagster_home)
    write_env_file(config.state.environment_file, platform_values(config))


@contextmanager
def recording_environment(config: StackConfig, **overrides: str) -> Iterator[dict[str, str]]:
    """The environment of a run whose driver records Java's classes for the runs after the block.

    Args:
        config: The stack.
        overrides: Other values of variables of the platform.
    """
    file = config.state.stack / "recording.env"
    archive = class_archive(config.java_home, jars.JARS)
    with archive.recording() as options:
        driver = {"SPARK_DRIVER_JAVA_OPTIONS": f"{DRIVER_OPTIONS} {options}", WARM_DRIVER: ""}
        write_env_file(file, platform_values(config) | driver | overrides)
        try:
            yield process_environment(config) | {settings.ENV_FILE_VARIABLE: str(file)}
        finally:
            file.unlink()
    write_environment(config)


def write_env_file(file: Path, values: Mapping[str, str]) -> None:
    """Write variables as python-dotenv reads them back, for this user's eyes alone."""
    lines = [f"{name}={_dotenv_quote(value)}\n" for name, value in values.items()]
    write_private(file, "".join(lines))


def _dotenv_quote(value: str) -> str:
    """A value as python-dotenv reads it back: in single quotes only these two are special."""
    if not value:
        return ""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _foreign(environ: Mapping[str, str], values: Mapping[str, str]) -> set[str]:
    return {
        name
        for name in environ
        if (name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_NAMES)
        and name not in KEPT
        and not values.get(name)
    }


def _no_proxy(environ: Mapping[str, str]) -> str:
    present = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = [host for host in present.split(",") if host]
    return ",".join(dict.fromkeys([*hosts, "localhost", HOST]))
