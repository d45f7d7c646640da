"""Two hundred materializations in a row on one Spark session: nothing grows with them."""

from dataclasses import dataclass

import psutil
import pytest

from tests.faults.leftovers import unfinished_uploads
from tests.faults.report import Trial
from tests.integration.publisher_process import Publisher, start_publisher
from tests.integration.versions import fares
from tests.integration.workbench import Workbench

MATERIALIZATIONS = 200
WARM_AFTER = 50
"""Until then the JVM still compiles code, and its heap finds its size."""
MORE_MEMORY = 1.1
WHOLE_HEAP = "-XX:+UseSerialGC -Xms512m -XX:+AlwaysPreTouch"
"""All of the driver's heap is resident from the start: what grows is not garbage that waits, and
what leaks into the heap ends the driver."""
YEAR = 2018


@dataclass(frozen=True)
class Use:
    """What the driver's processes hold at one moment.

    Attributes:
        processes: The Python process and its children.
        files: Their open files and sockets.
        python: The resident memory of the Python process, in MB.
        memory: That of all of them, in MB.
    """

    processes: int
    files: int
    python: int
    memory: int


def use_of(publisher: Publisher) -> Use:
    """What the driver holds now."""
    driver = psutil.Process(publisher.process.pid)
    family = [driver, *driver.children(recursive=True)]
    return Use(
        processes=len(family),
        files=sum(process.num_fds() for process in family),
        python=driver.memory_info().rss >> 20,
        memory=sum(process.memory_info().rss for process in family) >> 20,
    )


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.fault(f"{MATERIALIZATIONS} materializations in a row")
def test_nothing_grows_with_the_number_of_materializations(
    workbench: Workbench, trial: Trial
) -> None:
    workbench.configure(
        SPARK_MASTER_URL="local[1]", SPARK_EVENT_LOG_DIR="", SPARK_DRIVER_JAVA_OPTIONS=WHOLE_HEAP
    )
    publisher = start_publisher(workbench)
    workbench.wait_for(publisher.process, "published 2011 1\n")
    trial.begins()
    uses: list[Use] = []
    for number in range(MATERIALIZATIONS):
        publisher.publish(YEAR, number + 1)
        uses.append(use_of(publisher))
        assert not workbench.keys("_staging/")
        assert not unfinished_uploads(workbench)
    for number in range(0, MATERIALIZATIONS, 25):
        print(number, uses[number])  # noqa: T201 — shown by -s
    print(MATERIALIZATIONS, uses[-1])  # noqa: T201
    warm, end = uses[WARM_AFTER], uses[-1]
    assert end.processes == warm.processes
    assert end.files <= max(use.files for use in uses[: WARM_AFTER + 1])
    assert end.memory <= warm.memory * MORE_MEMORY
    assert workbench.published(YEAR).to_pylist() == fares(MATERIALIZATIONS)
    assert len(workbench.keys(f"_history/fare_by_passenger_count/year={YEAR}/")) == 5
    trial.is_over(f"driver at {end.memory} MB, after {WARM_AFTER} at {warm.memory} MB")
