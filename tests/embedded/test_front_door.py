"""run.sh, without what it starts."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from sparkpar_assets.project import PROJECT_ROOT


def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/bash", str(PROJECT_ROOT / "run.sh"), *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_help_names_every_command() -> None:
    script = (PROJECT_ROOT / "run.sh").read_text()
    cases = re.findall(r"^ {8}([a-z |]+)\)", script, re.MULTILINE)
    commands = {name.strip() for case in cases for name in case.split("|")}
    assert {"demo", "test", "ui", "embedded", "up", "stop", "materialize"} <= commands
    shown = run("help").stdout
    line = r"^  (?:[a-z]+, )?{}\b"
    assert not [n for n in commands if not re.search(line.format(n), shown, re.MULTILINE)]


def test_an_unknown_command_is_refused() -> None:
    shown = run("demos")
    assert shown.returncode == 2
    assert "there is no command 'demos'. ./run.sh help lists them." in shown.stderr


@pytest.mark.parametrize("script", ["run.sh", "setup.sh", "download_jars.sh", "docker/compose.sh"])
def test_scripts_are_for_the_bash_of_macos_too(script: str) -> None:
    text = (PROJECT_ROOT / script).read_text()
    newer_than_3_2 = r"\bmapfile\b|\breadarray\b|declare -A|\$\{\w+(,,|\^\^)\}|\|&|&>>|\$\{\w+@"
    assert not re.findall(newer_than_3_2, text)


def test_a_wrong_python_is_named(tmp_path: Path) -> None:
    for name in ("run.sh", "setup.sh", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).symlink_to(PROJECT_ROOT / name)
    shown = subprocess.run(
        ["/bin/bash", str(tmp_path / "run.sh"), "jars"],
        env=os.environ | {"PYTHON": "/bin/false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shown.returncode == 1
    assert "PYTHON=/bin/false is not a Python 3.11. Set it to one, or unset it." in shown.stderr
    assert not (tmp_path / ".venv").exists()
