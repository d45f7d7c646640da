"""A corner of the embedded stack for one test: its own tables, S3 prefix and Dagster instance."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import dotenv
import pyarrow as pa
import pyarrow.parquet as pq

from sparkpar_assets.embedded.dagster_home import create_databases, write_dagster_yaml
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.io_managers.published import parquet_rows
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.resources.private_files import write_private
from sparkpar_assets.settings import ENV_FILE_VARIABLE, Settings, load_settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FARES = "fare_by_passenger_count"
COMMAND_SECONDS = 180
"""More than any run takes here, even where other work has the machine."""


@dataclass
class Workbench:
    """The platform as a user has it after ``embedded env``, alone with its data.

    Attributes:
        stack: The stack of the test session.
        folder: Where the environment file, the Dagster instance and the loaded files are.
        temporary: Where the commands have their temporary files, some of which a kill leaves.
        name: Tells its tables and its S3 prefix from those of other tests.
    """

    stack: EmbeddedStack
    folder: Path
    temporary: Path
    name: str
    _overrides: dict[str, str] = field(default_factory=dict)
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def configure(self, **values: str) -> None:
        """Set variables of the platform for the commands to come; an empty value unsets one."""
        self._overrides |= values
        base = dotenv.dotenv_values(self.stack.stack.state.environment_file, interpolate=False)
        lines = [
            f"{name}='{value}'\n" if value else f"{name}=\n"
            for name, value in {**base, **self._overrides}.items()
        ]
        write_private(self.env_file, "".join(lines))

    def share_driver(self) -> None:
        """Let the runs to come have the driver of others, as on a user's stack: most of each run.

        Only where no test sets variables of Spark: the driver would be replaced.
        """
        self.configure(SPARK_WARM_DRIVER=str(self.stack.stack.state.warm_driver))

    @property
    def env_file(self) -> Path:
        """The file that ``SPARKPAR_ENV_FILE`` names: its values win over the environment's."""
        return self.folder / "platform.env"

    @property
    def env(self) -> dict[str, str]:
        """The whole environment of a child process."""
        values = self.stack.env | self._overrides
        values |= {
            ENV_FILE_VARIABLE: str(self.env_file),
            "DAGSTER_HOME": str(self.dagster_home),
            "TMPDIR": str(self.temporary),
        }
        return {name: value for name, value in values.items() if value}

    @property
    def settings(self) -> Settings:
        """The platform's settings, as a child process reads them."""
        return load_settings(self.env)

    @property
    def dagster_home(self) -> Path:
        """The folder of the Dagster instance."""
        return self.folder / "dagster_home"

    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance that the commands write to. Use it as a context manager."""
        return dg.DagsterInstance.from_config(str(self.dagster_home))

    def materializations(self, asset: str = FARES) -> list[dg.EventLogRecord]:
        """The materializations of an asset that Dagster has, oldest first."""
        with self.instance() as instance:
            key = dg.AssetKey(asset)
            return list(instance.fetch_materializations(key, limit=1000, ascending=True).records)

    def materialized_years(self, asset: str = FARES) -> list[str]:
        """The year of each materialization of an asset that Dagster has, oldest first."""
        return [str(record.partition_key) for record in self.materializations(asset)]

    def load_trips(self, year: int | str, table: pa.Table) -> str:
        """Create or replace the table of a year's trips; returns its name."""
        file = self.folder / f"trips_{year}.parquet"
        pq.write_table(table, file)
        name = f"{self.settings.taxi_table_prefix}{year}"
        self.stack.load(name, file)
        return name

    def command(self, tool: str, *args: str) -> list[str]:
        """The command line of a tool that is installed beside the running Python."""
        return [str(Path(sys.executable).parent / tool), *args]

    def run(self, *command: str, cwd: Path = PROJECT_ROOT) -> subprocess.CompletedProcess[str]:
        """Run any command to its end, whatever that is; output and errors are kept apart."""
        return subprocess.run(
            command,
            cwd=cwd,
            env=self.env,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def materialize(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run ``dagster asset materialize -m sparkpar_assets.definitions …`` to its end."""
        return self.run(*self._materialize_command(args))

    def materialize_years(self, *years: int | str) -> None:
        """Publish the fares of one year, or of a range given by its ends; it has to succeed."""
        first, last = str(years[0]), str(years[-1])
        chosen = ("--partition", first) if first == last else ("--partition-range", _range(years))
        done = self.materialize("--select", FARES, *chosen)
        assert done.returncode == 0, done.stderr

    def popen(self, *args: str) -> subprocess.Popen[str]:
        """Start ``dagster asset materialize …`` in a process group of its own.

        What it prints goes to one file, ``output_of`` reads it.
        """
        return self.start(*self._materialize_command(args))

    def start(self, *command: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start any command in a process group of its own, which a test may kill as a whole."""
        output = self.folder / f"output-{len(self._started)}.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=PROJECT_ROOT,
                env=self.env,
                text=True,
                stdin=stdin,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=heed_interrupts,
            )
        self._started.append(process)
        return process

    def output_of(self, process: subprocess.Popen[str]) -> str:
        """What a started process, and its JVM, have printed so far."""
        return (self.folder / f"output-{self._started.index(process)}.txt").read_text()

    def wait_for(self, process: subprocess.Popen[str], text: str) -> None:
        """Wait until a started process has printed a text."""
        wait_until(
            lambda: text in self.output_of(process) or process.poll() is not None,
            f"'{text}' in the output",
        )
        assert text in self.output_of(process), self.output_of(process)[-5000:]

    def kill_started(self) -> None:
        """Kill what still runs of the started processes, with their JVMs."""
        for process in self._started:
            kill_group(process)

    @cached_property  # making one takes longer than most requests
    def s3(self) -> "S3Client":
        """A client of the stack's S3."""
        return self.stack.s3_client()

    @property
    def bucket(self) -> str:
        """The bucket that is published in."""
        return str(self.settings.s3_bucket)

    @property
    def root(self) -> str:
        """Prefix of all keys of this test, with a slash at its end."""
        return self.settings.s3_root

    def key(self, year: int | str | None, asset: str = FARES) -> str:
        """Key of a year's published object."""
        return f"{self.root}{asset}/" + (f"year={year}/" if year else "") + "data.parquet"

    def keys(self, prefix: str = "") -> list[str]:
        """All keys below a folder of this test's prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.root + prefix
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def content(self, key: str) -> bytes:
        """An object's bytes."""
        return self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def published(self, year: int | str | None, asset: str = FARES) -> pa.Table:
        """The published rows of a year."""
        return parquet_rows(self.content(self.key(year, asset)))

    def _materialize_command(self, args: tuple[str, ...]) -> list[str]:
        materialize = ("asset", "materialize", "-m", "sparkpar_assets.definitions")
        return self.command("dagster", *materialize, *args)


@contextmanager
def new_workbench(stack: EmbeddedStack, name: str) -> Iterator[Workbench]:
    """A workbench without tables, on which no process is left in the end.

    It lies in the stack's folder, which the next test session removes.
    """
    unique = f"{name}_{uuid.uuid4().hex[:8]}"
    workbenches = stack.stack.state.stack / "workbenches"
    folder = workbenches / unique
    shutil.copytree(_new_instance(workbenches / "new"), folder / "dagster_home")
    # Not in the stack's folder: Dagster puts sockets there, whose paths may have 107 characters.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        bench = Workbench(stack, folder, Path(temporary), unique)
        bench.configure(
            S3_PREFIX=unique,
            TAXI_TABLE_PREFIX=f"bigquery-public-data.{unique}.tlc_yellow_trips_",
        )
        try:
            yield bench
        finally:
            bench.kill_started()


@cache
def _new_instance(dagster_home: Path) -> Path:
    """A Dagster instance to copy: making its databases takes a second or two, every time."""
    write_dagster_yaml(dagster_home)
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        create_databases(instance)
    return dagster_home


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    """Wait until a condition holds; fail, saying what was waited for, if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"Waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.02)


def heed_interrupts() -> None:
    """Let a child end by Ctrl-C: a shell has what it sends to the background ignore that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a started process with all of its children, and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _range(years: tuple[int | str, ...]) -> str:
    return f"{years[0]}...{years[-1]}"
