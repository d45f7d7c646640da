"""Jars are the pinned ones, whole, or not there."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparkpar_assets.embedded import jars
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.project import PROJECT_ROOT

SMALL = next(jar for jar in jars.read_pins(jars.JARS) if "jmespath" in jar.coordinates)
WRONG = "0" * 64


def pin(folder: Path, coordinates: str, sha256: str, more: str = "") -> Path:
    (folder / jars.PINS).write_text(
        f'[[jar]]\ncoordinates = "{coordinates}"\nsha256 = "{sha256}"\n{more}\n'
    )
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def test_a_pinned_jar_is_fetched_once(tmp_path: Path) -> None:
    folder = pin(tmp_path, SMALL.coordinates, SMALL.sha256)
    fetched = jars.fetch(folder)
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in fetched] == [SMALL.sha256]
    assert jars.fetch(folder) == []
    assert names(folder) == [jars.PINS, SMALL.file_name]


def test_a_jar_that_is_not_the_pinned_one_is_not_kept(tmp_path: Path) -> None:
    folder = pin(tmp_path, SMALL.coordinates, WRONG)
    with pytest.raises(EmbeddedError, match=f"{SMALL.file_name} has SHA-256 {SMALL.sha256}"):
        jars.fetch(folder)
    assert names(folder) == [jars.PINS]


def test_an_artifact_that_nobody_has_is_named_and_leaves_no_half_file(tmp_path: Path) -> None:
    folder = pin(tmp_path, "com.amazonaws:jmespath-java:0.0.0-none", WRONG)
    with pytest.raises(EmbeddedError, match=r"jmespath-java:0\.0\.0-none cannot be fetched"):
        jars.fetch(folder)
    assert names(folder) == [jars.PINS]


def test_a_changed_jar_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    folder = pin(tmp_path, SMALL.coordinates, SMALL.sha256)
    (folder / SMALL.file_name).write_bytes(b"changed")
    with pytest.raises(EmbeddedError, match=r"Remove .* and fetch again"):
        jars.fetch(folder)
    assert (folder / SMALL.file_name).read_bytes() == b"changed"


def test_a_dropped_jar_is_left_alone_and_a_killed_download_is_removed(tmp_path: Path) -> None:
    folder = pin(tmp_path, SMALL.coordinates, hashlib.sha256(b"jar").hexdigest())
    (folder / SMALL.file_name).write_bytes(b"jar")
    (folder / "my-connector.jar").write_bytes(b"mine")
    half = folder / f"{jars.DOWNLOAD_PREFIX}killed" / "half.jar"
    half.parent.mkdir()
    half.write_bytes(b"ha")
    assert jars.fetch(folder) == []
    assert names(folder) == [jars.PINS, SMALL.file_name, "my-connector.jar"]


def test_an_optional_group_is_fetched_when_asked_for(tmp_path: Path) -> None:
    folder = pin(tmp_path, SMALL.coordinates, SMALL.sha256, 'group = "gcs"')
    assert jars.fetch(folder) == []
    assert jars.fetch(folder, frozenset({"gcs"})) == [folder / SMALL.file_name]


def test_an_unknown_group_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    folder = pin(tmp_path, SMALL.coordinates, SMALL.sha256, 'group = "gcs"')
    with pytest.raises(EmbeddedError, match="The groups are: gcs"):
        jars.fetch(folder, frozenset({"azure"}))


def test_a_servers_jar_stays_out_of_sparks_class_path(tmp_path: Path) -> None:
    folder = pin(tmp_path, SMALL.coordinates, SMALL.sha256, "server = true")
    assert jars.fetch(folder) == [folder / "servers" / SMALL.file_name]


@pytest.mark.parametrize("content", ["", "[[jar]]", "no toml", '[[jar]]\ncoordinates = "a:b:1"'])
def test_pins_that_cannot_be_read_are_explained(tmp_path: Path, content: str) -> None:
    (tmp_path / jars.PINS).write_text(content)
    with pytest.raises(EmbeddedError, match="needs coordinates"):
        jars.fetch(tmp_path)


def test_the_projects_pins_hold_the_gcs_connector_as_an_option() -> None:
    optional = {jar.group: jar.file_name for jar in jars.read_pins(jars.JARS) if jar.group}
    assert optional == {"gcs": "gcs-connector-hadoop3-2.2.26-shaded.jar"}


def test_the_image_fetches_jars_with_the_files_that_its_stage_copies(tmp_path: Path) -> None:
    """The stage is rebuilt when one of them changes, so that it copies no more than it needs."""
    stage = (PROJECT_ROOT / "docker" / "Dockerfile").read_text().partition(" AS jars\n")[2]
    for copied in re.findall(r"^COPY (sparkpar_assets/.*)$", stage.partition("\nRUN ")[0], re.M):
        *files, folder = copied.split()
        (tmp_path / folder).mkdir(exist_ok=True)
        for file in files:
            shutil.copy(PROJECT_ROOT / file, tmp_path / folder)
    subprocess.run(
        [sys.executable, "-m", "sparkpar_assets.embedded.jars", "--help"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
