"""Starting, finding and stopping the stack's processes."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from sparkpar_assets.embedded.state import State

STACK_MARK = "SPARKPAR_EMBEDDED_STACK"
SERVER_MARK = "SPARKPAR_EMBEDDED_SERVER"
"""Every server's environment carries both, and its children inherit them: what a killed parent
left behind is still known to be ours."""

STOP_SECONDS = 10


@dataclass(frozen=True)
class PidFile:
    """A server's process, as it was started."""

    path: Path

    def write(self, process: psutil.Process, ports: dict[str, int]) -> None:
        """Keep the pid with its creation time: a pid alone is given to another process later."""
        new = self.path.with_suffix(".new")
        new.write_text(
            json.dumps({"pid": process.pid, "created": process.create_time(), "ports": ports})
        )
        new.replace(self.path)

    def process(self) -> psutil.Process | None:
        """The process, if it still runs."""
        content = self._read()
        if not content:
            return None
        try:
            process = psutil.Process(int(str(content["pid"])))
            # Linux counts creation times in hundredths from the boot, whose own time may drift.
            same = abs(process.create_time() - float(str(content["created"]))) < 1
            alive = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same and alive else None

    def ports(self) -> dict[str, int]:
        """The ports that the process was started with."""
        ports = self._read().get("ports", {})
        return ports if isinstance(ports, dict) else {}

    def exists(self) -> bool:
        """Whether a process was started and not stopped since: dead, if it does not run."""
        return self.path.exists()

    def remove(self) -> None:
        """Forget the process."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, object]:
        try:
            content = json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}


def start(
    name: str, command: list[str], environment: dict[str, str], state: State, folder: Path
) -> psutil.Process:
    """Start a server that outlives this process; its output goes to its log.

    The log begins anew, and the one before is kept: the end of a log always tells of the
    last start.
    """
    log = log_file(state, name)
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    marks = {STACK_MARK: str(state.stack), SERVER_MARK: name}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, **marks},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is not for the servers
        )
    return psutil.Process(process.pid)


def log_file(state: State, name: str) -> Path:
    """The log of a server."""
    return state.logs / f"{name}.log"


def end_of_log(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    if not path.exists():
        return "(no log)"
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64_000))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def of_stack(state: State) -> Iterator[tuple[str, psutil.Process]]:
    """Every process of the stack with the name of its server, pid file or not."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.uids().real != os.getuid():
                continue
            environment = process.environ()
            if environment.get(STACK_MARK) == str(state.stack):
                yield environment.get(SERVER_MARK, ""), process


def stop(processes: Iterable[psutil.Process]) -> None:
    """Ask processes and their children to end, then make them."""
    family = {child for process in processes for child in _with_children(process)}
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)


def _with_children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [process]
