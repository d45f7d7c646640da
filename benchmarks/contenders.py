"""Who takes part: the platform, cold, warm and by a click, and what one would use instead."""

import importlib.util
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import dagster as dg
import pyarrow as pa

from benchmarks.measurements import Measurement
from benchmarks.memory import MemorySampler
from benchmarks.workloads import FIRST_YEAR, Workload
from sparkpar_assets.embedded import jars, processes
from sparkpar_assets.embedded.credentials import ca_file, spark_properties_file
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.jvm import spark_home
from sparkpar_assets.io_managers.published import read_object
from sparkpar_assets.resources.private_files import write_private
from sparkpar_assets.resources.warm_driver import Folder, end_warm_driver
from tests.faults.dagster_servers import WebInterface
from tests.integration.workbench import FARES, Workbench, kill_group, wait_until

HERE = Path(__file__).parent
COMMAND_SECONDS = 3600
"""The most that one command may take."""
POLL_SECONDS = 0.05
PHASES = {
    "seconds_waiting": "Dagster: queue, start of run and step",
    "seconds_starting_spark": "Spark's session",
    "seconds_reading_and_aggregating": "read, aggregate, stage",
    "seconds_validating": "validate",
    "seconds_publishing": "publish",
}
"""What a materialization's metadata tell."""
READING = PHASES["seconds_reading_and_aggregating"]
AFTERWARDS = ("Dagster: events, end of step and run", "end of the process")
"""The phases in which the result is published already."""


@dataclass
class Arena:
    """What the contenders work on.

    Attributes:
        bench: The tables of one size, and an S3 prefix.
        servers: Ids of the processes whose children do a contender's work: Spark's workers.
        runs_before: Runs of a warm driver that are not timed.
    """

    bench: Workbench
    servers: list[int]
    runs_before: int

    def run(self, sampler: MemorySampler, *command: str) -> None:
        """Run a command to its end.

        Raises:
            EmbeddedError: It failed, or took too long.
        """
        process = self.bench.start(*command)
        sampler.watch(process.pid)
        try:
            code = process.wait(COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            kill_group(process)
            code = None
        if code != 0:
            raise self.failure(" ".join(command[:3]), process)

    def failure(self, what: str, process: "subprocess.Popen[str]") -> EmbeddedError:
        """The error of a process that ended too early or too late."""
        log = self.bench.folder / "failed.txt"
        log.write_text(self.bench.output_of(process))
        return EmbeddedError(
            f"{what} … ended with {process.returncode}:\n{processes.end_of_log(log, 40)}\n",
            "Mend what it says, and run the benchmark again.",
        )


@dataclass
class Contender(ABC):
    """One way to compute the fares by passenger count and to put them into S3.

    Attributes:
        name: What the command line calls it.
        title: What the table calls it.
    """

    name: str
    title: str
    publishes: ClassVar[bool] = True
    """Whether there is a result to compare."""
    folder: ClassVar[str] = ""
    """Of the results, below the contender's own."""

    @property
    def uses_workers(self) -> bool:
        """Whether it can be told how many of Spark's workers to use."""
        return False

    def why_absent(self, arena: Arena) -> str:  # noqa: ARG002  # other contenders need it
        """Why it cannot take part here; empty if it can."""
        return ""

    def configure(self, arena: Arena, workload: Workload) -> None:
        """Set the platform's variables, before the clock starts."""
        arena.bench.configure(
            S3_PREFIX=f"{arena.bench.name}/{self.name}",
            SPARK_CORES_MAX=str(workload.workers),
            SPARK_WARM_DRIVER="",
            # Where a shell sets it, the platform's own code would be compiled at each start.
            PYTHONDONTWRITEBYTECODE="",
        )

    @contextmanager
    def ready(self, arena: Arena) -> Iterator[list[int]]:  # noqa: ARG002  # other contenders need it
        """Keep what the contender counts on while the block lasts; gives its processes' ids."""
        yield []

    @abstractmethod
    def work(self, arena: Arena, workload: Workload, sampler: MemorySampler) -> None:
        """Do it once, while the clock runs."""

    def phases(self, arena: Arena, began: float, ended: float) -> Mapping[str, float]:  # noqa: ARG002  # other contenders need it
        """Where the seconds went, by name, if there is a way to know; asked when it has worked.

        Args:
            arena: Where it worked.
            began: When, in seconds since 1970.
            ended: Until when.
        """
        return {}

    def measure(self, arena: Arena, workload: Workload) -> Measurement:
        """Do it once, and measure.

        Raises:
            EmbeddedError: It fails.
        """
        self.configure(arena, workload)
        with (
            self.ready(arena) as started_before,
            MemorySampler([*arena.servers, *started_before]) as sampler,
        ):
            began, started = time.time(), time.monotonic()
            self.work(arena, workload, sampler)
            seconds = time.monotonic() - started
        return Measurement(seconds, sampler.peaks, self.phases(arena, began, began + seconds))

    def published(self, arena: Arena, year: int) -> pa.Table:
        """What it has published of a year."""
        prefix = f"{arena.bench.name}/{self.name}/{self.folder}year={year}/"
        found = arena.bench.s3.list_objects_v2(Bucket=arena.bench.bucket, Prefix=prefix)
        (key,) = (item["Key"] for item in found["Contents"] if item["Key"].endswith(".parquet"))
        return read_object(arena.bench.s3, arena.bench.bucket, key)


class Script(Contender):
    """``script.py`` by one ``spark-submit`` for each year, with Spark's default settings.

    It takes all of the workers' cores, more than the platform asks for. Class path, keys, trust
    store and the cluster's secret stand in its properties file: there is no way around these.
    """

    @property
    def uses_workers(self) -> bool:
        """It can."""
        return True

    def configure(self, arena: Arena, workload: Workload) -> None:
        """Write the properties file, besides."""
        super().configure(arena, workload)
        write_private(self._properties_file(arena), self._properties(arena, workload))

    def work(self, arena: Arena, workload: Workload, sampler: MemorySampler) -> None:
        """Submit the script for one year after the other."""
        output = f"s3a://{arena.bench.bucket}/{arena.bench.name}/{self.name}"
        for year in workload.all_years:
            arena.run(
                sampler,
                str(spark_home() / "bin" / "spark-submit"),
                "--properties-file",
                str(self._properties_file(arena)),
                str(HERE / "script.py"),
                str(year),
                f"{output}/year={year}",
            )

    @staticmethod
    def _properties_file(arena: Arena) -> Path:
        return arena.bench.folder / "script.properties"

    @staticmethod
    def _properties(arena: Arena, workload: Workload) -> str:
        env, state = arena.bench.env, arena.bench.stack.stack.state
        trust_store = (
            f"-Djavax.net.ssl.trustStore={env['TLS_TRUST_STORE']} "
            "-Djavax.net.ssl.trustStoreType=PKCS12"
        )
        values = {
            "spark.master": env["SPARK_MASTER_URL"],
            "spark.pyspark.python": sys.executable,
            "spark.driver.extraClassPath": f"{jars.JARS}/*",
            "spark.executor.extraClassPath": f"{jars.JARS}/*",
            "spark.driver.extraJavaOptions": trust_store,
            "spark.executor.extraJavaOptions": trust_store,
            "spark.hadoop.fs.s3a.endpoint": env["AWS_ENDPOINT_URL_S3"],
            "spark.hadoop.fs.s3a.access.key": env["AWS_ACCESS_KEY_ID"],
            "spark.hadoop.fs.s3a.secret.key": env["AWS_SECRET_ACCESS_KEY"],
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        }
        if workload.workers == 1:
            values["spark.cores.max"] = "1"
        lines = "".join(f"{name} {value}\n" for name, value in values.items())
        return spark_properties_file(state).read_text() + lines


class SingleProcess(Contender):
    """``single_process.py`` with one of its engines, for all years."""

    def why_absent(self, arena: Arena) -> str:  # noqa: ARG002  # other contenders need it
        """Why it cannot take part here: its engine is not installed."""
        is_missing = self.name == "polars" and importlib.util.find_spec("polars") is None
        return "the package polars is not installed" if is_missing else ""

    def work(self, arena: Arena, workload: Workload, sampler: MemorySampler) -> None:
        """Run it."""
        certificates = ca_file(arena.bench.stack.stack.state)
        script, output = str(HERE / "single_process.py"), f"{arena.bench.name}/{self.name}"
        years = map(str, workload.all_years)
        arena.run(sampler, sys.executable, script, self.name, str(certificates), output, *years)


class Limit(SingleProcess):
    """The same streams, read and dropped."""

    publishes: ClassVar[bool] = False


@dataclass
class Platform(Contender):
    """``dagster asset materialize`` of one year, or of a range.

    Attributes:
        warm: Whether a driver that has been started before serves it.
    """

    warm: bool = False
    folder: ClassVar[str] = f"{FARES}/"

    @property
    def uses_workers(self) -> bool:
        """A warm driver has its executors already."""
        return not self.warm

    @contextmanager
    def ready(self, arena: Arena) -> Iterator[list[int]]:
        """Keep the warm driver, where it needs one."""
        with warm_driver(arena) if self.warm else nullcontext(list[int]()) as driver:
            yield driver

    def work(self, arena: Arena, workload: Workload, sampler: MemorySampler) -> None:
        """Materialize."""
        arena.run(sampler, *_materialize(arena, workload.all_years))

    def phases(self, arena: Arena, began: float, ended: float) -> Mapping[str, float]:
        """From the records of the run and its materializations."""
        with arena.bench.instance() as instance:
            return phases_of_last_run(instance, began, ended)


def _materialize(arena: Arena, years: list[int]) -> list[str]:
    """The command of a user."""
    chosen = ("--partition-range", f"{years[0]}...{years[-1]}")
    if len(years) == 1:
        chosen = ("--partition", str(years[0]))
    options = ("-m", "sparkpar_assets.definitions", "--select", FARES, *chosen)
    return arena.bench.command("dagster", "asset", "materialize", *options)


@contextmanager
def warm_driver(arena: Arena) -> Iterator[list[int]]:
    """Keep a warm driver while the block lasts, and its executors; gives its processes' ids.

    Not longer: a classic application would find fewer free cores. Its first runs are not timed:
    the very first is none of a warm driver's.
    """
    folder = arena.bench.stack.stack.state.warm_driver
    arena.bench.configure(SPARK_WARM_DRIVER=str(folder))
    try:
        for _ in range(arena.runs_before):
            arena.run(MemorySampler([]), *_materialize(arena, [FIRST_YEAR]))
        yield [pid] if (pid := Folder(folder).pid()) else []
    finally:
        end_warm_driver(folder)


class Click(Platform):
    """The same, launched as the web interface's button does, on servers that have had a run."""

    _web: WebInterface

    @contextmanager
    def ready(self, arena: Arena) -> Iterator[list[int]]:
        """Keep Dagster's web interface and daemon."""
        with super().ready(arena) as driver, _dagster(arena) as (self._web, servers):
            self._click(arena, [FIRST_YEAR])  # which starts what forks the runs after it
            yield [*driver, *servers]

    def work(self, arena: Arena, workload: Workload, sampler: MemorySampler) -> None:  # noqa: ARG002  # other contenders need it
        """Launch, and wait until the run has ended."""
        self._click(arena, workload.all_years)

    def _click(self, arena: Arena, years: list[int]) -> None:
        run_id = self._web.launch_years(years[0], years[-1])
        with arena.bench.instance() as instance:
            while not (run := _run(instance, run_id)).is_finished:
                time.sleep(POLL_SECONDS)
            if not run.is_success:
                raise EmbeddedError(
                    f"The run {run_id} ended with {run.status.value}.",
                    f"Look at it in {arena.bench.dagster_home}.",
                )


def _run(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise EmbeddedError(f"Dagster does not know its run {run_id}.", "Run it again.")
    return run


@contextmanager
def _dagster(arena: Arena) -> Iterator[tuple[WebInterface, list[int]]]:
    """Dagster's web interface and daemon on the workbench; with their processes' ids."""
    workspace = ("-w", "workspace.local.yaml")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    web, bench, began = WebInterface(port), arena.bench, time.time()
    server = bench.start(
        *bench.command("dagster-webserver", *workspace, "-h", "127.0.0.1", "-p", str(port))
    )
    daemon = bench.start(*bench.command("dagster-daemon", "run", *workspace))
    try:
        wait_until(web.serves, "Dagster's web interface")
        with bench.instance() as instance:
            wait_until(lambda: _looks_at_the_queue(instance, since=began), "Dagster's daemon")
        yield web, [server.pid, daemon.pid]
    finally:
        for process in (daemon, server):
            process.terminate()
        for process in (daemon, server):
            process.wait(COMMAND_SECONDS)


def _looks_at_the_queue(instance: dg.DagsterInstance, since: float) -> bool:
    """Whether the daemon does, and not one that was there before."""
    beat = instance.get_daemon_heartbeats().get("QUEUED_RUN_COORDINATOR")
    return beat is not None and beat.timestamp > since


def phases_of_last_run(
    instance: dg.DagsterInstance, began: float, ended: float
) -> dict[str, float]:
    """Where the seconds of the last run went.

    Args:
        instance: Has the run.
        began: When it was asked for, in seconds since 1970.
        ended: When that was over.

    Returns:
        Seconds by phase, in their order; those of several years are added up.
    """
    (run,) = instance.get_run_records(limit=1)
    created = run.create_timestamp.timestamp()
    finished = run.end_time or ended
    events = instance.get_records_for_run(
        run.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records
    told = [event.asset_materialization.metadata for event in events if event.asset_materialization]
    phases = {"until the run exists: Python, imports, definitions": created - began}
    for name, title in PHASES.items():
        of_years = [float(str(one[name].value)) for one in told if name in one]
        is_per_year = name in ("seconds_validating", "seconds_publishing")
        phases[title] = sum(of_years) if is_per_year else max(of_years, default=0.0)
    in_dagster, in_python = AFTERWARDS
    phases[in_dagster] = finished - created - sum(list(phases.values())[1:])
    phases[in_python] = ended - finished
    return phases


CONTENDERS: tuple[Contender, ...] = (
    Script("script", "*script*: a `spark-submit` for each year"),
    Platform("cold", "platform, cold"),
    Platform("warm", "platform, warm", warm=True),
    Click("click", "platform, cold, from the click"),
    Click("warm-click", "platform, warm, from the click", warm=True),
    SingleProcess("duckdb", "DuckDB, one process"),
    SingleProcess("polars", "Polars, one process"),
    Limit("limit", "*limit*: the streams dropped"),
)
