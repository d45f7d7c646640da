"""On what estimates and versions' commands act: run.sh and ``embedded.choice`` alone decide."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparkpar_assets.embedded.choice import chosen_environment
from sparkpar_assets.embedded.state import State
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.settings import ENV_FILE_VARIABLE, load_settings

CLOUDS = {"S3_BUCKET": "real-bucket", "AWS_PROFILE": "real"}
PYTHON = """#!/bin/sh
echo "python $*"
"""
DOCKER = """#!/bin/sh
if [ "$1" = ps ]; then echo "spark-app {state}"; else echo "docker $*"; fi
"""
MODULE = ["sparkpar_assets.versions", "list", "fares"]
ASKED = ["fare_by_passenger_count", "2018", "20261123T02"]


def test_a_stack_that_runs_is_chosen_whatever_env_names(embedded_stack: EmbeddedStack) -> None:
    environ = CLOUDS | {"SPARKPAR_STATE": str(embedded_stack.state), "PATH": os.environ["PATH"]}
    assert load_settings(chosen_environment(environ)) == embedded_stack.settings


def test_a_shell_that_was_led_to_a_stack_stays_there(embedded_stack: EmbeddedStack) -> None:
    environ = CLOUDS | {
        "SPARKPAR_STATE": str(embedded_stack.state),
        ENV_FILE_VARIABLE: "/of/another/stack.env",
    }
    assert chosen_environment(environ) == environ


def test_a_stack_that_was_stopped_or_never_started_is_not_chosen(tmp_path: Path) -> None:
    environ = CLOUDS | {"SPARKPAR_STATE": str(tmp_path)}
    assert chosen_environment(environ) == environ
    state = State(tmp_path)
    state.create()
    state.environment_file.touch()
    assert chosen_environment(environ) == environ


def test_the_module_runs_in_the_place_of_the_choice(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sparkpar_assets.embedded.choice", *MODULE],
        env=os.environ | {"SPARKPAR_STATE": str(tmp_path)},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: There is no asset fares to materialize.")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """run.sh with a Python that only says how it was called, and no Docker beside it."""
    for name in ("run.sh", "setup.sh", "docker", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT_ROOT / name)
    executable(tmp_path / ".venv" / "bin" / "python", PYTHON)
    fingerprint = subprocess.run(
        ["/bin/bash", "-c", 'PROJECT="$1"; source "$1/setup.sh"; fingerprint', "", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / ".venv" / ".sparkpar").write_text(fingerprint)
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "cksum", "dirname", "sort", "grep", "id", "sh"):
        found = next(p for p in (Path("/bin") / name, Path("/usr/bin") / name) if p.exists())
        (tools / name).symlink_to(found)
    return tmp_path


def executable(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def run(project: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/bash", str(project / "run.sh"), *arguments],
        env={"PATH": str(project / "tools"), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("estimate", "estimate"),
        ("versions", "versions list"),
        ("rollback", "versions rollback"),
        ("diff", "versions diff"),
    ],
)
@pytest.mark.parametrize("state", [None, "exited"])
def test_without_containers_that_run_the_commands_are_the_machines_python(
    project: Path, command: str, module: str, state: str | None
) -> None:
    if state:
        executable(project / "tools" / "docker", DOCKER.format(state=state))
    done = run(project, command, *ASKED)
    assert done.returncode == 0, done.stderr
    choice = "-m sparkpar_assets.embedded.choice"
    assert done.stdout == f"python {choice} sparkpar_assets.{module} {' '.join(ASKED)}\n"


def test_with_containers_that_run_the_commands_are_those_of_the_application(project: Path) -> None:
    executable(project / "tools" / "docker", DOCKER.format(state="running"))
    done = run(project, "rollback", *ASKED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("docker compose ")
    asked = f"spark-app entrypoint python -m sparkpar_assets.versions rollback {' '.join(ASKED)}\n"
    assert done.stdout.endswith(asked)


def test_a_shell_with_embedded_env_does_not_reach_the_containers(project: Path) -> None:
    executable(project / "tools" / "docker", DOCKER.format(state="running"))
    done = run(project, "versions", *ASKED, **{ENV_FILE_VARIABLE: "/of/the/stack.env"})
    assert done.stdout.startswith("python ")
