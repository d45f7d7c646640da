"""Processes of ``publisher.py``, as a test steers them."""

import subprocess
import sys
import time
from dataclasses import dataclass

from tests.integration.workbench import Workbench, wait_until


@dataclass
class Publisher:
    """A process of ``publisher.py``: the real asset, checks and IO manager on a warm session."""

    bench: Workbench
    process: subprocess.Popen[str]

    def begin(self, year: int, version: int) -> None:
        """Start to publish a version."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{year} {version}\n")
        self.process.stdin.flush()
        self.bench.wait_for(self.process, f"begins {year} {version}\n")

    def publish(self, year: int, version: int) -> float:
        """Publish a version; returns the seconds that it took."""
        started = time.monotonic()
        self.begin(year, version)
        self.bench.wait_for(self.process, f" {year} {version}\n")
        self.bench.wait_for(self.process, f"published {year} {version}\n")
        return time.monotonic() - started

    def wait_for_staged_rows(self) -> None:
        """Wait until Spark has staged the rows of the run that was begun last."""
        before = self.bench.output_of(self.process).count("staged the rows")
        wait_until(
            lambda: self.bench.output_of(self.process).count("staged the rows") > before,
            "staged rows",
        )


def start_publisher(bench: Workbench) -> Publisher:
    """A new publisher, whose session starts meanwhile: it publishes a version of another year."""
    command = (sys.executable, "-m", "tests.integration.publisher")
    publisher = Publisher(bench, bench.start(*command, stdin=subprocess.PIPE))
    assert publisher.process.stdin is not None
    publisher.process.stdin.write("2011 1\n")
    publisher.process.stdin.flush()
    return publisher
