"""The process that forks runs. ``tests/faults/test_dagster_servers.py`` has real runs of it."""

import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from sparkpar_assets.run_host import RunHost
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
