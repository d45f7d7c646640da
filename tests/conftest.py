"""What several kinds of tests need."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sparkpar_assets.embedded.testing import EmbeddedStack, fresh_stack
from sparkpar_assets.garbage import OBJECTS
from sparkpar_assets.project import PROJECT_ROOT

GB_OF_A_PROCESS = 5
"""What a stack with its runs takes at most, and what the system needs besides."""


def pytest_xdist_auto_num_workers() -> int:
    """Share the tests between two processes, where processor and memory are enough for that."""
    gb = psutil.virtual_memory().total / 2**30
    return 2 if (os.cpu_count() or 1) > 1 and gb > 2 * GB_OF_A_PROCESS else 1


def pytest_configure() -> None:
    """Give each run a driver of its own, as a cluster has it; some tests choose a warm one."""
    os.environ["SPARK_WARM_DRIVER"] = ""


def pytest_collection_finish() -> None:
    """Keep Python from looking for garbage in all that the tests have loaded, again and again."""
    gc.freeze()
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])


@pytest.fixture(scope="session")
def embedded_stack(worker_id: str) -> Iterator[EmbeddedStack]:
    """BigQuery, S3 and Spark of this test process alone, without tables; gone when it ends."""
    chosen = os.environ.get("SPARKPAR_TEST_STATE")
    root = Path(chosen) if chosen else PROJECT_ROOT / ".sparkpar" / "test"
    if worker_id != "master":  # one of several processes that share the tests
        root /= worker_id
    with fresh_stack(root.absolute()) as stack:
        yield stack
