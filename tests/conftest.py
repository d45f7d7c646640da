"""What several kinds of tests need."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkpar_assets.embedded.testing import EmbeddedStack, fresh_stack
from sparkpar_assets.project import PROJECT_ROOT


def pytest_configure() -> None:
    """Give each run a driver of its own, as a cluster has it; some tests choose a warm one."""
    os.environ["SPARK_WARM_DRIVER"] = ""


@pytest.fixture(scope="session")
def embedded_stack(worker_id: str) -> Iterator[EmbeddedStack]:
    """BigQuery, S3 and Spark of this test process alone, without tables; gone when it ends."""
    chosen = os.environ.get("SPARKPAR_TEST_STATE")
    root = Path(chosen) if chosen else PROJECT_ROOT / ".sparkpar" / "test"
    if worker_id != "master":  # one of several processes that share the tests
        root /= worker_id
    with fresh_stack(root.absolute()) as stack:
        yield stack
