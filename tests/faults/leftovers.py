"""What a run must not leave behind, whatever has happened to it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress

import psutil
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES, RunsFilter

from sparkpar_assets.embedded.spark_master import master_state
from sparkpar_assets.io_managers.staging import STAGING
from sparkpar_assets.settings import ENV_FILE_VARIABLE
from sparkpar_assets.spark_pool import POOL
from tests.integration.workbench import Workbench, wait_until

WITHIN_SECONDS = 300
"""What the platform promises."""

DAGSTER_SERVERS = (
    "sparkpar_assets.embedded.ui",
    "dagster_webserver",
    "dagster._daemon",
    "dagster api grpc",
    "multiprocessing.resource_tracker",
)
"""In the command lines of what serves many runs."""

RUN_HOST = "sparkpar_assets.run_host"
"""In those of the process that forks runs, and of its forks."""

EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"


def assert_nothing_left(bench: Workbench, within: float = WITHIN_SECONDS) -> None:
    """Wait until the test's runs have left nothing; fail, naming what they have, if they do.

    Args:
        bench: Its tables, S3 prefix and Dagster instance are the test's alone.
        within: Seconds to wait for it.
    """
    try:
        wait_until(lambda: not leftovers(bench), "that nothing is left behind", seconds=within)
    except AssertionError as error:
        raise AssertionError(f"{error}: {'; '.join(leftovers(bench))}") from None


def leftovers(bench: Workbench) -> list[str]:
    """All that the test's runs have left: nothing, once they are over.

    A Spark session that the test keeps warm counts: end it first.
    """
    return [
        *(f"process {process.pid}: {_command(process)}" for process in processes(bench)),
        *(f"application {name}" for name in applications(bench)),
        *(f"executor {process.pid}: {_command(process)}" for process in executors(bench)),
        *(f"staged {key}" for key in bench.keys(STAGING)),
        *(f"unfinished upload {key}" for key in unfinished_uploads(bench)),
        *(f"a place in the pool of run {run}" for run in places_in_pool(bench)),
        *(f"scratch folder {name}" for name in scratch_folders(bench)),
    ]


def processes(bench: Workbench) -> list[psutil.Process]:
    """Commands, drivers and their JVMs: all that have the test's environment, but no server."""
    env_file = str(bench.env_file)
    return [
        process
        for process, environment in _own_processes()
        if environment.get(ENV_FILE_VARIABLE) == env_file and not _serves_many_runs(process)
    ]


def executors(bench: Workbench) -> list[psutil.Process]:
    """Executors of the stack whose application has ended, or is one of the test's runs."""
    others = {
        application["id"]
        for application in _active_applications(bench)
        if application["name"] not in applications(bench)
    }
    home = str(bench.stack.stack.state.home)
    return [
        process
        for process, environment in _own_processes()
        if environment.get("HOME") == home
        and EXECUTOR in (arguments := _arguments(process))
        and arguments[arguments.index("--app-id") + 1] not in others
    ]


def applications(bench: Workbench) -> list[str]:
    """Names of the test's runs that the master counts as active applications."""
    runs = _run_ids(bench)
    names = [application["name"] for application in _active_applications(bench)]
    return [name for name in names if any(run in name for run in runs)]


def unfinished_uploads(bench: Workbench) -> list[str]:
    """Keys of multipart uploads below the test's prefix that nobody has completed or aborted."""
    found = bench.s3.list_multipart_uploads(Bucket=bench.bucket, Prefix=bench.root)
    return [item["Key"] for item in found.get("Uploads", [])]


def places_in_pool(bench: Workbench) -> list[str]:
    """Ids of runs that others have to wait for: not finished, or with a slot of the pool."""
    with bench.instance() as instance:
        unfinished = instance.get_run_records(RunsFilter(statuses=NOT_FINISHED_STATUSES))
        pool = instance.event_log_storage.get_concurrency_info(POOL)
    runs = {record.dagster_run.run_id for record in unfinished}
    return sorted(runs | pool.active_run_ids | pool.pending_run_ids | pool.assigned_run_ids)


def scratch_folders(bench: Workbench) -> list[str]:
    """The temporary folders of the test's drivers."""
    return [folder.name for folder in bench.temporary.glob("sparkpar-*")]


def _run_ids(bench: Workbench) -> list[str]:
    with bench.instance() as instance:
        return [run.run_id for run in instance.get_runs()]


def _active_applications(bench: Workbench) -> list[dict[str, str]]:
    state = master_state(bench.stack.ports["spark-master-ui"])
    return list(state.get("activeapps", []))


def _own_processes() -> Iterator[tuple[psutil.Process, Mapping[str, str]]]:
    """This user's living processes, each with its environment."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if (
                process.uids().real == os.getuid()
                and process.status() != psutil.STATUS_ZOMBIE
                and process.pid != os.getpid()
            ):
                yield process, process.environ()


def _serves_many_runs(process: psutil.Process) -> bool:
    command = _arguments(process)
    if RUN_HOST in command:
        parent = process.parent()
        return parent is not None and "dagster._daemon" in _arguments(parent)
    return any(server in " ".join(command) for server in DAGSTER_SERVERS)


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> str:
    """The end of a command line; the beginning of a JVM's is its class path."""
    return " ".join(_arguments(process))[-200:]
