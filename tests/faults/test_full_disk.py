"""The disk on which a worker's executors keep their shuffles is full."""

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparkpar_assets.embedded.testing import EmbeddedStack
from tests.faults.leftovers import assert_nothing_left
from tests.faults.report import Trial
from tests.faults.runs import begin, fail, load_samples, succeed
from tests.integration.workbench import Workbench

WORKERS = ("spark-worker-1", "spark-worker-2")
DISK_BYTES = 64 * 1024
MOUNT, UMOUNT = (shutil.which(name) or name for name in ("mount", "umount"))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk without room."""
    if os.geteuid():
        pytest.skip("only root can mount a small tmpfs")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [MOUNT, "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this machine does not let a tmpfs be mounted")
    (disk / "full").write_bytes(bytes(DISK_BYTES - 12 * 1024))
    yield disk
    subprocess.run([UMOUNT, "--lazy", str(disk)], check=True)


@pytest.fixture
def workers_disk(embedded_stack: EmbeddedStack, full_disk: Path) -> Iterator[Path]:
    """The full disk, on which the workers of the stack write now."""
    stack = embedded_stack.stack
    servers = [server for server in stack.servers if server.name in WORKERS]
    stop(embedded_stack)
    for server in servers:
        environment = server.environment | {"SPARK_LOCAL_DIRS": str(full_disk)}
        stack._start(dataclasses.replace(server, environment=environment))
    stack.up(say=lambda _: None)  # waits until they serve
    yield full_disk
    stop(embedded_stack)
    stack.up(say=lambda _: None)


def stop(stack: EmbeddedStack) -> None:
    """Kill both workers, with their executors."""
    for name in WORKERS:
        process = stack.stack._runs(name)
        if process is None:
            continue
        for one in [process, *process.children(recursive=True)]:
            one.kill()
        process.wait(10)


@pytest.mark.quick
@pytest.mark.fault("the local disk of the workers is full")
def test_a_run_on_full_disks_fails_with_a_sentence(
    workbench: Workbench, workers_disk: Path, trial: Trial
) -> None:
    load_samples(workbench)
    trial.begins()
    fail(workbench, begin(workbench), "The disk of a Spark worker is full")
    assert_nothing_left(workbench)
    (workers_disk / "full").unlink()
    subprocess.run([MOUNT, "-o", "remount,size=1g", str(workers_disk)], check=True)
    succeed(workbench, begin(workbench))
    trial.is_over("run fails, the next succeeds when there is room")
