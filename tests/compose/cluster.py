"""The containers of a copy of the project, driven as a user drives them: by run.sh and the UI."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests

from sparkpar_assets.io_managers.published import parquet_rows
from sparkpar_assets.project import PROJECT_ROOT

T = TypeVar("T")
DOCKER, GIT = (shutil.which(name) or name for name in ("docker", "git"))
NAME = "sparkpar-test"
FARES = "fare_by_passenger_count"
TRENDS = "fare_trends"

LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!, $tags: [ExecutionTag!]!) {
  launchRun(executionParams: {
    selector: $selector, runConfigData: {}, executionMetadata: {tags: $tags}
  }) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
CANCEL = """
mutation Cancel($run: String!) {
  terminateRun(runId: $run, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) { __typename }
}
"""
RETRY = "dagster/auto_retry_run_id"
"""The tag that names a failed run's retry."""
ENDS = {"SUCCESS", "FAILURE", "CANCELED"}
RUNS = """
query Runs { runsOrError(limit: 100) { ... on Runs { results {
  runId status tags { key value } assetSelection { path }
} } } }
"""

READ_OBJECT = """
import sys
from sparkpar_assets.resources.s3 import s3_client
from sparkpar_assets.settings import load_settings
settings = load_settings()
key = f"{settings.s3_root}{sys.argv[1]}"
body = s3_client(settings).get_object(Bucket=settings.s3_bucket, Key=key)["Body"]
sys.stdout.buffer.write(body.read())
"""


@dataclass(frozen=True)
class Cluster:
    """A copy of the project, whose containers, ports, volumes and image are its own."""

    folder: Path

    def run(
        self, *arguments: str, stdin: str = "", **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """``./run.sh`` with these arguments."""
        return subprocess.run(
            ["/bin/bash", str(self.folder / "run.sh"), *arguments],
            env=self.environment | variables,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    def succeed(self, *arguments: str, stdin: str = "", **variables: str) -> str:
        """What ``./run.sh`` prints, after making sure that it succeeded."""
        done = self.run(*arguments, stdin=stdin, **variables)
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user who has Docker, and whose own clouds are no part of this."""
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "DOCKER_HOST", "DOCKER_CONFIG")
        return {name: os.environ[name] for name in kept if name in os.environ} | {
            "COMPOSE_PROJECT_NAME": NAME,
            "SPARKPAR_PORTS": "free",
        }

    def docker(self, *arguments: str) -> str:
        """What a docker command prints."""
        return subprocess.run(
            [DOCKER, *arguments], capture_output=True, text=True, timeout=120, check=True
        ).stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Docker knows of each container, by its name without the project's."""
        ids = self.docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={NAME}")
        if not ids:
            return {}
        found = json.loads(self.docker("inspect", *ids.split()))
        return {
            one["Name"].removeprefix(f"/{NAME}-").removesuffix("-1"): one
            for one in sorted(found, key=lambda one: str(one["Name"]))
        }

    def execute(self, service: str, *command: str) -> bytes:
        """What a command in a container prints."""
        return subprocess.run(
            [DOCKER, "exec", f"{NAME}-{service}-1", "entrypoint", *command],
            capture_output=True,
            timeout=120,
            check=True,
        ).stdout

    def published(self, path: str) -> list[dict[str, Any]]:
        """The rows of a published object, read through S3 as ``spark-app`` is set to reach it."""
        body = self.execute("spark-app", "python", "-c", READ_OBJECT, path)
        return list(parquet_rows(body).to_pylist())

    def fares(self, year: int) -> list[dict[str, Any]]:
        """The published fares of a year."""
        return self.published(f"{FARES}/year={year}/data.parquet")

    def url(self, port_name: str) -> str:
        """The address of a web interface on this machine."""
        chosen = (self.folder / ".sparkpar" / "compose" / "ports").read_text().splitlines()
        ports = dict(line.split("=") for line in chosen)
        return f"http://127.0.0.1:{ports[port_name]}"

    def get(self, url: str) -> tuple[int, str]:
        """Status and body of a GET; 0 where nobody answers."""
        try:
            answer = requests.get(url, timeout=20)
        except requests.RequestException:
            return 0, ""
        return answer.status_code, answer.text

    def master(self) -> dict[str, Any]:
        """What the Spark master says of its workers and applications."""
        _, body = self.get(self.url("spark-master-ui") + "/json/")
        return dict(json.loads(body)) if body else {"workers": [], "activeapps": []}

    def workers(self) -> list[str]:
        """The hosts of the workers that the master counts on."""
        return sorted(w["host"] for w in self.master()["workers"] if w["state"] == "ALIVE")

    def graphql(self, query: str, **variables: object) -> dict[str, Any]:
        """Ask the web interface as its pages do.

        Raises:
            requests.RequestException: It does not answer, or with an error.
        """
        answer = requests.post(
            self.url("dagster") + "/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
        )
        found = answer.json()
        if "errors" in found:
            raise requests.RequestException(found["errors"][0]["message"])
        return dict(found["data"])

    def launch(self, asset: str, tags: Mapping[str, str]) -> str:
        """Launch a run as the button "Materialize" does; its id."""
        location = {
            "repositoryLocationName": "sparkpar_assets",
            "repositoryName": "__repository__",
        }
        selector = location | {
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": [asset]}],
            "assetCheckSelection": None,
        }
        shown = [{"key": key, "value": value} for key, value in tags.items()]
        answer = self.graphql(LAUNCH, selector=selector, tags=shown)["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise requests.RequestException(str(answer))
        return str(answer["run"]["runId"])

    def launch_years(self, first: int, last: int) -> str:
        """Launch a run of a range of years; its id."""
        return self.launch(
            FARES,
            {
                "dagster/asset_partition_range_start": str(first),
                "dagster/asset_partition_range_end": str(last),
            },
        )

    def cancel(self, run_id: str) -> None:
        """Have a run that no process carries out yet shown as canceled."""
        answer = self.graphql(CANCEL, run=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def runs(self) -> dict[str, dict[str, Any]]:
        """All runs by id: ``status``, ``tags`` and ``assetSelection``."""
        found = self.graphql(RUNS)["runsOrError"]["results"]
        return {
            run["runId"]: run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}}
            for run in found
        }

    def status_of(self, run_id: str) -> str:
        """A run's status, as Dagster names it."""
        return str(self.runs()[run_id]["status"])

    def wait_for_end(self, run_id: str, timeout: float = 300) -> str:
        """The status that a run ends with."""
        wait_until(lambda: self.status_of(run_id) in ENDS, timeout, f"the end of run {run_id}")
        return self.status_of(run_id)

    def wait_for_application(self, run_id: str) -> dict[str, Any]:
        """The Spark application of a run, as soon as it has executors."""

        def find() -> dict[str, Any] | None:
            for app in self.master()["activeapps"]:
                if run_id in app["name"] and app["cores"]:
                    return dict(app)
            return None

        return wait_until(find, 120, f"the Spark application of run {run_id}")

    def wait_until_healthy(self, service: str) -> None:
        """Wait for a container's health check."""
        wait_until(
            lambda: (
                self.containers()[service]["State"].get("Health", {}).get("Status") == "healthy"
            ),
            180,
            f"{service} to be healthy",
        )


def wait_until(condition: Callable[[], T | None], timeout: float, what: str) -> T:
    """The first true answer of ``condition``; servers that are being restarted may not answer."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if answer := condition():
                return answer
        except requests.RequestException:
            pass
        assert time.monotonic() < deadline, f"Waited {timeout} s in vain for {what}"
        time.sleep(0.5)


def copy_project(folder: Path) -> Cluster:
    """Copy what git would: no jar, no .env, nothing of the machine's own stack."""
    listed = subprocess.run(
        [
            shutil.which("git") or "git",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = PROJECT_ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return Cluster(folder)
