"""Launches runs in the code server's container, and notices when they are gone with it."""

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus


class CodeServerRunLauncher(DefaultRunLauncher):
    """Dagster's own launcher, with an answer to the one question of run monitoring.

    A run is a child of the code server. If that one is killed, its runs end with it, and nobody
    is left to say so: Dagster would show them as started until their maximum runtime.
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
        if client is None:  # started by a command, whose process nobody else can ask about
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        request = CanCancelExecutionRequest(run_id=run.run_id)
        answer = deserialize_value(client.can_cancel_execution(request), CanCancelExecutionResult)
        if answer.can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, "The code server was restarted, and the run ended with it."
        )
