"""What Spark cannot make up for when it is lost: driver, memory, disks, executors, permissions."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

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


@contextmanager
def explained_losses() -> Iterator[None]:
    """Say in a sentence what of Spark itself was lost, and could not be made up for.

    Spark tries a task four times, on what executors there are, before it gives up.

    Raises:
        dg.Failure: The driver or executors ended, or a disk is full.
    """
    from py4j.protocol import Py4JJavaError, Py4JNetworkError
    from pyspark.errors import PySparkException

    try:
        yield
    except (ConnectionError, Py4JNetworkError) as error:
        raise dg.Failure(DRIVER_LOST, allow_retries=False) from error
    except (Py4JJavaError, PySparkException) as error:
        text = str(error)
        for pattern, sentence in LOSSES.items():
            if re.search(pattern, text):
                raise dg.Failure(sentence) from error  # retries.py knows which are worth a try
        raise


def is_driver_lost(error: BaseException) -> bool:
    """Whether ``explained_losses`` said so."""
    return isinstance(error, dg.Failure) and error.description == DRIVER_LOST


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
