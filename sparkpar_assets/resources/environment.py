"""The settings of a run, read anew when it starts."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import PrivateAttr, ValidationError

from sparkpar_assets.garbage import looked_for_rarely
from sparkpar_assets.resources.endpoints import check_endpoints
from sparkpar_assets.resources.s3 import explained_errors, s3_client
from sparkpar_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class RunEnvironment(dg.ConfigurableResource[object]):
    """Gives the other resources one set of settings a run, and says in the log where it points.

    While the run lasts, the process's environment says the same, so that the clients of Google and
    AWS, which read it by themselves, cannot come to another answer.
    """

    _settings: Settings | None = PrivateAttr(default=None)
    _s3: "S3Client | None" = PrivateAttr(default=None)

    @property
    def settings(self) -> Settings:
        """The settings of this run.

        Raises:
            RuntimeError: No run has begun.
        """
        if self._settings is None:
            raise RuntimeError("The settings are read when a run begins, and none has.")
        return self._settings

    @property
    def s3(self) -> "S3Client":
        """The run's client of S3: each client more would take a tenth of a second to make.

        Raises:
            dg.Failure: The settings name no bucket, or what they say of S3 cannot be used.
        """
        if self._s3 is None:
            with explained_errors(self.settings):
                self._s3 = s3_client(self.settings)
        return self._s3

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["RunEnvironment"]:
        """Read the settings, log the run's targets, and keep the environment to them."""
        with looked_for_rarely(), self.in_force() as settings:
            (context.log or dg.get_dagster_logger()).info(describe_targets(settings))
            yield self

    @contextmanager
    def in_force(self) -> Iterator[Settings]:
        """Read the settings, and keep the environment to them; for a command without a run.

        Raises:
            dg.Failure: They cannot be read.
        """
        self._s3 = None
        with settings_in_force() as self._settings:
            yield self._settings


@contextmanager
def settings_in_force() -> Iterator[Settings]:
    """The settings, read anew; within the block the process's environment says the same.

    Raises:
        dg.Failure: They cannot be read.
    """
    settings = read_settings()
    with in_force(settings):
        yield settings


@contextmanager
def in_force(settings: Settings) -> Iterator[None]:
    """Let the process's environment say what some settings do, within the block."""
    with variables(settings.as_environment()):
        yield


@contextmanager
def variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of the process's environment, or unset them, within the block."""
    before = {name: os.environ.get(name) for name in values}
    _set_environment(values)
    try:
        yield
    finally:
        _set_environment(before)


def describe_targets(settings: Settings) -> str:
    """One line that says where a run reads, computes and publishes."""
    published = f"s3://{settings.s3_bucket or '(S3_BUCKET is not set)'}/{settings.s3_root}"
    return (
        f"Targets: {published} at {settings.s3_endpoint or 'AWS'}; "
        f"BigQuery at {settings.bigquery_http_endpoint or 'Google'}, "
        f"project {settings.gcp_project or 'of the credentials'}; "
        f"Spark at {settings.spark_master}."
    )


def read_settings() -> Settings:
    """The settings as the environment has them now.

    Raises:
        dg.Failure: They cannot be read, or lead where keys would go unencrypted; the values
            themselves are not in the message.
    """
    try:
        settings = load_settings()
    except FileNotFoundError as error:
        raise dg.Failure(f"{error}. Run ./run.sh embedded up, or unset it.") from None
    except ValidationError as error:
        # The input is left out: the value of a variable may be a secret put in the wrong place.
        wrong = "; ".join(
            f"{'.'.join(map(str, item['loc']))}: {item['msg'].removesuffix('.')}"
            for item in error.errors(include_input=False)
        )
        raise dg.Failure(
            f"Settings cannot be read: {wrong}. Correct them as .env.example explains."
        ) from None
    check_endpoints(settings)
    return settings


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
