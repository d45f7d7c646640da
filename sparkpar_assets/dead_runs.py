"""Runs whose process is gone without a word: marked as failed, so that nothing waits for them.

A run that was killed cannot say so. Dagster would show it as started, and count it in its pool,
until its maximum runtime. But a run notes its process id as it begins, and where runs and the
looker share one machine (or one container), the process table knows the rest:
``python -m sparkpar_assets.dead_runs``.
"""

import sys
import time
from dataclasses import dataclass

import dagster as dg
import psutil
from dagster import DagsterEventType

PID = "pid"
CLOCK_SECONDS = 10
"""Linux counts the start of a process from the boot, whose time may be corrected afterwards."""

NOTED_WITHIN_SECONDS = 60
"""From its start, all of Dagster's executors note the id at once. Until then a run may be killed
before it has."""

UNDER_WAY = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
GONE = (
    "The process of this run{pid} is gone: it was killed, or its machine was. Years that it had "
    "published stay, and what it had staged is removed. Materialize the others again."
)


@dataclass(frozen=True)
class NotedProcess:
    """The process that a run has noted with its first events.

    Attributes:
        pid: Its id.
        process: The process, if it is still there.
    """

    pid: int
    process: psutil.Process | None


def noted_process(instance: dg.DagsterInstance, run_id: str) -> NotedProcess | None:
    """The process of a run; None as long as the run has noted none.

    Args:
        instance: The instance that the run belongs to. Its runs have to be processes of this
            machine, or of this container.
        run_id: The run.
    """
    for record in instance.get_records_for_run(
        run_id, of_type=DagsterEventType.ENGINE_EVENT
    ).records:
        event = record.event_log_entry.dagster_event
        noted = event.engine_event_data.metadata.get(PID) if event else None
        if noted is not None:  # the first is the run's own, those after it may be its steps'
            pid = int(str(noted.value))
            return NotedProcess(pid, _find(pid, noted_at=record.timestamp))
    return None


def death_of(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """What to say of a run whose process is gone; None if it is there, or may be.

    Args:
        instance: As for ``noted_process``.
        run_id: A run that has not ended, as Dagster knows it.
    """
    if noted := noted_process(instance, run_id):
        return None if noted.process else GONE.format(pid=f" (pid {noted.pid})")
    run = instance.get_run_record_by_id(run_id)
    if run and run.start_time and time.time() - run.start_time > NOTED_WITHIN_SECONDS:
        return GONE.format(pid="")
    return None


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark the runs whose process is gone as failed, those that were being canceled as canceled.

    Args:
        instance: As for ``noted_process``.

    Returns:
        The ids of these runs.
    """
    dead = []
    for run in instance.get_runs(dg.RunsFilter(statuses=UNDER_WAY)):
        sentence = death_of(instance, run.run_id)
        if sentence is None:
            continue
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, sentence)
        else:
            instance.report_run_failed(run, sentence)
        dead.append(run.run_id)
    return dead


def _find(pid: int, noted_at: float) -> psutil.Process | None:
    """The process that noted its id then; a younger one was given the same id anew."""
    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        same = process.create_time() < noted_at + CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return None
    return process if same and not zombie else None


def main() -> None:
    """Mark dead runs of the instance that ``DAGSTER_HOME`` names."""
    with dg.DagsterInstance.get() as instance:
        for run_id in fail_dead_runs(instance):
            sys.stdout.write(f"==> Run {run_id} was killed: Dagster shows it as failed now\n")


if __name__ == "__main__":
    main()
