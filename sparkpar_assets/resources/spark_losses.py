"""What Spark cannot make up for when it is lost: driver, memory, disks, executors, permissions."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import dagster as dg

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway

LOSSES = {
    r"No space left on device": (
        "The disk of a Spark worker is full. Make room where its SPARK_LOCAL_DIRS and its work "
        "folder are, then materialize the partitions again."
    ),
    # 52 is what an executor's JVM exits with then (SparkExitCode.OOM), 137 after Linux killed it.
    r"(?s)stage failure.*(?:OutOf\w*Memory|exited with code (?:52|137))": (
        "Spark's executors ran out of memory. Raise SPARK_EXECUTOR_MEMORY, then materialize the "
        "partitions again."
    ),
    r"OutOfMemoryError": (
        "Spark's driver ran out of memory. Raise SPARK_DRIVER_MEMORY, then materialize the "
        "partitions again."
    ),
    r"ExecutorLostFailure": (
        "Spark lost an executor each time it tried one task. Look at the workers' logs for what "
        "ends them, then materialize the partitions again."
    ),
    r"Master removed our application|[Aa]ll masters are unresponsive|SparkContext was shut down": (
        "Spark's master gave this run up. Look at its log and at the workers', then materialize "
        "the partitions again."
    ),
    # Of gRPC's statuses; before Spark starts, resources/bigquery_client.py says it in other words.
    r"PERMISSION_DENIED: |UNAUTHENTICATED: ": (
        "BigQuery refused the account while Spark read. Check its key and its roles, then "
        "materialize the partitions again."
    ),
    # As S3A passes on what S3 says.
    r"Status Code: 40[13]": (
        "S3 refused the keys while Spark read or wrote. Check them and the bucket's policy, then "
        "materialize the partitions again."
    ),
}
"""Patterns of what Spark says, in the order of their precedence, and what to say of it."""
MOST_LOST_EXECUTORS = 20
"""One after the other, without a task done in between."""
EXECUTORS_END = (
    f"{MOST_LOST_EXECUTORS} executors of Spark ended, one after the other, before any had done a "
    "task. Look at the workers' logs for the reason, and check SPARK_EXECUTOR_MEMORY and "
    "SPARK_EXECUTOR_JAVA_OPTIONS."
)
DRIVER_LOST = (
    "Spark's driver has ended: its JVM was killed, or ran out of memory. Materialize the "
    "partitions again, and raise SPARK_DRIVER_MEMORY if that does not help."
)
MOST_WARM_DRIVERS = 2
"""A run that has lost so many of them has a driver of its own."""


class WarmDriverLost(dg.RetryRequested):
    """A warm driver has ended, maybe for another run's sake: Dagster begins the step again.

    It passes through whatever part of a step was at work, an asset's own function as well.
    """

    def __init__(self) -> None:
        super().__init__(max_retries=MOST_WARM_DRIVERS)


def notice_loss(gateway: "JavaGateway", lost: Callable[[Exception], NoReturn]) -> None:
    """Have each call into a JVM that is gone raise what says so.

    Left to itself, Py4J raises a different error for each kind of call: a network error, a refused
    connection, or that "org does not exist in the JVM".

    Args:
        gateway: Leads to the JVM.
        lost: Raises; it gets the error of the network.
    """
    from py4j.protocol import Py4JNetworkError

    client = gateway._gateway_client
    connect, should_retry = client._get_connection, client._should_retry

    def connected() -> object:
        try:
            return connect()
        except (Py4JNetworkError, OSError) as error:
            if client.is_connected:  # else this process has taken leave of the JVM
                lost(error)
            raise

    def retries(retry: bool, connection: object, error: Exception) -> bool:  # Py4J's signature
        """Called when a call has failed for the network's sake, which here is the JVM's end."""
        if not should_retry(retry, connection, error):
            lost(error)
        return True

    client._get_connection, client._should_retry = connected, retries


@contextmanager
def explained_losses() -> Iterator[None]:
    """Say in a sentence what of Spark itself was lost, and could not be made up for.

    Spark tries a task four times, on what executors there are, before it gives up.

    Raises:
        dg.Failure: The driver or executors ended, or a disk is full.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (ConnectionError, EOFError):
        _call_driver()  # rows come by a connection of their own, which ends with the JVM as well
        raise
    except (Py4JJavaError, PySparkException) as error:
        _call_driver()
        text = str(error)
        for pattern, sentence in LOSSES.items():
            if re.search(pattern, text):
                raise dg.Failure(sentence) from error  # retries.py knows which are worth a try
        raise


def _call_driver() -> None:
    """Raise what ``notice_loss`` has a call raise, if the JVM is gone."""
    from pyspark import SparkContext

    jvm = SparkContext._jvm
    if jvm is not None:
        jvm.System.nanoTime()


@dataclass
class LostExecutors:
    """How many executors were lost since the last task that was done."""

    done: int = 0
    lost_then: int = 0

    def count(self, executors: Sequence[Mapping[str, object]]) -> int:
        """The number, after a look at all executors that there are or were."""
        done = sum(int(str(item["completedTasks"])) for item in executors)
        lost = sum(not item["isActive"] for item in executors)
        if done > self.done:
            self.done, self.lost_then = done, lost
        return lost - self.lost_then
