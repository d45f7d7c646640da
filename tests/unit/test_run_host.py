"""The process that forks runs. ``tests/faults/test_dagster_servers.py`` has real runs of it."""

import sys
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.tags import GRPC_INFO_TAG

from sparkpar_assets.embedded.dagster_home import write_dagster_yaml
from sparkpar_assets.run_host import RunHost
from sparkpar_assets.run_launcher import LocalRunLauncher
from tests.integration.workbench import wait_until


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no run is forked")
def test_runs_are_commands_of_dagster_in_forks_of_a_process_with_one_thread(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = tmp_path / "code.py"
    code.write_text("raise SystemExit(f'read {__file__}')")
    said = ""

    def is_said(words: str) -> bool:
        nonlocal said
        said += "".join(capfd.readouterr())
        return words in said

    host = RunHost()
    process = psutil.Process(host.pid)
    try:
        assert not host.has_served
        assert host.start(["--version"])
        assert host.has_served
        assert host.start(["asset", "list", "-f", str(code)])
        wait_until(lambda: is_said("dagster, version"), "the first command")
        wait_until(lambda: is_said(f"read {code}"), "the second command")
        wait_until(lambda: not process.children(), "the end of both")
        assert process.num_threads() == 1
        process.kill()
        assert host.start(["--version"]) is False
        assert not process.is_running()
    finally:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no run is forked")
def test_what_another_python_or_a_code_server_has_to_do_with_is_not_forked(tmp_path: Path) -> None:
    def run_of(python: str, tags: dict[str, str]) -> dg.DagsterRun:
        code = ModuleCodePointer("module", "defs", None)
        origin = JobPythonOrigin("job", RepositoryPythonOrigin(python, code))
        return dg.DagsterRun("job", job_code_origin=origin, tags=tags)

    write_dagster_yaml(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        launcher = instance.run_launcher
        assert isinstance(launcher, LocalRunLauncher)
        command = launcher._command(run_of(sys.executable, {}))
        assert command
        assert command[:2] == ["api", "execute_run"]
        assert launcher._command(run_of("/another/python", {})) is None
        # A retry has the tags of the run before it: its cancellation would go to that code server.
        assert launcher._command(run_of(sys.executable, {GRPC_INFO_TAG: "{}"})) is None
        assert launcher._command(dg.DagsterRun("job")) is None
