"""A stack for tests: free ports, a state folder of its own, gone when they end."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparkpar_assets.embedded import environment, jars, s3_proxy, samples, tables
from sparkpar_assets.embedded.class_archive import class_archive
from sparkpar_assets.embedded.dagster_home import write_dagster_yaml
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.ports import PORTS_VARIABLE
from sparkpar_assets.embedded.server import StackConfig
from sparkpar_assets.embedded.stack import Stack
from sparkpar_assets.embedded.state import State
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class EmbeddedStack:
    """A running stack, as a test needs it."""

    stack: Stack

    @property
    def state(self) -> Path:
        """The state folder, which ``SPARKPAR_STATE`` names."""
        return self.stack.state.root

    @property
    def ports(self) -> dict[str, int]:
        """The port of each server by name."""
        return self.stack.config.ports

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of a child process: the user's, led to this stack alone."""
        values = environment.process_environment(self.stack.config)
        return values | {"SPARKPAR_STATE": str(self.state), PORTS_VARIABLE: "free"}

    @property
    def settings(self) -> Settings:
        """The platform's settings for this stack."""
        return load_settings(self.env)

    def load(self, table: str, file: Path) -> tables.LoadedTable:
        """Create or replace the table ``project.dataset.table`` from a Parquet file."""
        return tables.load(self.stack.config, table, file)

    def s3_client(self) -> "S3Client":
        """A client of the stack's S3, with every setting passed to it."""
        return s3_proxy.s3_client(self.stack.config)


@contextmanager
def fresh_stack(root: Path) -> Iterator[EmbeddedStack]:
    """A stack that starts empty and is taken down in the end.

    Args:
        root: Its state folder; what a killed test session left there is stopped and removed.

    Raises:
        EmbeddedError: Another test session uses the folder now.
    """
    state = State(root)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "session.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmbeddedError(
                f"Another test session runs in {root}.",
                "Wait for it, or set SPARKPAR_TEST_STATE to another folder.",
            ) from error
        _remove(state)
        stack = Stack.of_state(state, choose_from={**os.environ, PORTS_VARIABLE: "free"})
        try:
            stack.up()
            _record_classes(stack.config)
            yield EmbeddedStack(stack)
        finally:
            stack.down()


def _record_classes(config: StackConfig) -> None:
    """One run more, where no demo has recorded Java's classes: it saves every other half its time.

    Raises:
        subprocess.CalledProcessError: The run failed.
    """
    archive = class_archive(config.java_home, jars.JARS)
    with archive.lock():  # test processes begin at once
        if not archive.is_recorded:
            _run_once(config)
    environment.write_environment(config)  # with what another process may have recorded


def _run_once(config: StackConfig) -> None:
    prefix = "bigquery-public-data.recording.trips_"
    tables.load(config, f"{prefix}2021", samples.SAMPLES / "tlc_yellow_trips_2021.parquet")
    command = [sys.executable, "-m", "dagster", "asset", "materialize"]
    command += ["-m", "sparkpar_assets.definitions", "--partition", "2021"]
    command += ["--select", "fare_by_passenger_count,fare_trends"]
    with (
        environment.recording_environment(
            config, TAXI_TABLE_PREFIX=prefix, S3_PREFIX="recording"
        ) as values,
        tempfile.TemporaryDirectory() as home,  # the stack's own shall know of no run
    ):
        write_dagster_yaml(Path(home))
        values |= {"DAGSTER_HOME": home}
        subprocess.run(command, cwd=PROJECT_ROOT, env=values, capture_output=True, check=True)


def _remove(state: State) -> None:
    """Stop and remove what is left of an earlier session."""
    Stack.of_state(state).down(say=lambda _: None)
    shutil.rmtree(state.stack, ignore_errors=True)
    shutil.rmtree(state.dagster_home, ignore_errors=True)
