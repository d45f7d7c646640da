"""A run whose process is gone is marked as failed; one that lives, or may live, is left alone."""

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from sparkpar_assets.dead_runs import NOTED_WITHIN_SECONDS, _find, death_of, fail_dead_runs
from sparkpar_assets.embedded.dagster_home import write_dagster_yaml
from sparkpar_assets.run_launcher import LocalRunLauncher
from tests.integration.workbench import heed_interrupts


@dg.job
def nothing() -> None:
    """A job whose runs a test has begin as it likes."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    write_dagster_yaml(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def run_of(instance: dg.DagsterInstance, pid: int | None) -> dg.DagsterRun:
    """A run that has started, in the process of this id."""
    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    if pid is not None:
        instance.report_engine_event("Begins", run, EngineEventData.in_process(pid))
    return run


def ended_process() -> int:
    """The id of a process that has ended, and whose parent knows."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_run_whose_process_is_gone_fails_and_says_why(instance: dg.DagsterInstance) -> None:
    pid = ended_process()
    dead, living, unknown = (run_of(instance, number) for number in (pid, os.getpid(), None))
    assert fail_dead_runs(instance) == [dead.run_id]
    assert status(instance, dead) == dg.DagsterRunStatus.FAILURE
    for run in (living, unknown):
        assert status(instance, run) == dg.DagsterRunStatus.STARTED
    messages = [entry.user_message or entry.message for entry in instance.all_logs(dead.run_id)]
    assert any(f"(pid {pid}) is gone: it was killed" in message for message in messages)
    assert not fail_dead_runs(instance)


def test_a_process_that_was_killed_and_has_not_been_waited_for_is_gone(
    instance: dg.DagsterInstance,
) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        run = run_of(instance, process.pid)
        assert death_of(instance, run.run_id) is None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie
        assert death_of(instance, run.run_id)


def test_a_run_that_does_not_note_its_process_in_time_was_killed_before_it_could(
    instance: dg.DagsterInstance,
) -> None:
    begun = time.time() - NOTED_WITHIN_SECONDS
    young, old = (run_of(instance, None) for _ in range(2))
    margin = NOTED_WITHIN_SECONDS / 2  # the machine may stand still for some seconds
    for run, after in ((young, margin), (old, -margin)):
        started = dg.DagsterEvent("PIPELINE_START", run.job_name)
        at = dt.datetime.fromtimestamp(begun + after, dt.UTC)
        instance.run_storage.handle_run_event(run.run_id, started, at)
    assert fail_dead_runs(instance) == [old.run_id]


def test_a_process_that_is_younger_than_the_run_is_another_one() -> None:
    assert _find(os.getpid(), noted_at=time.time())
    assert not _find(os.getpid(), noted_at=time.time() - 7 * 24 * 3600)


def test_a_run_that_was_being_canceled_is_canceled(instance: dg.DagsterInstance) -> None:
    run = run_of(instance, ended_process())
    instance.report_run_canceling(run)
    fail_dead_runs(instance)
    assert status(instance, run) == dg.DagsterRunStatus.CANCELED


def test_the_daemon_of_the_embedded_stack_asks_for_the_process(
    instance: dg.DagsterInstance,
) -> None:
    launcher = instance.run_launcher
    assert isinstance(launcher, LocalRunLauncher)
    assert launcher.supports_check_run_worker_health
    health = [
        launcher.check_run_worker_health(run_of(instance, pid)).status.value
        for pid in (os.getpid(), ended_process(), None)
    ]
    assert health == ["RUNNING", "NOT_FOUND", "RUNNING"]


def test_a_run_that_a_command_has_started_can_be_canceled_in_the_web_interface(
    instance: dg.DagsterInstance,
) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], preexec_fn=heed_interrupts) as process:
        run = run_of(instance, process.pid)
        assert instance.run_launcher.terminate(run.run_id)
        assert process.wait(10) == -signal.SIGINT
    assert status(instance, run) == dg.DagsterRunStatus.CANCELING
    assert not instance.run_launcher.terminate(run.run_id), "there is nothing left to end"
    assert fail_dead_runs(instance) == [run.run_id]
    assert status(instance, run) == dg.DagsterRunStatus.CANCELED
