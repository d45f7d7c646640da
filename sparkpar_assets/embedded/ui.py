"""Dagster's web interface and daemon on the embedded stack, until Ctrl-C."""

import fcntl
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from sparkpar_assets.embedded import environment, ports, processes
from sparkpar_assets.embedded.errors import EmbeddedError, command_line
from sparkpar_assets.embedded.server import http_status
from sparkpar_assets.embedded.stack import Stack
from sparkpar_assets.project import PROJECT_ROOT

WEBSERVER = "dagster-webserver"
DAEMON = "dagster-daemon"
POLL_SECONDS = 0.3
READY_WITHIN_SECONDS = 120
MOST_RESTARTS = 3
"""Of each process. One that ends that often would go on to."""


def main() -> None:
    """Serve until Ctrl-C, which ends both processes in order."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with command_line():
            serve()
    except KeyboardInterrupt:
        print("\nStopped. The embedded stack stays up; ./run.sh embedded down stops it.")
        sys.exit(130)


def serve() -> None:
    """Start the stack if it is not up, then Dagster, and watch it.

    Raises:
        EmbeddedError: The port is taken, or a process ends.
    """
    stack = Stack.of_environment()
    with _alone(stack):
        ports.check_free({"dagster": stack.config.ports["dagster"]})
        stack.up()
        _limit_applications(stack)
        print("==> Starting Dagster's web interface and daemon", flush=True)
        running: dict[str, psutil.Process] = {}
        try:
            for name in _commands(stack):
                running[name] = _start(stack, name)
            _watch(stack, running)
        finally:
            _stop(stack)


@contextmanager
def _alone(stack: Stack) -> Iterator[None]:
    """Hold the stack's web interface alone; stop first what a killed ``./run.sh ui`` has left.

    Raises:
        EmbeddedError: Another one serves.
    """
    stack.state.run.mkdir(parents=True, exist_ok=True)
    with (stack.state.run / "ui.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EmbeddedError(
                "Another ./run.sh ui serves this stack.", "Use that one, or stop it by Ctrl-C."
            ) from error
        _stop(stack)
        yield


def _limit_applications(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sparkpar_assets.spark_pool"],
        env=environment.process_environment(stack.config),
        cwd=PROJECT_ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise EmbeddedError(done.stderr.strip().removeprefix("Error: "), "")


def _commands(stack: Stack) -> dict[str, list[str]]:
    port = stack.config.ports["dagster"]
    workspace = ["-w", str(PROJECT_ROOT / "workspace.local.yaml")]
    python = [sys.executable, "-m"]
    return {
        WEBSERVER: [*python, "dagster_webserver", "-h", ports.HOST, "-p", str(port), *workspace],
        DAEMON: [*python, "dagster._daemon", "run", *workspace],
    }


def _start(stack: Stack, name: str) -> psutil.Process:
    return processes.start(
        name,
        _commands(stack)[name],
        environment.process_environment(stack.config),
        stack.state,
        PROJECT_ROOT,
    )


def _watch(stack: Stack, running: dict[str, psutil.Process]) -> None:
    """Say when the web interface answers; start again what ends later, and raise if that is no use.

    Runs are children of the code servers that both processes have, and outlive them.
    """
    start = time.monotonic()
    ready = False
    restarts = dict.fromkeys(running, 0)
    while True:
        for name, process in running.items():
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                continue
            if not ready or restarts[name] == MOST_RESTARTS:
                raise _failure(stack, name, "ended")
            restarts[name] += 1
            print(f"==> {name} ended: starting it again", flush=True)
            running[name] = _start(stack, name)
        if not ready and http_status(stack.config.ports["dagster"], "/server_info") == 200:
            ready = True
            print(f"    {stack.config.url('dagster')}  (Ctrl-C stops it)", flush=True)
            print(f"    Logs: {processes.log_file(stack.state, WEBSERVER)}", flush=True)
        if not ready and time.monotonic() - start > READY_WITHIN_SECONDS:
            raise _failure(stack, WEBSERVER, f"did not serve within {READY_WITHIN_SECONDS} seconds")
        time.sleep(POLL_SECONDS)


def _failure(stack: Stack, name: str, what: str) -> EmbeddedError:
    log = processes.log_file(stack.state, name)
    return EmbeddedError(
        f"{name} {what}; the end of its log says:\n{processes.end_of_log(log)}\n",
        f"Read {log}, then run ./run.sh ui again.",
    )


def _stop(stack: Stack) -> None:
    """End both processes, the code servers that they started, and these servers' runs."""
    names = (WEBSERVER, DAEMON)
    processes.stop([found for name, found in processes.of_stack(stack.state) if name in names])


if __name__ == "__main__":
    main()
