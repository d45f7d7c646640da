"""A run's Spark session: begun at first use, watched while it works, and let go of in the end."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import dagster as dg
from pydantic import PrivateAttr

from sparkpar_assets.resources.environment import RunEnvironment
from sparkpar_assets.resources.spark_checks import check_before_start
from sparkpar_assets.resources.spark_driver import Driver, OwnDriver, ask_apart
from sparkpar_assets.resources.spark_losses import (
    EXECUTORS_END,
    MOST_LOST_EXECUTORS,
    MOST_WARM_DRIVERS,
    LostExecutors,
    WarmDriverLost,
)
from sparkpar_assets.resources.warm_driver import borrow
from sparkpar_assets.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterLogManager
    from pyspark.sql import SparkSession

PROGRESS_SECONDS = 3
DATA_ERROR = re.compile(
    r"\[(?:ARITHMETIC_OVERFLOW|CAST_INVALID_INPUT|CAST_OVERFLOW|DIVIDE_BY_ZERO|"
    r"NUMERIC_VALUE_OUT_OF_RANGE)[A-Z_.]*\] (?P<sentence>[^\n]*?\.)(?= If necessary| Use `|\n|$)"
)
"""What Spark says of rows that its SQL refuses, without the advice to turn that off (Spark's
documentation, "Error Conditions")."""


class Spark(dg.ConfigurableResource[object]):
    """One Spark session for a whole run, on whichever master the settings name.

    It begins at first use. Its driver is a JVM of the run, which ends with it in whatever way; or,
    where ``SPARK_WARM_DRIVER`` is set, one that serves the runs of this machine one by one.
    """

    environment: RunEnvironment

    _driver: Driver | None = PrivateAttr(default=None)
    _run_id: str = PrivateAttr(default="")
    _application: str = PrivateAttr(default="sparkpar_assets")
    _session_seconds: float = PrivateAttr(default=0.0)
    _session_since: float = PrivateAttr(default=0.0)
    _is_in_order: bool = PrivateAttr(default=True)
    _rows: int | None = PrivateAttr(default=None)
    _is_warm: bool = PrivateAttr(default=False)
    _application_id: str = PrivateAttr(default="")
    _ui_url: str = PrivateAttr(default="")
    _lost_drivers: int = PrivateAttr(default=0)
    _log: "DagsterLogManager | None" = PrivateAttr(default=None)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Spark"]:
        """Give the resource to the run; let go of what was started, however the run ends."""
        self._run_id = context.run.run_id if context.run else ""
        self._application = _application_name(context.run)
        self._log = context.log
        try:
            yield self
        finally:
            self._stop()

    @property
    def session(self) -> "SparkSession":
        """The run's session. The first use starts it, in some seconds.

        A session whose driver was found gone is replaced.

        Raises:
            dg.Failure: There is no usable Java, jar, bucket or master.
            WarmDriverLost: The warm driver ended just now.
        """
        if self._driver is not None and self._driver.is_lost:
            self._is_in_order = False
            self._stop()
            self._count_loss(is_warm=self._is_warm)
        if self._driver is None:
            started = time.monotonic()
            try:
                self._driver = self._start(self.environment.settings)
            except WarmDriverLost:
                self._count_loss(is_warm=True)
                raise
            self._session_seconds = time.monotonic() - started
            self._session_since = time.time()
            self._remember(self._driver)
        return self._driver.session

    def session_for(self, rows: int | None) -> "SparkSession":
        """The run's session; if this is the first use, it starts with executors for so many rows.

        Args:
            rows: How many the run is going to read; None if that is not known.

        Raises:
            dg.Failure: There is no usable Java, jar, bucket or master.
            WarmDriverLost: The warm driver ended just now.
        """
        self._rows = rows
        return self.session

    @property
    def is_warm(self) -> bool:
        """Whether the session's driver was there before the run."""
        return self._is_warm

    def seconds_starting(self, since: float) -> float:
        """How long the session took to start; 0 if it had started before already.

        Args:
            since: A time, in seconds since 1970.
        """
        return self._session_seconds if self._session_since > since else 0.0

    @property
    def application_id(self) -> str:
        """Spark's id of the application, as its UIs show it."""
        return self._application_id

    @property
    def ui_url(self) -> str:
        """Where the application's stages are shown: on a History Server, if there is one.

        The application's own UI ends with the driver.
        """
        history = self.environment.settings.spark_history_url
        if history:
            return f"{history.rstrip('/')}/history/{quote(self.application_id)}/"
        return self._ui_url

    @contextmanager
    def progress(self, log: "DagsterLogManager") -> Iterator[None]:
        """Write Spark's progress to the run's log while the block lasts; if it fails, end its jobs.

        Raises:
            dg.Failure: One executor after the other ended, and no task was done.
        """
        context = self.session.sparkContext
        self._is_in_order = False
        # A warm driver may have jobs of other runs as well.
        context.setJobGroup(self._run_id, self._application)
        ended, hopeless = threading.Event(), threading.Event()

        def cancel() -> None:
            context.cancelJobGroup(self._run_id)

        def give_up() -> None:
            hopeless.set()
            cancel()

        api = f"{self._ui_url}/api/v1/applications/{self._application_id}"
        watcher = threading.Thread(
            target=_watch,
            args=(api, self._run_id, log, ended, give_up),
            name="spark-progress",
            daemon=True,
        )
        watcher.start()
        try:
            yield
            self._is_in_order = True
        except BaseException as error:
            # A JVM that has run out of memory may lack more than the run's own objects.
            self._is_in_order = isinstance(error, Exception) and "OutOfMemory" not in str(error)
            ask_apart(cancel)  # else they would go on for nobody
            if hopeless.is_set() and isinstance(error, Exception):
                raise dg.Failure(EXECUTORS_END, allow_retries=False) from error
            raise
        finally:
            ended.set()
            watcher.join(timeout=PROGRESS_SECONDS)

    def _count_loss(self, *, is_warm: bool) -> None:
        self._lost_drivers += 1
        if is_warm and self._log is not None:
            self._log.warning("The warm driver has ended: the run goes on with another.")

    def _remember(self, driver: Driver) -> None:
        """Keep what is said of the driver: once rows are staged, its end is no harm to the run."""
        context = driver.session.sparkContext
        self._is_warm = driver.is_warm
        self._application_id = str(context.applicationId)
        self._ui_url = str(context.uiWebUrl or "")

    def _start(self, settings: Settings) -> Driver:
        java_home = check_before_start(self.environment)
        self._is_in_order = True
        if self._lost_drivers < MOST_WARM_DRIVERS:
            borrowed = borrow(settings, self._run_id, java_home)
            if borrowed is not None:
                return borrowed
        return OwnDriver(settings, self._application, java_home, self._rows)

    def _stop(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.end(in_order=self._is_in_order)


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


def _application_name(run: dg.DagsterRun | None) -> str:
    if run is None:
        return "sparkpar_assets"
    assets = sorted(key.to_user_string() for key in run.asset_selection or ())
    return f"{', '.join(assets) or run.job_name} {run.run_id}"


def _watch(
    api: str,
    group: str,
    log: "DagsterLogManager",
    ended: threading.Event,
    give_up: Callable[[], None],
) -> None:
    """Log each change of the run's active stages until ``ended``.

    Args:
        api: The application's address in Spark's REST API (Spark documentation, "Monitoring").
        group: The group of the run's jobs.
        log: The run's log.
        ended: Set when there is nothing more to watch.
        give_up: Called when one executor after the other ends, and no task is done. Spark's
            master would start executors for ever: each that begins resets its count of failures.
    """
    import requests

    last, losses = "", LostExecutors()
    while not ended.wait(PROGRESS_SECONDS):
        try:
            jobs, stages, executors = (
                requests.get(f"{api}/{what}", timeout=PROGRESS_SECONDS).json()
                for what in ("jobs?status=running", "stages?status=active", "allexecutors")
            )
        except (requests.RequestException, ValueError):
            continue  # Progress is a courtesy: a UI that does not answer is not the run's failure.
        ours = {stage for job in jobs if job.get("jobGroup") == group for stage in job["stageIds"]}
        line = _describe_progress(
            [stage for stage in stages if stage["stageId"] in ours],
            [item for item in executors if item["isActive"]],
        )
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
