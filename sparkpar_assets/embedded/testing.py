"""A stack for tests: free ports, a state folder of its own, gone when they end."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sparkpar_assets.embedded import environment, tables
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.ports import PORTS_VARIABLE
from sparkpar_assets.embedded.stack import Stack
from sparkpar_assets.embedded.state import State
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
        import boto3

        values = self.env
        client: S3Client = boto3.Session().client(
            "s3",
            endpoint_url=values["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
            region_name=values["AWS_DEFAULT_REGION"],
        )
        return client


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
            yield EmbeddedStack(stack)
        finally:
            stack.down()


def _remove(state: State) -> None:
    """Stop and remove what is left of an earlier session."""
    Stack.of_state(state).down(say=lambda _: None)
    shutil.rmtree(state.stack, ignore_errors=True)
    shutil.rmtree(state.dagster_home, ignore_errors=True)
