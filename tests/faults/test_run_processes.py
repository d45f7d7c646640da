"""The process of a run is killed, at each phase; so is the JVM of its driver."""

import os
import signal

import psutil
import pytest

from sparkpar_assets.dead_runs import GONE
from tests.faults.leftovers import assert_nothing_left
from tests.faults.report import Trial
from tests.faults.runs import (
    PHASES,
    YEARS,
    assert_published_years_are_whole,
    begin,
    fail,
    jvm_of,
    load_samples,
    log_of,
    note_dead_runs,
    run_ids,
    status,
    succeed,
    wait_for_phase,
)
from tests.integration.workbench import Workbench, wait_until

QUICK_PHASE = "between two copies"


@pytest.mark.parametrize(
    "phase",
    [
        pytest.param(
            phase,
            marks=[
                pytest.mark.fault(f"a run's process is killed {phase}"),
                *([pytest.mark.quick] if phase == QUICK_PHASE else []),
            ],
        )
        for phase in PHASES
    ],
)
def test_a_killed_run_publishes_whole_years_or_nothing_and_the_next_one_the_rest(
    workbench: Workbench, trial: Trial, phase: str
) -> None:
    load_samples(workbench)
    killed = begin(workbench)
    wait_for_phase(workbench, phase)
    os.kill(killed.pid, signal.SIGKILL)  # the process alone: its JVM has to notice
    trial.begins()
    killed.wait()
    published = assert_published_years_are_whole(workbench)
    if phase == "between two copies":
        assert YEARS[0] in published
        assert YEARS[-1] not in published
    (run_id,) = run_ids(workbench)
    assert status(workbench, run_id) == "STARTED"

    note_dead_runs(workbench)
    assert status(workbench, run_id) == "FAILURE"
    assert GONE.format(pid=f" (pid {killed.pid})") in log_of(workbench, run_id)
    succeed(workbench, begin(workbench))
    assert_nothing_left(workbench)
    trial.is_over("run is shown as failed, the next succeeds and cleans up")


@pytest.mark.fault("the JVM of a run's driver is killed while it reads")
def test_a_run_whose_jvm_is_killed_fails_with_a_sentence(
    workbench: Workbench, trial: Trial
) -> None:
    load_samples(workbench)
    run = begin(workbench)
    wait_for_phase(workbench, "while Spark reads")
    jvm_of(psutil.Process(run.pid)).kill()
    trial.begins()
    fail(workbench, run, "Spark's driver has ended")
    assert not assert_published_years_are_whole(workbench)
    assert_nothing_left(workbench)
    succeed(workbench, begin(workbench))
    trial.is_over("run fails, the next succeeds")


@pytest.mark.fault("of two runs of the same years at once one is killed")
def test_of_two_runs_at_once_the_one_that_lives_publishes(
    workbench: Workbench, trial: Trial
) -> None:
    workbench.configure(SPARK_CORES_MAX="1")  # so that both get an executor
    load_samples(workbench)
    killed, living = begin(workbench), begin(workbench)
    wait_until(
        lambda: len([key for key in workbench.keys("_staging/") if key.endswith("/lease")]) == 2,
        "two leases",
    )
    os.killpg(killed.pid, signal.SIGKILL)
    trial.begins()
    succeed(workbench, living)
    note_dead_runs(workbench)
    succeed(workbench, begin(workbench))
    assert_nothing_left(workbench)
    trial.is_over("the other run succeeds")
