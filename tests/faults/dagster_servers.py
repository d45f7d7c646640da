"""Dagster's web interface and daemon, and what a user asks of them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from sparkpar_assets.embedded import processes
from sparkpar_assets.embedded.server import http_status
from sparkpar_assets.embedded.ui import DAEMON, WEBSERVER
from tests.compose.cluster import LAUNCH
from tests.faults.runs import YEARS
from tests.integration.workbench import FARES, Workbench, wait_until

TERMINATE = """mutation Terminate($run: String!) { terminateRun(runId: $run) {
  __typename ... on PythonError { message } } }"""
SERVES_WITHIN_SECONDS = 120
STOPS_WITHIN_SECONDS = 60


@dataclass(frozen=True)
class WebInterface:
    """Dagster's web interface on a port of this machine."""

    port: int

    def serves(self) -> bool:
        """Whether it answers."""
        return http_status(self.port, "/server_info") == 200

    def graphql(self, query: str, **variables: object) -> dict[str, dict[str, object]]:
        """Ask as its pages do."""
        answer = requests.post(
            f"http://127.0.0.1:{self.port}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
        ).json()
        assert "errors" not in answer, answer
        return dict(answer["data"])

    def launch_years(self, first: int = YEARS[0], last: int = YEARS[-1]) -> str:
        """Launch a run of a range of years, as the button does; returns its id."""
        selector = {
            "repositoryLocationName": "sparkpar_assets",
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": [FARES]}],
            "assetCheckSelection": None,
        }
        span = {"start": first, "end": last}
        tags = [
            {"key": f"dagster/asset_partition_range_{end}", "value": str(year)}
            for end, year in span.items()
        ]
        answer = self.graphql(LAUNCH, selector=selector, tags=tags)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        run = answer["run"]
        assert isinstance(run, dict)
        return str(run["runId"])

    def terminate(self, run_id: str) -> None:
        """Cancel a run, as the button does."""
        answer = self.graphql(TERMINATE, run=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer


@dataclass
class WholeStack(Workbench):
    """The stack as ``./run.sh`` shows it to its user: one Dagster instance, one prefix."""

    @property
    def env_file(self) -> Path:
        """The stack's own file of variables."""
        return self.stack.stack.state.environment_file

    @property
    def dagster_home(self) -> Path:
        """The stack's own Dagster instance."""
        return self.stack.stack.state.dagster_home

    @property
    def env(self) -> dict[str, str]:
        """Without a warm driver, which would outlive the runs: each has a driver of its own."""
        return super().env | {"SPARK_WARM_DRIVER": ""}

    def embedded_up(self) -> str:
        """Run ``./run.sh embedded up``; returns what it prints."""
        done = self.run(sys.executable, "-m", "sparkpar_assets.embedded", "up")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def begin_ui(self) -> "tuple[WebInterface, subprocess.Popen[str]]":
        """Start ``./run.sh ui``, and wait until it serves.

        Returns:
            The web interface, and the process that watches over it and the daemon.
        """
        web = WebInterface(self.stack.ports["dagster"])
        process = self.start(sys.executable, "-m", "sparkpar_assets.embedded.ui")
        wait_until(
            lambda: process.poll() is not None or web.serves(),
            "Dagster's web interface",
            seconds=SERVES_WITHIN_SECONDS,
        )
        assert process.poll() is None, self.output_of(process)
        return web, process

    def end_ui(self, process: "subprocess.Popen[str]") -> None:
        """Stop it, as Ctrl-C does."""
        process.terminate()
        process.wait(STOPS_WITHIN_SECONDS)
        assert not ui_processes(self)


def ui_processes(bench: WholeStack) -> dict[str, psutil.Process]:
    """What ``./run.sh ui`` has started, by name; of each name the first process of all."""
    found: dict[str, psutil.Process] = {}
    for name, process in processes.of_stack(bench.stack.stack.state):
        if name in (WEBSERVER, DAEMON):
            first = found.get(name)
            if first is None or process.create_time() < first.create_time():
                found[name] = process
    return found
