"""What the integration tests need."""

import re
from collections.abc import Iterator

import pytest

from sparkpar_assets.embedded.testing import EmbeddedStack
from tests.integration.workbench import Workbench, new_workbench


@pytest.fixture
def workbench(embedded_stack: EmbeddedStack, request: pytest.FixtureRequest) -> Iterator[Workbench]:
    """Tables, an S3 prefix and a Dagster instance for one test alone, all of them empty."""
    name = re.sub(r"\W", "_", request.node.name)[:40]
    with new_workbench(embedded_stack, name) as bench:
        yield bench
