"""The archive of Java's classes, on the real Java."""

import subprocess
from pathlib import Path

import pytest

from sparkpar_assets.embedded import class_archive as module
from sparkpar_assets.embedded.class_archive import ClassArchive, class_archive
from sparkpar_assets.resources.java import find_java_home


@pytest.fixture
def archive(tmp_path: Path) -> ClassArchive:
    return ClassArchive(find_java_home(None), tmp_path / "a cache" / "key")


def java(archive: ClassArchive, options: str) -> str:
    command = [str(Path(archive.java_home) / "bin" / "java"), *options.replace('"', "").split(" -")]
    command = [command[0], *(f"-{option.removeprefix('-')}" for option in command[1:])]
    done = subprocess.run(
        [*command, "-Xlog:cds", "-version"], capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


def test_a_java_that_ends_within_the_block_leaves_an_archive_that_the_next_one_uses(
    archive: ClassArchive,
) -> None:
    assert archive.options == ""
    with archive.recording() as options:
        java(archive, options)
    assert archive.is_recorded
    assert "sharing" in java(archive, archive.options)


def test_without_a_java_that_ended_there_is_none(archive: ClassArchive) -> None:
    with archive.recording():
        pass
    assert not archive.is_recorded
    assert archive.options == ""


def test_another_jar_asks_for_another_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHE", tmp_path)
    (tmp_path / "one.jar").touch()
    before = class_archive("/java", tmp_path)
    assert class_archive("/java", tmp_path) == before
    (tmp_path / "two.jar").touch()
    assert class_archive("/java", tmp_path) != before
