"""Starts runs in a process that has their libraries imported already: seconds of each click.

``python -m sparkpar_assets.run_host`` reads a line for each run, ``dagster``'s arguments as JSON,
forks, and answers with a line, the id of the run's process. Only libraries are imported before: the
code of the assets is read by each run, as it is then. It ends with whoever started it; runs go on.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from sparkpar_assets.garbage import looked_for_rarely
from sparkpar_assets.resources.grpc_loading import load_grpc

LIBRARIES = (
    "alembic.command",
    "boto3",
    "dagster._cli.api",
    "dagster._core.storage.sqlite_storage",
    "dagster.components",
    "dagster_gcp",
    "dagster_pyspark",
    "google.cloud.bigquery",
    "google.cloud.bigquery_storage",
    "pyarrow.parquet",
    "pyspark.sql",
    "requests",
    "sqlalchemy.dialects.sqlite",
)
"""What takes long to import of what a run imports."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""For NumPy and Arrow, which start threads as they are imported: no fork would have these."""


class RunHost:
    """The process, for whoever launches runs."""

    def __init__(self) -> None:
        """Start it; it is of use in some seconds, and asked before that it lets wait."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env=os.environ | ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self.has_served = False

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def start(self, arguments: Sequence[str]) -> bool:
        """Start a run.

        Args:
            arguments: Those of the command ``dagster``.

        Returns:
            Whether its process is there. If not, the host is gone.
        """
        questions, answers = self._process.stdin, self._process.stdout
        with self._lock:
            try:
                print(json.dumps(arguments), file=questions, flush=True)
                started = bool(answers and answers.readline())
            except OSError:
                started = False
            self.has_served |= started
            if not started:
                self._process.kill()
                self._process.wait()
            return started


def main() -> None:
    """Serve until standard input ends."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # where the runs print
    load_grpc()
    with looked_for_rarely():
        for name in LIBRARIES:
            importlib.import_module(name)
    if _threads() > 1:
        sys.exit("A library has started a thread, which no fork would have: each run starts anew.")
    for name in ONE_THREAD:
        os.environ.pop(name, None)
    gc.collect()
    gc.freeze()  # else collections in the runs would copy what they share
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the runs
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _become(json.loads(line))
        os.write(answers, f"{pid}\n".encode())


def _become(arguments: list[str]) -> None:
    """Carry out a command of Dagster's in this process, and end it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.stdin.fileno())
    from dagster._cli import cli

    cli(args=arguments, prog_name="dagster")
    sys.exit(0)


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


if __name__ == "__main__":
    main()
