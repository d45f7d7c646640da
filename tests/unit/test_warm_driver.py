"""When a warm driver ends, whom it serves, and where it may be written down."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sparkpar_assets import warm_driver
from sparkpar_assets.embedded.stack import Stack
from sparkpar_assets.embedded.state import State
from sparkpar_assets.resources import warm_driver as borrowing
from sparkpar_assets.resources.warm_driver import (
    HOST,
    LONGEST_LINE,
    Folder,
    borrow,
    fingerprint,
    receive,
    send,
)
from sparkpar_assets.settings import load_settings
from sparkpar_assets.warm_driver import WarmDriver

OURS = "a fingerprint"


class Served(WarmDriver):
    """One whose JVM is always well, and lets nobody in: what it says and when it ends is tested."""

    def _is_alive(self) -> bool:
        return True

    def _is_stopped(self) -> bool:
        return False

    @contextmanager
    def _entrance(self) -> Iterator[dict[str, Any]]:
        yield {"port": 1, "secret": "s"}

    def _cancel(self, run: str) -> None:
        """Nothing runs."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "warm")
    made.create()
    return made


@contextmanager
def serving(folder: Folder, idle_seconds: float = 60) -> Iterator[threading.Thread]:
    """A driver that serves in a thread, which is over when the driver is."""
    driver = Served(None, OURS, idle_seconds)  # type: ignore[arg-type]  # there is no JVM
    with socket.create_server((HOST, 0)) as server:
        thread = threading.Thread(target=driver.serve, args=[server], daemon=True)
        with warm_driver._noted(folder, server.getsockname()[1], driver.word):
            thread.start()
            try:
                yield thread
            finally:
                driver._ends.set()
                thread.join()


def ask(folder: Folder, asked: str = OURS) -> tuple[socket.socket, dict[str, Any]]:
    answer = folder.ask(run="a run", fingerprint=asked)
    assert answer is not None
    return answer


def give_back(connection: socket.socket) -> None:
    send(connection, {"done": True})
    receive(connection)
    connection.close()


def test_it_serves_one_run_after_the_other_and_ends_when_none_has_come_for_a_while(
    folder: Folder,
) -> None:
    with serving(folder, idle_seconds=3) as thread:
        for _ in range(3):
            connection, said = ask(folder)
            assert said == {"port": 1, "secret": "s"}
            time.sleep(1.1)  # longer than it looks for, in sum, while it is not idle
            give_back(connection)
        assert thread.is_alive()
        thread.join(10)
        assert not thread.is_alive()


def test_it_ends_when_a_run_was_broken_off_but_not_before_the_others_are_over(
    folder: Folder,
) -> None:
    with serving(folder) as thread:
        broken, _ = ask(folder)
        other, _ = ask(folder)
        broken.close()
        deadline = time.monotonic() + 10
        while True:
            with closing((answer := ask(folder))[0]):
                if answer[1] == {"busy": True}:
                    break
            assert time.monotonic() < deadline
        assert thread.is_alive()
        give_back(other)
        thread.join(10)
        assert not thread.is_alive()


def test_it_ends_for_a_run_with_other_settings_unless_it_is_busy(folder: Folder) -> None:
    with serving(folder) as thread:
        connection, _ = ask(folder)
        with closing((answer := ask(folder, "another"))[0]):
            assert answer[1] == {"busy": True}
        give_back(connection)
        with closing((answer := ask(folder, "another"))[0]):
            assert answer[1] == {"ends": True}
        thread.join(10)
        assert not thread.is_alive()


def test_it_ends_after_many_runs(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_driver, "MOST_RUNS", 2)
    with serving(folder) as thread:
        for _ in range(2):
            give_back(ask(folder)[0])
        thread.join(10)
        assert not thread.is_alive()


def test_what_is_no_question_is_not_answered_and_harms_nothing(folder: Folder) -> None:
    with serving(folder) as thread:
        port = int(Path(folder.note).read_text().split('"port": ')[1].split(",")[0])
        for text in (b"\n", b"[]\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * (LONGEST_LINE + 1)):
            with socket.create_connection((HOST, port)) as connection:
                connection.sendall(text)
                connection.shutdown(socket.SHUT_WR)
                with suppress(ConnectionResetError):  # of a line that it did not read to its end
                    assert connection.recv(1) == b""
        assert thread.is_alive()
        give_back(ask(folder)[0])


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open to all"
    folder.mkdir(mode=0o755)
    settings = load_settings({"SPARK_WARM_DRIVER": str(folder)})
    with pytest.raises(dg.Failure) as refused:
        borrow(settings, "run", "/java")
    assert f"Run chmod 700 '{folder}'" in str(refused.value.description)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = load_settings({"SPARK_WARM_DRIVER": str(tmp_path / "file" / "folder")})
    with pytest.raises(dg.Failure) as refused:
        borrow(settings, "run", "/java")
    assert "Correct SPARK_WARM_DRIVER" in str(refused.value.description)


def test_the_embedded_stack_shows_its_driver_and_takes_it_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It waits for the end of the driver's process, which is the test's own here.
    monkeypatch.setattr(borrowing, "ANSWER_SECONDS", 1)
    stack = Stack.of_state(State(tmp_path / "state"))
    stack.state.stack.mkdir(parents=True)
    folder = Folder(stack.state.warm_driver)
    folder.create()
    assert stack.warm_driver() == "none"
    with serving(folder) as thread:
        assert stack.warm_driver() == f"pid {os.getpid()}, its log is {folder.log}"
        stack.down(say=lambda _: None)
        thread.join(10)
        assert not thread.is_alive()


def test_without_the_setting_a_run_has_a_driver_of_its_own() -> None:
    assert borrow(load_settings({}), "run", "/java") is None


def test_runs_share_a_driver_where_their_jvms_would_be_told_the_same(tmp_path: Path) -> None:
    jars = tmp_path / "jars"
    jars.mkdir()
    key, secret = tmp_path / "key.json", tmp_path / "secret"
    for file in (key, secret):
        file.write_text("one")
        file.chmod(0o600)
    values = {
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        "SPARK_AUTH_SECRET_FILE": str(secret),
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "one",
        "SPARK_JARS_DIR": str(jars),
    }

    def print_of(**others: str) -> str:
        return fingerprint(load_settings(values | others), "/java")

    first = print_of()
    assert print_of(S3_PREFIX="elsewhere", TAXI_TABLE_PREFIX="p.d.t", HISTORY_VERSIONS="1") == first
    assert print_of(AWS_SECRET_ACCESS_KEY="two") != first
    assert print_of(SPARK_EXECUTOR_MEMORY="3g") != first
    assert print_of(AWS_ENDPOINT_URL_S3="https://s3.example.com") != first
    for file in (key, secret):
        file.write_text("two")
        assert print_of() != first
        file.write_text("one")
    assert print_of() == first
    (jars / "new.jar").touch()
    assert print_of() != first
