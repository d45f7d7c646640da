"""Spark's master, workers and executors are killed, stopped and starved during a run."""

import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from sparkpar_assets.embedded.spark_master import master_state
from sparkpar_assets.embedded.testing import EmbeddedStack
from tests.faults.leftovers import EXECUTOR, assert_nothing_left
from tests.faults.report import Trial
from tests.faults.runs import (
    YEARS,
    assert_exact,
    assert_published_years_are_whole,
    begin,
    fail,
    load_samples,
    log_of,
    run_ids,
    succeed,
    wait_for_phase,
)
from tests.integration.workbench import Workbench, wait_until

MASTER, WORKERS = "spark-master", ("spark-worker-1", "spark-worker-2")

PADDED = """
import dagster as dg
from sparkpar_assets.components.aggregation import aggregation_asset
from sparkpar_assets.components.attributes import AggregationAttributes
from sparkpar_assets.components.loading import tables_of
from sparkpar_assets import definitions

padded = aggregation_asset(
    AggregationAttributes(
        asset="padded",
        table="TABLE",
        group_by=["payment_type"],
        metrics={"longest": "max(length(rpad(payment_type, 2000000000, 'x')))"},
    )
)
defs = dg.Definitions.merge(definitions.defs, dg.Definitions(assets=[padded, *tables_of([padded])]))
"""
"""An analysis that needs two gigabytes for each row."""


@pytest.fixture(autouse=True)
def running_again(embedded_stack: EmbeddedStack) -> Iterator[None]:
    """Leave the stack up for other tests, whatever a failed one did to it."""
    yield
    embedded_stack.stack.up(say=lambda _: None)


def server(bench: Workbench, name: str) -> psutil.Process:
    """The process of a server of the stack."""
    (pid,) = (s.pid for s in bench.stack.stack.status() if s.server.name == name)
    return psutil.Process(pid)


def kill(bench: Workbench, *names: str) -> None:
    """Kill servers, with all that they have started."""
    found = [server(bench, name) for name in names]
    family = [*found, *(child for process in found for child in process.children(recursive=True))]
    for process in family:
        process.kill()
    psutil.wait_procs(family, timeout=10)


def executors_of(bench: Workbench) -> list[psutil.Process]:
    """The executors that the workers run now."""
    children = [child for name in WORKERS for child in server(bench, name).children()]
    return [child for child in children if EXECUTOR in child.cmdline()]


def workers_alive(bench: Workbench) -> int:
    """How many workers the master counts on."""
    state = master_state(bench.stack.ports["spark-master-ui"])
    return sum(worker["state"] == "ALIVE" for worker in state.get("workers", []))


@pytest.mark.quick
@pytest.mark.fault("a worker is killed, with its executor")
def test_a_run_succeeds_though_a_worker_is_killed(workbench: Workbench, trial: Trial) -> None:
    load_samples(workbench)
    run = begin(workbench)
    wait_until(lambda: len(executors_of(workbench)) == 2, "two executors")
    kill(workbench, WORKERS[0])
    trial.begins()
    succeed(workbench, run)
    assert_nothing_left(workbench)
    trial.is_over("run succeeds")


@pytest.mark.fault("both workers are killed, then one is started again")
def test_a_run_waits_for_a_worker_and_says_so(workbench: Workbench, trial: Trial) -> None:
    run = run_without_workers(workbench, trial)
    stack = workbench.stack.stack
    stack._start(next(found for found in stack.servers if found.name == WORKERS[1]))
    succeed(workbench, run)
    assert workers_alive(workbench) == 1
    assert_nothing_left(workbench)
    trial.is_over("run waits, then succeeds")


@pytest.mark.fault("both workers are killed, then `embedded up` starts them again")
def test_a_run_goes_on_with_the_workers_that_embedded_up_starts(
    workbench: Workbench, trial: Trial
) -> None:
    run = run_without_workers(workbench, trial)
    workbench.stack.stack.up(say=lambda _: None)
    succeed(workbench, run)
    assert_nothing_left(workbench)
    succeed(workbench, begin(workbench))
    trial.is_over("run waits, then succeeds, so does the next")


def run_without_workers(workbench: Workbench, trial: Trial) -> "subprocess.Popen[str]":
    """A run that lost both workers while it was reading, and says that it waits for one."""
    load_samples(workbench)
    run = begin(workbench)
    wait_for_phase(workbench, "while Spark reads")
    kill(workbench, *WORKERS)
    trial.begins()
    waits = "Spark waits for an executor: the cluster has no free worker with enough memory."
    wait_until(lambda: waits in log_of(workbench, run_ids(workbench)[-1]), waits)
    return run


@pytest.mark.fault("a worker is stopped for a minute, with its executor")
def test_a_run_succeeds_though_a_worker_stands_still_for_a_minute(
    workbench: Workbench, trial: Trial
) -> None:
    load_samples(workbench)
    run = begin(workbench)
    wait_until(lambda: len(executors_of(workbench)) == 2, "two executors")
    worker = server(workbench, WORKERS[0])
    family = [worker, *worker.children(recursive=True)]
    for process in family:
        process.suspend()
    trial.begins()
    try:
        wait_until(lambda: workers_alive(workbench) == 1, "the master gives the worker up", 100)
    finally:
        for process in family:
            process.resume()
    succeed(workbench, run)
    wait_until(lambda: workers_alive(workbench) == 2, "the worker to be back")
    assert_nothing_left(workbench)
    trial.is_over("run succeeds")


@pytest.mark.fault("an executor is killed, as Linux does when memory is short")
def test_a_run_succeeds_though_an_executor_is_killed(workbench: Workbench, trial: Trial) -> None:
    load_samples(workbench)
    run = begin(workbench)
    wait_for_phase(workbench, "while Spark reads")
    executors_of(workbench)[0].send_signal(signal.SIGKILL)
    trial.begins()
    succeed(workbench, run)
    assert_nothing_left(workbench)
    trial.is_over("run succeeds")


@pytest.mark.fault("every executor ends at its start, for want of memory")
def test_a_run_whose_executors_end_at_their_start_fails_with_a_sentence(
    workbench: Workbench, trial: Trial
) -> None:
    load_samples(workbench)
    enough = workbench.settings.spark_executor_java_options
    workbench.configure(SPARK_EXECUTOR_JAVA_OPTIONS=f"{enough} -XX:MaxDirectMemorySize=12m")
    trial.begins()
    run = begin(workbench)
    fail(workbench, run, "executors of Spark ended, one after the other")
    assert not assert_published_years_are_whole(workbench)
    assert_nothing_left(workbench)
    workbench.configure(SPARK_EXECUTOR_JAVA_OPTIONS=enough)
    succeed(workbench, begin(workbench))
    trial.is_over("run fails, the next with more memory succeeds")


@pytest.mark.fault("an executor's heap overflows, at each try of a task")
def test_a_run_whose_executors_run_out_of_memory_fails_with_a_sentence(
    workbench: Workbench, trial: Trial
) -> None:
    load_samples(workbench)
    file = workbench.folder / "padded.py"
    file.write_text(PADDED.replace("TABLE", f"{workbench.settings.taxi_table_prefix}{YEARS[0]}"))
    trial.begins()
    command = workbench.command("dagster", "asset", "materialize", "-f", str(file))
    fail(workbench, workbench.start(*command, "--select", "padded"), "executors ran out of memory")
    assert_nothing_left(workbench)
    succeed(workbench, begin(workbench))
    trial.is_over("run fails, the next succeeds")


@pytest.mark.fault("the master is killed during a run and started again")
def test_a_run_succeeds_though_the_master_is_killed(workbench: Workbench, trial: Trial) -> None:
    load_samples(workbench)
    run = begin(workbench)
    wait_for_phase(workbench, "while Spark reads")
    kill(workbench, MASTER)
    trial.begins()
    workbench.stack.stack.up(say=lambda _: None)
    succeed(workbench, run)
    assert_nothing_left(workbench)
    trial.is_over("run succeeds")


@pytest.mark.fault("the master is killed before a run and started again")
def test_a_run_without_a_master_is_refused_and_the_next_one_finds_the_workers(
    workbench: Workbench, trial: Trial
) -> None:
    load_samples(workbench)
    kill(workbench, MASTER)
    trial.begins()
    fail(workbench, begin(workbench), "No Spark master answers at")
    workbench.stack.stack.up(say=lambda _: None)
    succeed(workbench, begin(workbench))
    assert workers_alive(workbench) == 2
    assert_exact(workbench)
    assert_nothing_left(workbench)
    trial.is_over("run is refused, the next succeeds")
