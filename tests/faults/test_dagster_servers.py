"""Dagster's web interface, its daemon, its runs, and in the end everything at once are killed."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from sparkpar_assets.embedded import processes, tables
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.embedded.ui import DAEMON, WEBSERVER
from tests.faults.dagster_servers import WebInterface, WholeStack, ui_processes
from tests.faults.leftovers import RUN_HOST, applications, assert_nothing_left
from tests.faults.report import Trial
from tests.faults.runs import (
    ENDS,
    PATIENCE_SECONDS,
    YEARS,
    assert_exact,
    assert_published_years_are_whole,
    begin,
    load_samples,
    log_of,
    note_dead_runs,
    run_ids,
    status,
    wait_for_phase,
)
from tests.integration.workbench import wait_until

CANCELED_WITHIN_SECONDS = 15
CODE_SERVER = "multiprocessing.spawn"
"""In the command lines of the runs that one starts."""


@pytest.fixture
def whole_stack(embedded_stack: EmbeddedStack) -> Iterator[WholeStack]:
    """The stack with the sample trips and nothing published; it is left up."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = WholeStack(embedded_stack, Path(folder), Path(folder), "the whole stack")
        note_dead_runs(bench)  # of a test that failed
        before = bench.keys()
        for key in before:
            bench.s3.delete_object(Bucket=bench.bucket, Key=key)
        load_samples(bench)
        try:
            yield bench
        finally:
            bench.kill_started()
            processes.stop(ui_processes(bench).values())
            embedded_stack.stack.up(say=lambda _: None)


@pytest.fixture
def web(whole_stack: WholeStack) -> Iterator[WebInterface]:
    """``./run.sh ui``, until the test ends."""
    web, process = whole_stack.begin_ui()
    yield web
    whole_stack.end_ui(process)


def process_of_run(bench: WholeStack, started_by: str) -> psutil.Process:
    """The process of the run that is under way: started by a code server, or forked; with a JVM."""
    (found,) = (
        process
        for _, process in processes.of_stack(bench.stack.stack.state)
        if started_by in " ".join(process.cmdline())
        and any(child.name() == "java" for child in process.children())
    )
    return found


def run_before(bench: WholeStack, web: WebInterface) -> None:
    """Have a run that a code server starts, as the first one after a start: those after it fork."""
    assert wait_for_end(bench, web.launch_years(YEARS[0], YEARS[0])) == "SUCCESS"
    state = bench.stack.stack.state
    wait_until(
        lambda: any(is_host(process) for _, process in processes.of_stack(state)),
        "the process that forks runs",
    )


def is_host(process: psutil.Process) -> bool:
    """Whether a process forks runs, or is such a fork."""
    return RUN_HOST in process.cmdline()


def wait_for_end(bench: WholeStack, run_id: str) -> str:
    """The status that a run ends with."""
    wait_until(lambda: status(bench, run_id) in ENDS, f"the end of run {run_id}", PATIENCE_SECONDS)
    return status(bench, run_id)


def retry_of(bench: WholeStack, run_id: str) -> str:
    """The run that Dagster has launched in the place of a failed one."""
    wait_until(lambda: run_ids(bench)[-1] != run_id, f"a retry of run {run_id}")
    return run_ids(bench)[-1]


@pytest.mark.parametrize(
    ("started_by", "said"),
    [
        pytest.param(
            CODE_SERVER,
            "was terminated by signal 9 (SIGKILL)",
            marks=pytest.mark.fault(
                "a run's process is killed while it reads; the web interface had launched it"
            ),
            id="web",
        ),
        pytest.param(
            RUN_HOST,
            "is gone: it was killed",
            marks=pytest.mark.fault("a forked run is killed while it reads"),
            id="fork",
        ),
    ],
)
def test_a_killed_run_of_the_web_interface_is_retried(
    whole_stack: WholeStack, web: WebInterface, trial: Trial, started_by: str, said: str
) -> None:
    if started_by == RUN_HOST:
        run_before(whole_stack, web)
    run_id = web.launch_years()
    wait_for_phase(whole_stack, "while Spark reads")
    process_of_run(whole_stack, started_by).kill()
    trial.begins()
    assert wait_for_end(whole_stack, run_id) == "FAILURE"
    assert said in log_of(whole_stack, run_id)
    retry = retry_of(whole_stack, run_id)
    assert wait_for_end(whole_stack, retry) == "SUCCESS"
    trial.is_over("run fails, Dagster's retry succeeds")
    assert_exact(whole_stack)
    assert_nothing_left(whole_stack)


@pytest.mark.fault("the process that forks the runs is killed during one of them")
def test_runs_go_on_though_the_process_that_forks_them_is_killed(
    whole_stack: WholeStack, web: WebInterface, trial: Trial
) -> None:
    run_before(whole_stack, web)
    run_id = web.launch_years()
    wait_for_phase(whole_stack, "while Spark reads")
    host = process_of_run(whole_stack, RUN_HOST).parent()
    assert host
    assert is_host(host)
    host.kill()
    trial.begins()
    assert wait_for_end(whole_stack, run_id) == "SUCCESS"
    assert_exact(whole_stack)
    assert wait_for_end(whole_stack, web.launch_years(YEARS[0], YEARS[0])) == "SUCCESS"
    trial.is_over("run succeeds, so does the next")
    assert_nothing_left(whole_stack)


@pytest.mark.parametrize(
    "by",
    [
        pytest.param(
            "fork", marks=pytest.mark.fault("a forked run of the web interface is canceled there")
        ),
        pytest.param(
            "web", marks=pytest.mark.fault("a run of the web interface is canceled there")
        ),
        pytest.param(
            "command",
            marks=pytest.mark.fault("a run of a command is canceled in the web interface"),
        ),
    ],
)
def test_a_canceled_run_stops_its_spark_application(
    whole_stack: WholeStack, web: WebInterface, trial: Trial, by: str
) -> None:
    if by == "fork":
        run_before(whole_stack, web)
    if by == "command":
        begin(whole_stack)
    else:
        web.launch_years()
    wait_for_phase(whole_stack, "while Spark reads")
    run_id = run_ids(whole_stack)[-1]
    assert applications(whole_stack)
    web.terminate(run_id)
    trial.begins()
    wait_until(
        lambda: not applications(whole_stack),
        "the end of the application",
        CANCELED_WITHIN_SECONDS,
    )
    trial.is_over("application stops, run is canceled")
    assert wait_for_end(whole_stack, run_id) == "CANCELED"
    assert_published_years_are_whole(whole_stack)
    assert_nothing_left(whole_stack)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(DAEMON, marks=pytest.mark.fault("Dagster's daemon is killed during a run")),
        pytest.param(
            WEBSERVER, marks=pytest.mark.fault("Dagster's web interface is killed during a run")
        ),
    ],
)
def test_a_run_succeeds_though_a_server_of_dagsters_is_killed(
    whole_stack: WholeStack, web: WebInterface, trial: Trial, name: str
) -> None:
    run_id = web.launch_years()
    wait_for_phase(whole_stack, "while Spark reads")
    killed = ui_processes(whole_stack)[name]
    killed.kill()
    trial.begins()
    wait_until(lambda: ui_processes(whole_stack).get(name, killed) != killed, f"a new {name}")
    wait_until(web.serves, "the web interface")
    assert wait_for_end(whole_stack, run_id) == "SUCCESS"
    assert_exact(whole_stack)
    another = web.launch_years(YEARS[0], YEARS[0])
    assert wait_for_end(whole_stack, another) == "SUCCESS"
    trial.is_over("it is started again, run succeeds, so does the next")
    assert_nothing_left(whole_stack)


@pytest.mark.quick
@pytest.mark.fault("everything is killed at once, as when the machine loses power")
def test_after_the_death_of_everything_the_data_is_there_and_the_run_is_retried(
    whole_stack: WholeStack, trial: Trial
) -> None:
    web, watcher = whole_stack.begin_ui()
    run_id = web.launch_years()
    wait_for_phase(whole_stack, "between two copies")
    kill_everything(whole_stack, watcher.pid)
    trial.begins()
    watcher.wait()
    assert status(whole_stack, run_id) == "STARTED"

    said = whole_stack.embedded_up()
    assert f"Run {run_id} was killed: Dagster shows it as failed now" in said
    assert status(whole_stack, run_id) == "FAILURE"
    client = tables.connect(whole_stack.stack.stack.config)
    name = f"{whole_stack.settings.taxi_table_prefix}{YEARS[0]}"
    assert client.get_table(name).num_rows
    assert YEARS[0] in assert_published_years_are_whole(whole_stack)

    web, watcher = whole_stack.begin_ui()
    assert wait_for_end(whole_stack, retry_of(whole_stack, run_id)) == "SUCCESS"
    trial.is_over("run is shown as failed, Dagster's retry succeeds")
    assert_exact(whole_stack)
    assert_nothing_left(whole_stack)
    whole_stack.end_ui(watcher)


def kill_everything(bench: WholeStack, watcher: int) -> None:
    """Kill the stack's servers, Dagster's, the run, its JVM and its executors."""
    state = bench.stack.stack.state
    everything = [psutil.Process(watcher), *(found for _, found in processes.of_stack(state))]
    for process in everything:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(everything, timeout=30)
