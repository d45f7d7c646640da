"""Files that hold a secret are read only where nobody else can read them."""

import os
from pathlib import Path

import dagster as dg
import pytest

from sparkpar_assets.resources.private_files import read_private

REMEDY = "Make another."


def refusal(path: Path) -> str:
    with pytest.raises(dg.Failure) as refused:
        read_private(path, "The secret", REMEDY)
    return str(refused.value.description)


def secret_file(folder: Path, mode: int, content: str = "hush") -> Path:
    file = folder / "a secret"
    file.write_text(content)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert read_private(secret_file(tmp_path, mode), "The secret", REMEDY) == "hush"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o660])
def test_a_file_that_others_can_read_or_change_is_refused_with_the_command(
    tmp_path: Path, mode: int
) -> None:
    file = secret_file(tmp_path, mode)
    said = refusal(file)
    assert said.startswith(f"{file} holds a secret, and other users of this machine can read it")
    assert f"(its mode is {mode:o}). Run chmod 600 '{file}'" in said
    assert "hush" not in said


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a file of another user")
def test_a_file_of_another_owner_may_be_open_to_our_group_alone(
    tmp_path: Path,
) -> None:
    file = secret_file(tmp_path, 0o640)
    os.chown(file, 4321, os.getgid())
    assert read_private(file, "The secret", REMEDY) == "hush"
    file.chmod(0o644)
    assert "Run chmod o-rwx" in refusal(file)


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    file = tmp_path / "none"
    assert refusal(file) == f"The secret: {file} does not exist. {REMEDY}"
    empty = secret_file(tmp_path, 0o600, "\n")
    assert refusal(empty) == f"The secret: {empty} is empty. {REMEDY}"
    assert "cannot be read (IsADirectoryError)" in refusal(private_folder(tmp_path))


def private_folder(folder: Path) -> Path:
    made = folder / "folder"
    made.mkdir(mode=0o700)
    return made
