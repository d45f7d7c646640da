"""Dagster's web interface and daemon on the embedded stack, until Ctrl-C."""

import signal
import subprocess
import sys
import time

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
    port = stack.config.ports["dagster"]
    ports.check_free({"dagster": port})
    stack.up()
    _limit_applications(stack)
    print("==> Starting Dagster's web interface and daemon", flush=True)
    running: dict[str, psutil.Process] = {}
    try:
        for name, command in _commands(port).items():
            running[name] = processes.start(
                name,
                command,
                environment.process_environment(stack.config),
                stack.state,
                PROJECT_ROOT,
            )
        _watch(stack, running, port)
    finally:
        _stop(running)


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


def _commands(port: int) -> dict[str, list[str]]:
    workspace = ["-w", str(PROJECT_ROOT / "workspace.local.yaml")]
    python = [sys.executable, "-m"]
    return {
        WEBSERVER: [*python, "dagster_webserver", "-h", ports.HOST, "-p", str(port), *workspace],
        DAEMON: [*python, "dagster._daemon", "run", *workspace],
    }


def _watch(stack: Stack, running: dict[str, psutil.Process], port: int) -> None:
    """Say when the web interface answers; raise when one of the processes ends."""
    start = time.monotonic()
    ready = False
    while True:
        for name, process in running.items():
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise _failure(stack, name, "ended")
        if not ready and http_status(port, "/server_info") == 200:
            ready = True
            print(f"    http://{ports.HOST}:{port}  (Ctrl-C stops it)", flush=True)
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


def _stop(running: dict[str, psutil.Process]) -> None:
    """End both processes, the code servers that they started, and these servers' runs."""
    processes.stop(running.values())


if __name__ == "__main__":
    main()
