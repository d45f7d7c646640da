"""A warm driver is killed, and runs that it serves are killed and cancelled."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
import requests

from sparkpar_assets.resources.warm_driver import Folder, end_warm_driver
from tests.faults.leftovers import assert_nothing_left
from tests.faults.report import Trial
from tests.faults.runs import (
    YEARS,
    assert_published_years_are_whole,
    begin,
    jvm_of,
    load_samples,
    log_of,
    note_dead_runs,
    run_ids,
    status,
    succeed,
    wait_for_phase,
)
from tests.integration.test_warm_driver import WARM, drivers_of
from tests.integration.workbench import Workbench, wait_until


@pytest.fixture
def warm(workbench: Workbench) -> Iterator[psutil.Process]:
    """A warm driver that has served a run of all years."""
    folder = Folder(workbench.folder / "warm")
    workbench.configure(SPARK_WARM_DRIVER=str(folder.path))
    load_samples(workbench)
    succeed(workbench, begin(workbench))
    yield psutil.Process(folder.pid())
    end_warm_driver(folder.path)


def running_jobs(jvm: psutil.Process) -> str:
    """Where Spark's REST API lists the running jobs of a driver."""
    for connection in jvm.net_connections():
        if connection.status == psutil.CONN_LISTEN:
            with suppress(requests.RequestException, ValueError):
                api = f"http://127.0.0.1:{connection.laddr.port}/api/v1/applications"
                (application,) = requests.get(api, timeout=2).json()
                return f"{api}/{application['id']}/jobs?status=running"
    raise AssertionError("None of the ports answers as Spark's REST API does.")


@pytest.mark.quick
@pytest.mark.fault("a warm driver's JVM is killed while it reads for a run")
def test_a_run_whose_warm_driver_is_killed_goes_on_with_another(
    workbench: Workbench, warm: psutil.Process, trial: Trial
) -> None:
    run = begin(workbench)
    wait_for_phase(workbench, "while Spark reads")
    jvm_of(warm).kill()
    trial.begins()
    succeed(workbench, run)
    assert "The warm driver has ended" in log_of(workbench, run_ids(workbench)[-1])
    drivers = drivers_of(workbench)
    assert [kind for kind, _ in drivers] == [WARM] * 2 * len(YEARS)
    assert len({application for _, application in drivers}) == 2
    wait_until(lambda: not warm.is_running(), "the end of the driver's process")
    assert_nothing_left(workbench)
    trial.is_over("run succeeds with another driver")


@pytest.mark.timeout(1800)
@pytest.mark.fault("a warm driver's JVM is killed at ten moments of a run")
def test_a_run_succeeds_whenever_its_warm_driver_is_killed(
    workbench: Workbench, warm: psutil.Process, trial: Trial
) -> None:
    folder = Folder(workbench.folder / "warm")
    started = time.monotonic()
    succeed(workbench, begin(workbench))
    undisturbed = time.monotonic() - started
    trial.begins()
    for tenth in range(10):
        if not warm.is_running():  # the run before had no need of another one
            succeed(workbench, begin(workbench))
            warm = psutil.Process(folder.pid())
        run = begin(workbench)
        # Most of the first half is Python's imports.
        time.sleep(undisturbed * (0.5 + tenth / 20))
        jvm_of(warm).kill()
        succeed(workbench, run)
        warm.wait(60)
        if (pid := folder.pid()) is not None:
            warm = psutil.Process(pid)
    assert_nothing_left(workbench)
    trial.is_over("run succeeds, with another driver or without need of one")


@pytest.mark.fault("a run is killed while a warm driver reads for it")
def test_the_jobs_of_a_killed_run_end_and_the_next_run_has_another_driver(
    workbench: Workbench, warm: psutil.Process, trial: Trial
) -> None:
    killed = begin(workbench)
    wait_for_phase(workbench, "while Spark reads")
    os.kill(killed.pid, signal.SIGKILL)
    trial.begins()
    killed.wait()
    wait_until(lambda: not warm.is_running(), "the end of the driver", seconds=30)
    assert_published_years_are_whole(workbench)
    note_dead_runs(workbench)
    succeed(workbench, begin(workbench))
    assert len({application for _, application in drivers_of(workbench)}) == 2
    assert_nothing_left(workbench)
    trial.is_over("its work ends, the next run succeeds with another driver")


@pytest.mark.fault("a run is cancelled while a warm driver reads for it")
def test_a_cancelled_run_ends_its_work_on_a_warm_driver(
    workbench: Workbench, warm: psutil.Process, trial: Trial
) -> None:
    jobs = running_jobs(jvm_of(warm))
    run = begin(workbench)
    # Before its first job a run has nothing to cancel, and gives the driver back as it was.
    wait_until(lambda: requests.get(jobs, timeout=10).json(), "the run's job")
    run.send_signal(signal.SIGINT)
    trial.begins()
    assert run.wait(60) != 0
    assert status(workbench, run_ids(workbench)[-1]) in ("CANCELED", "FAILURE")
    wait_until(lambda: not warm.is_running(), "the end of the driver", seconds=30)
    succeed(workbench, begin(workbench))
    assert_nothing_left(workbench)
    trial.is_over("its work ends, the next run succeeds with another driver")
