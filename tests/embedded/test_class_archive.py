"""The archive of Java's classes, on the real Java."""

import subprocess
from pathlib import Path

import pytest

from sparkpar_assets.embedded import class_archive as module
from sparkpar_assets.embedded.class_archive import ClassArchive, class_archive
from sparkpar_assets.embedded.jvm import spark_home
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


def test_spark_composes_its_command_lines_by_a_java_that_uses_the_launchers_archive(
    tmp_path: Path,
) -> None:
    archive = ClassArchive(find_java_home(None), tmp_path / "key")
    assert "SharedArchiveFile" not in archive.launcher_options
    with archive.recording() as options:
        java(archive, options)
    with_archive = archive.launcher_options
    # A java that may not do without an archive fails where there is none.
    assert "version 3.5.8" in spark_submit(archive, f"{with_archive} -Xshare:on").stderr
    (tmp_path / "key" / "launcher.jsa").unlink()
    with pytest.raises(subprocess.CalledProcessError):
        spark_submit(archive, f"{with_archive} -Xshare:on")
    assert "version 3.5.8" in spark_submit(archive, with_archive).stderr


def test_a_folder_with_a_blank_in_its_name_is_not_named_to_sparks_scripts(
    archive: ClassArchive,
) -> None:
    with archive.recording() as options:
        java(archive, options)
    assert "SharedArchiveFile" not in archive.launcher_options


def spark_submit(archive: ClassArchive, options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [spark_home() / "bin" / "spark-submit", "--version"],
        env={
            "PATH": "/usr/bin:/bin",
            "JAVA_HOME": archive.java_home,
            "SPARK_LAUNCHER_OPTS": options,
        },
        capture_output=True,
        text=True,
        check=True,
    )


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
