"""The containers, started once for all tests."""

import subprocess
from collections.abc import Iterator

import pytest

from tests.compose.cluster import DOCKER, Cluster, copy_project


def why_no_docker() -> str:
    """Why containers cannot be started here; nothing if they can."""
    for command in (["compose", "version"], ["version"]):
        try:
            done = subprocess.run(
                [DOCKER, *command], capture_output=True, text=True, timeout=60, check=False
            )
        except OSError as error:
            return f"no Docker here: {error}"
        if done.returncode != 0:
            return f"no Docker here: {done.stderr.strip()}"
    return ""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A copy of the project with its image built; what it makes is gone when the session ends."""
    if reason := why_no_docker():
        pytest.skip(reason)
    cluster = copy_project(tmp_path_factory.mktemp("compose") / "project")
    cluster.run("cleanup", "--yes")  # what a killed session left
    try:
        cluster.succeed("build")
        yield cluster
    finally:
        cluster.run("cleanup", "--yes")


@pytest.fixture(scope="session")
def cluster(project: Cluster) -> Cluster:
    """The containers on emulators, with all sample years published as ``up --embedded`` does."""
    project.succeed("up", "--embedded")
    return project
