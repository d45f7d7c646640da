"""The image of all services."""

import hashlib
import json
import re
import time
import tomllib

from packaging.requirements import Requirement

from sparkpar_assets.project import PROJECT_ROOT
from tests.compose.cluster import NAME, Cluster

INSTALLED = """
import importlib.metadata, json
print(json.dumps({d.name.lower().replace("_", "-"): d.version
    for d in importlib.metadata.distributions()}))
"""


def in_image(project: Cluster, *command: str) -> str:
    """What a command prints in a container of the image alone, as it is without Compose."""
    return project.docker("run", "--rm", "--network=none", "--read-only", NAME, *command)


def test_it_holds_the_packages_of_the_lock_file_and_no_others(project: Cluster) -> None:
    lock = (PROJECT_ROOT / "docker" / "requirements.lock").read_text()
    pins = [Requirement(pin) for pin in re.findall(r"^([a-z].*?) \\$", lock, re.MULTILINE)]
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    wanted = {
        pin.name.replace(".", "-"): str(pin.specifier).removeprefix("==")
        for pin in pins
        if pin.marker is None or pin.marker.evaluate(linux)
    }
    assert json.loads(in_image(project, "python", "-c", INSTALLED)) == wanted


def test_it_holds_the_pinned_jars(project: Cluster) -> None:
    pins = tomllib.loads((PROJECT_ROOT / "jars" / "jars.toml").read_text())["jar"]
    wanted = {pin["sha256"] for pin in pins if not pin.get("group")}
    sums = in_image(project, "sh", "-c", "sha256sum jars/*.jar jars/servers/*.jar")
    assert {line.split()[0] for line in sums.splitlines()} == wanted


def test_it_has_a_java_17_and_no_compiler_installer_or_cache(project: Cluster) -> None:
    assert 'version "17.' in in_image(project, "sh", "-c", "java -version 2>&1")
    tools = "for c in gcc cc g++ make javac jlink uv; do command -v $c; done; true"
    assert in_image(project, "sh", "-c", tools) == ""
    caches = "ls -A /root/.cache /var/cache/apt/archives/*.deb /opt/uv 2>/dev/null; true"
    assert in_image(project, "sh", "-c", caches) == ""


def test_it_runs_as_the_user_of_this_machine(project: Cluster) -> None:
    assert in_image(project, "id", "-u").strip() not in ("", "0")


def test_it_is_below_1700_megabytes(project: Cluster) -> None:
    size = int(project.docker("image", "inspect", NAME, "--format", "{{.Size}}"))
    assert size < 1.7e9


def test_no_layer_holds_what_is_private(project: Cluster) -> None:
    marker = hashlib.sha256(str(project.folder).encode()).hexdigest()
    secrets = project.folder / ".secrets"
    secrets.mkdir(exist_ok=True)
    files = [project.folder / ".env", secrets / "marker.json", project.folder / "jars" / "my.key"]
    for file in files:
        file.write_text(marker)
    try:
        project.succeed("build", AWS_SECRET_ACCESS_KEY=marker)
    finally:
        for file in files:
            file.unlink()
    found = in_image(project, "sh", "-c", f"grep -rl {marker} /opt/sparkpar /etc /tmp || true")
    assert found == ""
    assert marker not in project.docker("history", "--no-trunc", NAME)
    assert marker not in project.docker("image", "inspect", NAME)


def test_an_edit_of_an_asset_is_built_in_seconds(project: Cluster) -> None:
    asset = project.folder / "sparkpar_assets" / "assets" / "fares.py"
    before = asset.read_text()
    asset.write_text(f"{before}\n# edited\n")
    try:
        started = time.monotonic()
        project.succeed("build")
        took = time.monotonic() - started
    finally:
        asset.write_text(before)
    assert "# edited" in in_image(project, "cat", "sparkpar_assets/assets/fares.py")
    assert took < 30
    log = (project.folder / ".sparkpar" / "compose" / "build.log").read_text()
    assert len(re.findall(r"^#\d+ CACHED$", log, re.MULTILINE)) > 10
    project.succeed("build")
