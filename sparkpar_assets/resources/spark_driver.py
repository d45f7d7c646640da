"""The driver of a run alone: a JVM of this process, and the Spark session in it."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import dagster as dg

from sparkpar_assets.resources.scratch import SCRATCH_PREFIX, hold_scratch, remove_dead_scratch
from sparkpar_assets.resources.spark_configuration import launch_environment, spark_properties
from sparkpar_assets.resources.spark_losses import DRIVER_LOST, notice_loss
from sparkpar_assets.settings import Settings

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

JVM_EXIT_SECONDS = 120


class Driver(Protocol):
    """What a run has of its driver.

    Attributes:
        session: The run's session.
        is_warm: Whether the driver was there before the run, and stays.
        is_lost: Whether a call found its JVM gone.
    """

    session: "SparkSession"
    is_warm: bool
    is_lost: bool

    def end(self, *, in_order: bool) -> None:
        """Let go of the session; ``in_order`` if no work of the run was broken off."""


class OwnDriver:
    """A driver that starts with the run and ends with it.

    A call into a JVM that is gone raises a ``dg.Failure``.

    Args:
        settings: Those of the run.
        application: The application's name, as Spark's pages show it.
        java_home: The Java to use.
        rows: How many rows it is to read in all; None if that is not known, or no end of it.

    Raises:
        dg.Failure: Spark does not start.
    """

    is_warm = False
    is_lost = False

    def __init__(
        self, settings: Settings, application: str, java_home: str, rows: int | None = None
    ) -> None:
        refuse_second_session()
        remove_dead_scratch()
        self._scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
        self._scratch_lock = hold_scratch(self._scratch)
        try:
            self.session = self._start(settings, application, java_home, rows)
        except BaseException:
            self._remove_jvm()
            raise

    def _start(
        self, settings: Settings, application: str, java_home: str, rows: int | None
    ) -> "SparkSession":
        from dagster_pyspark import LazyPySparkResource
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        try:
            with kept_interrupt_handler(), launch_environment(settings, java_home, self._scratch):
                session: SparkSession = LazyPySparkResource(
                    spark_config=spark_properties(settings, application, self._scratch, rows)
                ).spark_session
        except (Py4JError, PySparkException, OSError) as error:
            raise dg.Failure(
                f"Spark did not start: {_cause(error)} "
                "Look at the run's stderr for more, and check the SPARK_ settings.",
            ) from error
        session.sparkContext.setLogLevel("ERROR")
        notice_loss(session.sparkContext._gateway, self._lose)
        return session

    def _lose(self, error: Exception) -> NoReturn:
        self.is_lost = True
        raise dg.Failure(DRIVER_LOST, allow_retries=False) from error

    def end(self, *, in_order: bool) -> None:  # noqa: ARG002  # all of it ends, either way
        """Stop the application, and the JVM with it."""
        try:
            end_updates(self.session.sparkContext)
            if not self.is_lost:
                ask_apart(self.session.stop)
        finally:
            self._remove_jvm()

    def _remove_jvm(self) -> None:
        stop_jvm(is_lost=self.is_lost)
        shutil.rmtree(self._scratch, ignore_errors=True)
        os.close(self._scratch_lock)


def refuse_second_session() -> None:
    """Make sure that this process has no session: PySpark would give the run that one.

    Raises:
        dg.Failure: It has one.
    """
    from pyspark import SparkContext

    if SparkContext._active_spark_context is not None:
        raise dg.Failure(
            "A Spark session is already running in this process. "
            "Stop it first: a run starts one of its own."
        )


@contextmanager
def kept_interrupt_handler() -> Iterator[None]:
    """Put back the handler of Ctrl-C that PySpark replaces: Dagster's can cancel a run."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def ask_apart(call: Callable[[], object]) -> None:
    """Call into the JVM from a thread of its own; a JVM that was killed answers nothing.

    Each thread has a connection of its own. That of a thread which was interrupted still waits for
    an answer: its next call would begin when the job has ended, and get the answer to that one.
    """
    from py4j.protocol import Py4JError

    def ask() -> None:
        with suppress(Py4JError, OSError, dg.Failure, dg.RetryRequested):
            call()

    thread = threading.Thread(target=ask, name="spark-end", daemon=True)
    thread.start()
    thread.join(timeout=JVM_EXIT_SECONDS)


def end_updates(context: "SparkContext") -> None:
    """End PySpark's server of accumulators, which no work of the run uses any more; without a wait.

    It looks every half second whether it shall end, and ``SparkContext.stop`` would wait for that.
    """
    server = context._accumulatorServer
    if server is not None:
        context._accumulatorServer = None  # type: ignore[assignment]  # as SparkContext.stop does
        threading.Thread(target=server.shutdown, name="spark-updates-end", daemon=True).start()


def forget_jvm(*, is_lost: bool) -> "JavaGateway | None":
    """Have this process know of no session and no JVM any more.

    Args:
        is_lost: The JVM is gone. What is left of its session in this process goes on saying so.

    Returns:
        The way that led there; None if there was none.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    gateway = SparkContext._gateway
    SparkContext._active_spark_context = None
    SparkContext._gateway = SparkContext._jvm = None
    SparkSession._instantiatedSession = None
    if gateway is not None and not is_lost:
        ask_apart(gateway.shutdown)
    return gateway


def stop_jvm(*, is_lost: bool = False) -> None:
    """End the JVM that PySpark started in this process, if it did.

    Settings such as its class path, its credentials and its cached file systems belong to one run;
    PySpark would keep it for the next session.

    Args:
        is_lost: The JVM is gone already.
    """
    gateway = forget_jvm(is_lost=is_lost)
    if gateway is None:
        return
    gateway.proc.stdin.close()
    try:
        gateway.proc.wait(timeout=JVM_EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        gateway.proc.kill()  # what the run has published stays, whatever keeps its JVM


def _cause(error: Exception) -> str:
    """The first line of what the JVM says, where it is the JVM that says it."""
    from py4j.protocol import Py4JJavaError

    text = str(error.java_exception.toString() if isinstance(error, Py4JJavaError) else error)
    line = text.strip().splitlines()[0]
    return line if line.endswith(".") else f"{line}."
