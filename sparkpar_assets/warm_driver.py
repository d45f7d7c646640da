"""A warm driver: a process with a Spark application that serves the runs of this machine.

``python -m sparkpar_assets.warm_driver FOLDER JAVA_HOME``, with the settings as JSON on its
standard input. Runs start it by themselves, see ``sparkpar_assets.resources.warm_driver``. It ends
when no run has asked for it for a while; when it has served many; when a run was broken off, since
what that one left in the JVM is nobody's; when a run has other settings; and with its JVM.
"""

import hmac
import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from sparkpar_assets.resources.environment import in_force
from sparkpar_assets.resources.private_files import write_private
from sparkpar_assets.resources.spark_driver import OwnDriver
from sparkpar_assets.resources.warm_driver import HOST, Folder, fingerprint, receive, send
from sparkpar_assets.settings import Settings

MOST_RUNS = 200
"""Then the driver is replaced: event log and pages of one application grow with each run."""
LOOK_SECONDS = 0.5
QUESTION_SECONDS = 5
APPLICATION = "sparkpar_assets, for run after run"


class WarmDriver:
    """Hands out sessions of one Spark application.

    Args:
        driver: Has the application.
        own: The fingerprint of the settings that it was started with.
        idle_seconds: It ends when it has not served for so long.
    """

    def __init__(self, driver: OwnDriver, own: str, idle_seconds: float) -> None:
        self.word = secrets.token_hex(32)
        self._driver = driver
        self._own = own
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._served = 0
        self._active = 0
        self._since = time.monotonic()
        self._is_worn = False
        self._ends = threading.Event()

    def serve(self, server: socket.socket) -> None:
        """Answer until it is time to end."""
        server.settimeout(LOOK_SECONDS)
        while not self._is_over():
            with suppress(TimeoutError):
                connection, _ = server.accept()
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _is_over(self) -> bool:
        """Whether it ends now; from then on it serves nobody."""
        with self._lock:
            idle = not self._active and time.monotonic() - self._since > self._idle_seconds
            worn = not self._active and (self._is_worn or self._served >= MOST_RUNS)
            if idle or worn or not self._is_alive():
                self._ends.set()
        return self._ends.is_set()

    def _is_alive(self) -> bool:
        from pyspark import SparkContext

        gateway = SparkContext._gateway
        return gateway is not None and gateway.proc.poll() is None

    def _answer(self, connection: socket.socket) -> None:
        """One connection: a question, and as long as it lasts the run that asked."""
        with connection, suppress(OSError, ValueError):
            connection.settimeout(QUESTION_SECONDS)
            question = receive(connection)
            if not hmac.compare_digest(str(question.get("word")).encode(), self.word.encode()):
                return
            if "end" in question:
                self._ends.set()
                self._wait_for_the_end(connection)
            elif why := self._enter(str(question.get("fingerprint"))):
                send(connection, why)
                if why.get("ends"):
                    self._wait_for_the_end(connection)
            else:
                self._serve_run(connection, str(question.get("run")))

    def _enter(self, asked: str) -> dict[str, Any]:
        """Count one run more, or say why not."""
        with self._lock:
            is_wanted = asked == self._own and self._served < MOST_RUNS and not self._is_worn
            if is_wanted and not self._ends.is_set() and not self._is_stopped():
                self._active += 1
                self._served += 1
                return {}
            if self._active:
                return {"busy": True}
            self._ends.set()
            return {"ends": True}

    def _is_stopped(self) -> bool:
        """Whether Spark's master has ended the application."""
        try:
            return bool(self._driver.session.sparkContext._jsc.sc().isStopped())
        except Exception:  # noqa: BLE001  # py4j's, of a JVM that is gone or going
            return True

    def _serve_run(self, connection: socket.socket, run: str) -> None:
        """Open an entrance into the JVM for one run, and close it when the run has gone."""
        in_order = False
        try:
            with self._entrance() as entrance:
                send(connection, entrance)
                connection.settimeout(None)
                in_order = bool(receive(connection).get("done"))
        finally:
            if not in_order:
                self._cancel(run)
            with self._lock:
                self._active -= 1
                self._since = time.monotonic()
                self._is_worn |= not in_order
        send(connection, {})

    @contextmanager
    def _entrance(self) -> Iterator[dict[str, Any]]:
        """PySpark's gateway, at a port and with a secret of its own; all it knows ends with it."""
        from pyspark import SparkContext

        context = self._driver.session.sparkContext
        jvm = SparkContext._jvm
        assert jvm is not None  # noqa: S101  # for mypy: the session has one
        gateway = jvm.org.apache.spark.api.python.Py4JServer(context._jsc.sc().conf())
        gateway.start()
        try:
            yield {"port": gateway.getListeningPort(), "secret": gateway.secret()}
        finally:
            with suppress(Exception):  # py4j's, of a JVM that is gone
                gateway.shutdown()

    def _cancel(self, run: str) -> None:
        with suppress(Exception):  # a JVM that is gone does nothing for the run
            self._driver.session.sparkContext.cancelJobGroup(run)

    def _wait_for_the_end(self, connection: socket.socket) -> None:
        """Keep who asked waiting: the connection closes when the process is gone."""
        connection.settimeout(None)
        connection.recv(1)


def main() -> None:
    """Start Spark, and serve until it is time to end."""
    folder, java_home = Folder(Path(sys.argv[1])), sys.argv[2]
    values = json.load(sys.stdin)
    settings = Settings.model_validate({k: v for k, v in values.items() if v is not None})
    signal.signal(signal.SIGTERM, _exit)
    with in_force(settings):
        own = fingerprint(settings, java_home)
        driver = OwnDriver(settings, APPLICATION, java_home)
        try:
            with socket.create_server((HOST, 0)) as server:
                warm = WarmDriver(driver, own, 60.0 * settings.spark_warm_driver_minutes)
                with _noted(folder, server.getsockname()[1], warm.word):
                    warm.serve(server)
        finally:
            driver.end(in_order=True)


@contextmanager
def _noted(folder: Folder, port: int, word: str) -> Iterator[None]:
    """Write down where the driver listens, for this user alone."""
    write_private(folder.note, json.dumps({"port": port, "word": word, "pid": os.getpid()}))
    try:
        yield
    finally:
        folder.note.unlink(missing_ok=True)


def _exit(*_: int | FrameType | None) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    main()
