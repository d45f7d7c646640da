"""A process is known by more than its number."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sparkpar_assets.embedded import processes
from sparkpar_assets.embedded.processes import PidFile
from sparkpar_assets.embedded.state import State


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield psutil.Process(process.pid)
    process.kill()
    process.wait()


def test_a_started_process_is_found_again(tmp_path: Path, sleeper: psutil.Process) -> None:
    file = PidFile(tmp_path / "server.pid")
    file.write(sleeper, {"s3": 9000})
    assert file.process() == sleeper
    assert file.ports() == {"s3": 9000}


def test_a_pid_that_now_belongs_to_another_process_is_not_ours(
    tmp_path: Path, sleeper: psutil.Process
) -> None:
    file = PidFile(tmp_path / "server.pid")
    file.write(sleeper, {})
    content = json.loads(file.path.read_text())
    file.path.write_text(json.dumps(content | {"created": content["created"] - 3600}))
    assert file.process() is None


def test_a_dead_process_is_not_running(tmp_path: Path, sleeper: psutil.Process) -> None:
    file = PidFile(tmp_path / "server.pid")
    file.write(sleeper, {})
    sleeper.kill()
    sleeper.wait()
    assert file.process() is None
    assert file.exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", "half a li"])
def test_a_pid_file_that_cannot_be_read_names_no_process(tmp_path: Path, content: str) -> None:
    file = PidFile(tmp_path / "server.pid")
    file.path.write_text(content)
    assert file.process() is None


def test_a_process_without_pid_file_is_found_by_its_stack(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.create()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = processes.start("s3", command, dict(os.environ), state, tmp_path)
    assert [(name, found) for name, found in processes.of_stack(state)] == [("s3", process)]
    processes.stop([process])
    assert not list(processes.of_stack(state))
