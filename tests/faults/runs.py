"""A run of several years, the moments at which a fault may meet it, and what has to hold then."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import psutil

from sparkpar_assets.embedded.samples import SAMPLES
from tests.expected import expected_fares
from tests.integration.workbench import FARES, Workbench, wait_until

YEARS = (2017, 2018, 2019)
"""Years of the sample trips that are next to each other: 242,000 trips."""

ENDS = ("SUCCESS", "FAILURE", "CANCELED")
"""What a run's status may be when it is over."""

PHASE_SECONDS = 150
"""For a run to come to any phase, even where other work has the machine."""

PATIENCE_SECONDS = 480
"""For a run that a fault has met. One whose worker was killed on a busy machine once took more than
five minutes, for a cause that is not known; ``exit_code`` tells more of the next.
"""

JVM_THREADS = re.compile(
    r'^"(?:main|Thread-|dag-scheduler|Spark Context Cleaner|driver-|dispatcher-).*\n(?:.+\n)+',
    re.MULTILINE,
)
"""The threads of a driver that may hold it up, in a JVM's list of all."""


def sample(year: int) -> Path:
    """The file of a year's sample trips."""
    return SAMPLES / f"tlc_yellow_trips_{year}.parquet"


def load_samples(bench: Workbench, years: Sequence[int] = YEARS) -> None:
    """Load the sample trips of some years into the test's own tables."""
    for year in years:
        bench.stack.load(f"{bench.settings.taxi_table_prefix}{year}", sample(year))


def begin(bench: Workbench, years: Sequence[int] = YEARS) -> "subprocess.Popen[str]":
    """Start a run of some years, as a user does by ``dagster asset materialize``."""
    span = f"{years[0]}...{years[-1]}"
    return bench.popen("--select", FARES, "--partition-range", span)


def run_ids(bench: Workbench) -> list[str]:
    """The ids of the test's runs, oldest first."""
    with bench.instance() as instance:
        return [run.run_id for run in reversed(instance.get_runs())]


def status(bench: Workbench, run_id: str) -> str:
    """A run's status, as Dagster names it."""
    with bench.instance() as instance:
        run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value


def log_of(bench: Workbench, run_id: str) -> str:
    """All that the run's log says, a line for each event."""
    with bench.instance() as instance:
        return "\n".join(map(_sentence, instance.all_logs(run_id)))


def _sentence(entry: dg.EventLogEntry) -> str:
    event = entry.dagster_event
    if event is not None and event.is_step_failure:
        failure = event.step_failure_data
        described = failure.user_failure_data and failure.user_failure_data.description
        return described or (failure.error.to_string() if failure.error else "")
    return entry.user_message or (event.message if event else None) or ""


def s3_folder(bench: Workbench) -> Path:
    """Where the S3 server keeps the test's objects: looking there is quicker than a request."""
    return bench.stack.stack.state.s3 / bench.bucket / bench.root


def has_begun(bench: Workbench) -> bool:
    """Whether a run has read its settings, and so far done nothing else."""
    runs = run_ids(bench)
    return bool(runs) and "Targets: " in log_of(bench, runs[-1])


def has_lease(bench: Workbench) -> bool:
    """Whether a run has its staging area, for which Spark reads and aggregates now."""
    return any(s3_folder(bench).glob("_staging/*/*/lease"))


def has_staged(bench: Workbench) -> bool:
    """Whether all years are staged, and none is published yet."""
    return any(s3_folder(bench).glob(f"_staging/*/*/rows/year={YEARS[-1]}/*.parquet"))


def has_published(bench: Workbench, year: int) -> bool:
    """Whether a year's object is in its place."""
    return (s3_folder(bench) / FARES / f"year={year}" / "data.parquet").exists()


PHASES: dict[str, Callable[[Workbench], bool]] = {
    "before Spark starts": has_begun,
    "while Spark reads": has_lease,
    "before the first copy": has_staged,
    "between two copies": lambda bench: has_published(bench, YEARS[0]),
    "after the last copy": lambda bench: has_published(bench, YEARS[-1]),
}
"""How to tell that a run has come to this phase."""


def wait_for_phase(bench: Workbench, phase: str) -> None:
    """Wait until the newest run is in a phase; fail, with its log, if it does not get there."""
    try:
        wait_until(lambda: PHASES[phase](bench), phase, seconds=PHASE_SECONDS)
    except AssertionError as error:
        said = [log_of(bench, run_id) for run_id in run_ids(bench)[-1:]]
        raise AssertionError(f"{error}\n{said}") from None


def jvm_of(process: psutil.Process) -> psutil.Process:
    """The JVM of a run, or of a warm driver."""
    (jvm,) = (child for child in process.children(recursive=True) if child.name() == "java")
    return jvm


def exit_code(bench: Workbench, process: "subprocess.Popen[str]") -> int:
    """The exit code of a run; of one that does not end, a failure that says what it waits for."""
    try:
        return process.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        said = log_of(bench, run_ids(bench)[-1])[-3000:]
        for child in psutil.Process(process.pid).children(recursive=True):
            if child.name() == "java":
                child.send_signal(signal.SIGQUIT)  # at which it prints where its threads are
        time.sleep(5)
        threads = JVM_THREADS.findall(bench.output_of(process))
        raise AssertionError("\n\n".join(["The run does not end.", said, *threads])) from None


def succeed(bench: Workbench, process: "subprocess.Popen[str]") -> None:
    """Wait for the end of a run, which has to be a good one."""
    assert exit_code(bench, process) == 0, bench.output_of(process)[-5000:]
    assert_exact(bench)


def fail(bench: Workbench, process: "subprocess.Popen[str]", sentence: str) -> None:
    """Wait for the end of a run, which has to fail with a sentence in its log."""
    assert exit_code(bench, process) != 0, "The run has succeeded."
    run_id = run_ids(bench)[-1]
    assert status(bench, run_id) == "FAILURE"
    assert sentence in log_of(bench, run_id), log_of(bench, run_id)[-5000:]


def assert_exact(bench: Workbench, years: Sequence[int] = YEARS) -> None:
    """Every year is published as DuckDB and Python's decimals compute it."""
    for year in years:
        assert bench.published(year).to_pylist() == expected_fares(sample(year)), year


def assert_published_years_are_whole(bench: Workbench) -> list[int]:
    """What is published is exact, whichever years that are; returns these."""
    published = [year for year in YEARS if has_published(bench, year)]
    assert_exact(bench, published)
    return published


def note_dead_runs(bench: Workbench) -> None:
    """Have dead runs marked as failed, as ``embedded up`` and the start of the containers do."""
    done = bench.run(sys.executable, "-m", "sparkpar_assets.dead_runs")
    assert done.returncode == 0, done.stderr
