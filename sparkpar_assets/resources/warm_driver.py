"""Borrowing a warm driver: one that is there before a run, and serves the next one after it.

Most of a small run is the start of its driver and executors. A warm driver is a process of its own
(``sparkpar_assets.warm_driver``) with a JVM, in which each run has a session of its own. It writes
down for this user alone where it listens; the first run that finds none starts it, and it ends by
itself. Nothing of a run outlives it there: a driver whose run was broken off, and one with other
settings or keys than the run's, serves no more.

This is PySpark's own way into a JVM that runs already, and not Spark Connect: Spark 3.5's Connect
server listens on every address of the machine and asks nobody who he is.
"""

import fcntl
import hashlib
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import dagster as dg

from sparkpar_assets.resources.environment import variables
from sparkpar_assets.resources.spark_configuration import (
    secret_properties,
    spark_defaults,
    spark_properties,
)
from sparkpar_assets.resources.spark_driver import (
    end_updates,
    forget_jvm,
    kept_interrupt_handler,
    refuse_second_session,
)
from sparkpar_assets.resources.spark_losses import WarmDriverLost, notice_loss
from sparkpar_assets.settings import Settings, variable_names

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway
    from pyspark.sql import SparkSession

HOST = "127.0.0.1"
ANSWER_SECONDS = 20
"""A driver that collects garbage may need some."""
START_SECONDS = 120
LONGEST_LINE = 65_536


@dataclass(frozen=True)
class Folder:
    """The folder that ``SPARK_WARM_DRIVER`` names, which only its owner can enter."""

    path: Path

    @property
    def note(self) -> Path:
        """Where the driver listens, and the word that lets a run in."""
        return self.path / "driver.json"

    @property
    def log(self) -> Path:
        """What the driver and its JVM print."""
        return self.path / "driver.log"

    def create(self) -> None:
        """Make it.

        Raises:
            dg.Failure: It is open to others, or cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
        except OSError as error:
            raise dg.Failure(
                f"The folder {self.path} cannot be made ({error.strerror}). Correct "
                "SPARK_WARM_DRIVER, or unset it.",
                allow_retries=False,
            ) from None
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise dg.Failure(
                f"Other users can enter {self.path}, and what is noted there lets in who reads it. "
                f"Run chmod 700 {shlex.quote(str(self.path))}, or set SPARK_WARM_DRIVER to a "
                "folder that is not there yet.",
                allow_retries=False,
            )

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder alone: of two runs that find no driver, one starts it."""
        with (self.path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def pid(self) -> int | None:
        """The driver's process id; None where there is no driver."""
        with suppress(OSError, ValueError):
            note = json.loads(self.note.read_text())
            with socket.create_connection((HOST, note["port"]), ANSWER_SECONDS):
                return int(note["pid"])
        return None

    def ask(self, **question: str) -> tuple[socket.socket, dict[str, Any]] | None:
        """Ask the driver something.

        Returns:
            The connection and the answer; None where no driver answers.
        """
        with suppress(OSError, ValueError):
            note = json.loads(self.note.read_text())
            connection = socket.create_connection((HOST, note["port"]), ANSWER_SECONDS)
            try:
                send(connection, {**question, "word": note["word"]})
                return connection, receive(connection)
            except BaseException:
                connection.close()
                raise
        return None


class BorrowedDriver:
    """A session of a warm driver, which belongs to this process while the connection lasts.

    A call into a JVM that is gone raises ``WarmDriverLost``, also while this is made.
    """

    is_warm = True
    is_lost = False

    def __init__(self, connection: socket.socket, answer: dict[str, Any]) -> None:
        refuse_second_session()
        self._connection = connection
        try:
            with kept_interrupt_handler():
                self.session = _attach(_gateway(answer["port"], answer["secret"], self._lose))
        except BaseException:
            forget_jvm(is_lost=self.is_lost)
            connection.close()
            raise

    def _lose(self, error: Exception) -> NoReturn:
        self.is_lost = True
        raise WarmDriverLost from error

    def end(self, *, in_order: bool) -> None:
        """Give the session back; a driver with work that was broken off serves no more."""
        end_updates(self.session.sparkContext)
        forget_jvm(is_lost=self.is_lost)
        with closing(self._connection), suppress(OSError):
            if in_order:
                send(self._connection, {"done": True})
                receive(self._connection)  # what the driver kept for this run is gone


def borrow(settings: Settings, run_id: str, java_home: str) -> BorrowedDriver | None:
    """A session of the warm driver, which is started if there is none.

    Args:
        settings: Those of the run.
        run_id: The run; its jobs are known by it.
        java_home: The Java that the driver is to use.

    Returns:
        None where ``SPARK_WARM_DRIVER`` is not set, the driver is busy with runs of other settings,
        or none can be started: the run has to start its own, and can say what is wrong.

    Raises:
        dg.Failure: The folder is open to others.
        WarmDriverLost: The driver ended just now.
    """
    if not settings.spark_warm_driver:
        return None
    folder = Folder(Path(settings.spark_warm_driver).absolute())
    folder.create()
    question = {"run": run_id, "fingerprint": fingerprint(settings, java_home)}
    with folder.alone():
        answer = _ask_until_gone(folder, question)
        if answer is None and _start(folder, settings, java_home):
            answer = folder.ask(**question)
    if answer is None:
        return None
    connection, said = answer
    if "port" not in said:
        connection.close()
        return None
    return BorrowedDriver(connection, said)


def end_warm_driver(folder: Path) -> None:
    """End the driver of a folder, if there is one, whatever it does."""
    Folder(folder).ask(end="now")  # nothing is answered: the connection ends with the driver


def fingerprint(settings: Settings, java_home: str) -> str:
    """What two runs have to have in common to share a driver: all that their JVMs would be told.

    Keys that were replaced are among it: nothing of a driver that knows the old ones is used again.
    """
    files = (settings.google_credentials_file, settings.trust_store)
    jars = sorted(Path(settings.jars_dir).glob("*.jar"))
    told = [
        spark_properties(settings, "", Path()),
        secret_properties(settings),
        [Path(file).read_text(errors="replace") for file in files if file and Path(file).exists()],
        [(jar.name, jar.stat().st_size, jar.stat().st_mtime_ns) for jar in jars],
        [java_home, spark_defaults(), sys.prefix, settings.aws_profile],
    ]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one line of JSON."""
    connection.sendall(json.dumps(message).encode() + b"\n")


def receive(connection: socket.socket) -> dict[str, Any]:
    """Receive one line of JSON.

    Raises:
        ConnectionError: The connection ended before.
        OSError: It is lost, or no answer comes in time.
        ValueError: It is none.
    """
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError("the other end has closed the connection")
        line += piece
        if len(line) > LONGEST_LINE:
            raise ValueError("a line that is too long")
    found = json.loads(line)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")  # of what was sent, not of a caller's
    return found


def _ask_until_gone(
    folder: Folder, question: dict[str, str]
) -> tuple[socket.socket, dict[str, Any]] | None:
    """Ask the driver; one that serves no more is waited for."""
    answer = folder.ask(**question)
    if answer is not None and answer[1].get("ends"):
        with closing(answer[0]) as connection, suppress(OSError, ValueError):
            receive(connection)
        return None
    return answer


def _start(folder: Folder, settings: Settings, java_home: str) -> bool:
    """Start a driver, and wait until it listens; False if it does not."""
    # The settings come another way; what tells whose process this is, is true of the run alone.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in variable_names() and not name.startswith("SPARKPAR_")
    }
    with folder.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sparkpar_assets.warm_driver", str(folder.path), java_home],
            cwd=folder.path,
            # Temporary files of the run that happens to be the first are gone with it.
            env={**environment, "TMPDIR": str(folder.path)},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it outlives this run, and a Ctrl-C is not for it
        )
    # Secrets stand neither in its command line nor in its environment.
    assert process.stdin is not None  # noqa: S101  # for mypy: it is a pipe
    with process.stdin as pipe, suppress(BrokenPipeError):
        pipe.write(json.dumps(settings.as_environment()).encode())
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if folder.pid() == process.pid:
            return True
        time.sleep(0.05)
    process.kill()
    process.wait()
    return False


def _gateway(port: int, secret: str, lost: Callable[[Exception], NoReturn]) -> "JavaGateway":
    """The way into the JVM that listens at a port, as PySpark has it to a JVM of its own."""
    from py4j.protocol import Py4JError
    from pyspark.java_gateway import launch_gateway

    place = {"PYSPARK_GATEWAY_PORT": str(port), "PYSPARK_GATEWAY_SECRET": secret}
    try:
        with variables(place):
            gateway: JavaGateway = launch_gateway()  # type: ignore[no-untyped-call]  # PySpark's
    except (Py4JError, OSError) as error:
        lost(error)
    notice_loss(gateway, lost)
    return gateway


def _attach(gateway: "JavaGateway") -> "SparkSession":
    """A new session of a JVM."""
    from py4j.java_gateway import java_import
    from pyspark import SparkConf, SparkContext
    from pyspark.sql import SparkSession

    jvm = gateway.jvm
    java_import(jvm, "org.apache.spark.api.java.JavaSparkContext")
    there = jvm.SparkSession.builder().getOrCreate()
    java_context = jvm.JavaSparkContext.fromSparkContext(there.sparkContext())
    context = SparkContext(
        gateway=gateway, jsc=java_context, conf=SparkConf(_jconf=java_context.getConf())
    )
    return SparkSession(context, jsparkSession=there.newSession())
