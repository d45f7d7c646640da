"""Launches runs as Dagster does, and notices when they are gone without a word.

Dagster's own launcher cannot be asked whether a run lives: one that was killed would be shown as
started until its maximum runtime. ``dagster.yaml`` names the class that fits where the runs are.
"""

import signal
import sys

import dagster as dg
from dagster._core.launcher import (
    CheckRunHealthResult,
    DefaultRunLauncher,
    LaunchRunContext,
    WorkerStatus,
)
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClassData

from sparkpar_assets.dead_runs import death_of, noted_process
from sparkpar_assets.run_host import RunHost


class LocalRunLauncher(DefaultRunLauncher):
    """For runs that are processes of the daemon's own machine, whoever has launched them.

    The first run is started by the code server, as Dagster does: a Python that imports everything.
    Those after it are forks of a process that has done so.
    """

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        """Make it, as Dagster does from ``dagster.yaml``."""
        super().__init__(inst_data)
        self._host: RunHost | None = None

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run."""
        command = self._command(context.dagster_run)
        if command and self._host and self._host.start(command):
            return
        super().launch_run(context)
        if command and (self._host is None or self._host.has_served):
            self._host = RunHost()  # for the runs after this one

    def _command(self, run: dg.DagsterRun) -> list[str] | None:
        """Dagster's arguments that carry out ``run``; None if a fork of this Python cannot."""
        origin = run.job_code_origin
        # macOS's own libraries do not bear to be forked.
        if sys.platform != "linux" or not origin or origin.executable_path != sys.executable:
            return None
        if GRPC_INFO_TAG in run.tags:
            return None  # a retry has its parent's tags: canceling it would ask that code server
        arguments = ExecuteRunArgs(origin, run.run_id, self._instance.get_ref())
        return list(arguments.get_command_args())[-3:]

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether ``check_run_worker_health`` can be asked: it can."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Look for the process of ``run``."""
        sentence = death_of(self._instance, run.run_id)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND if sentence else WorkerStatus.RUNNING, sentence
        )

    def terminate(self, run_id: str) -> bool:
        """Cancel a run; one that a command has started, as if by Ctrl-C in its terminal."""
        run = self._instance.get_run_by_id(run_id)
        noted = noted_process(self._instance, run_id)
        if not run or run.is_finished or GRPC_INFO_TAG in run.tags or not noted:
            return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]  # Dagster's
        self._instance.report_run_canceling(run)
        if noted.process:
            noted.process.send_signal(signal.SIGINT)
        return noted.process is not None


class CodeServerRunLauncher(DefaultRunLauncher):
    """For runs in the code server's container, which only that one can look for.

    A run is a child of the code server. If that one is killed, its runs end with it, and nobody
    is left to say so.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether ``check_run_worker_health`` can be asked: it can."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Ask the code server whether it still runs ``run``.

        Raises:
            DagsterUserCodeUnreachableError: It does not answer; monitoring asks again.
        """
        from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
        from dagster._serdes import deserialize_value

        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]  # Dagster's
        if client is None:  # started by a command: the next one looks for its process
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        request = CanCancelExecutionRequest(run_id=run.run_id)
        answer = deserialize_value(client.can_cancel_execution(request), CanCancelExecutionResult)
        if answer.can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, "The code server was restarted, and the run ended with it."
        )
