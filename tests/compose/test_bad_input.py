"""What ``run.sh`` says where containers cannot be started, and what it leaves alone."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.compose.cluster import Cluster, copy_project

GOOD_ENV = """\
S3_BUCKET=bucket
AWS_ACCESS_KEY_ID=AKIAEXAMPLE
AWS_SECRET_ACCESS_KEY=secret
GOOGLE_APPLICATION_CREDENTIALS=/secrets/service_account.json
"""


with_docker = pytest.mark.usefixtures("project")


@pytest.fixture
def fresh(tmp_path: Path) -> Cluster:
    """A copy of the project of this test alone, of which nothing is started."""
    return copy_project(tmp_path / "fresh")


def write_env(fresh: Cluster, text: str = GOOD_ENV) -> None:
    (fresh.folder / ".env").write_text(text)


def write_key(fresh: Cluster, mode: int = 0o644) -> Path:
    key = fresh.folder / ".secrets" / "service_account.json"
    key.parent.mkdir(exist_ok=True)
    key.write_text("{}")
    key.chmod(mode)
    return key


def refusal(fresh: Cluster, *arguments: str, **variables: str) -> str:
    """The sentence with which a command fails; it starts no container."""
    done = fresh.run(*arguments, **variables)
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


def commands_on_path(tmp_path: Path, **scripts: str) -> str:
    """A PATH of the system's commands less docker, and of these scripts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    for name in ("bash", "cat", "dirname", "id", "awk", "sed", "sort", "head", "tr", "grep", "ls"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


def test_a_machine_without_docker_is_told_of_the_way_without(
    fresh: Cluster, tmp_path: Path
) -> None:
    said = refusal(fresh, "up", "--embedded", PATH=commands_on_path(tmp_path))
    assert "Docker was not found." in said
    assert "./run.sh demo" in said


def test_a_docker_without_compose_is_named(fresh: Cluster, tmp_path: Path) -> None:
    path = commands_on_path(tmp_path, docker="exit 1")
    assert "has no Compose v2" in refusal(fresh, "up", PATH=path)


def test_a_compose_that_is_too_old_is_named_with_its_version(
    fresh: Cluster, tmp_path: Path
) -> None:
    path = commands_on_path(tmp_path, docker="echo v2.9.0")
    assert "Docker Compose is v2.9.0, and 2.24 is the oldest" in refusal(fresh, "up", PATH=path)


def test_a_docker_that_is_too_old_is_named_with_its_version(fresh: Cluster, tmp_path: Path) -> None:
    script = 'case "$1" in compose) echo v2.24.5 ;; *) echo 24.0.7 ;; esac'
    path = commands_on_path(tmp_path, docker=script)
    assert "Docker is 24.0.7, and 25.0 is the oldest" in refusal(fresh, "up", PATH=path)


@with_docker
@pytest.mark.parametrize("command", ["up", "build", "status", "down", "logs", "cleanup"])
def test_a_daemon_that_is_not_running_is_named(fresh: Cluster, command: str) -> None:
    said = refusal(fresh, command, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert "Docker's daemon does not answer. Start it" in said


@with_docker
def test_a_missing_env_is_named_with_both_ways_on(fresh: Cluster) -> None:
    said = refusal(fresh, "up")
    assert "There is no .env" in said
    assert "Copy .env.example to .env" in said
    assert "./run.sh up --embedded" in said


@with_docker
def test_every_missing_variable_is_named(fresh: Cluster) -> None:
    write_env(fresh, "AWS_ACCESS_KEY_ID=AKIAEXAMPLE\nS3_BUCKET=''  # none yet\n")
    said = refusal(fresh, "up")
    assert "No value in .env for: S3_BUCKET, AWS_SECRET_ACCESS_KEY." in said


@with_docker
def test_the_example_as_it_is_lacks_bucket_and_keys(fresh: Cluster) -> None:
    shutil.copy(fresh.folder / ".env.example", fresh.folder / ".env")
    said = refusal(fresh, "up")
    assert "S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY." in said


@with_docker
def test_nothing_in_env_is_run(fresh: Cluster) -> None:
    write_env(fresh, f"S3_BUCKET=$(touch {fresh.folder}/evil)\nX=`touch {fresh.folder}/evil`\n")
    fresh.run("up", GOOGLE_APPLICATION_CREDENTIALS="/nowhere", SPARKPAR_PORTS="nothing")
    assert not (fresh.folder / "evil").exists()


@with_docker
def test_a_missing_key_file_is_named(fresh: Cluster) -> None:
    write_env(fresh)
    assert ".secrets/service_account.json is missing" in refusal(fresh, "up")


@with_docker
def test_a_key_file_that_is_a_folder_is_named(fresh: Cluster) -> None:
    write_env(fresh)
    (fresh.folder / ".secrets" / "service_account.json").mkdir(parents=True)
    assert ".secrets/service_account.json is a folder: Docker makes one" in refusal(fresh, "up")


@with_docker
def test_a_key_file_outside_of_secrets_is_refused(fresh: Cluster) -> None:
    write_env(fresh, GOOD_ENV.replace("/secrets/", "/home/me/"))
    assert "/home/me/service_account.json, which no container sees" in refusal(fresh, "up")


@with_docker
def test_a_key_that_others_can_read_is_refused_with_the_command(fresh: Cluster) -> None:
    write_env(fresh)
    key = write_key(fresh, mode=0o644)
    said = refusal(fresh, "up")
    assert (
        f"{key} holds a secret, and other users of this machine can read it. Run chmod 600" in said
    )


@with_docker
@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a file of another user")
def test_a_key_that_the_containers_cannot_read_is_refused(fresh: Cluster) -> None:
    write_env(fresh)
    os.chown(write_key(fresh, mode=0o600), 4321, 4321)
    said = refusal(fresh, "up")
    assert "cannot be read by user 1000, as which the containers run" in said


@with_docker
def test_a_taken_port_is_named_with_the_way_to_another(fresh: Cluster) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refusal(fresh, "up", "--embedded", SPARKPAR_PORTS=f"dagster={port}")
    assert f"Port {port} (dagster) is taken." in said
    assert "SPARKPAR_PORTS=free" in said


@with_docker
@pytest.mark.parametrize("wish", ["dagster", "dagster=", "s3=1", "dagster=70000", "*"])
def test_a_wish_for_ports_that_cannot_be_read_is_refused(fresh: Cluster, wish: str) -> None:
    said = refusal(fresh, "up", "--embedded", SPARKPAR_PORTS=wish)
    assert f"SPARKPAR_PORTS has '{wish}', which is not NAME=PORT." in said


@with_docker
@pytest.mark.parametrize("number", ["0", "-1", "many", "", "1000"])
def test_a_number_of_workers_that_is_none_is_refused(fresh: Cluster, number: str) -> None:
    said = refusal(fresh, "up", "--embedded", "--workers", number)
    assert "--workers needs a number from 1 to 99." in said


@with_docker
def test_an_unknown_option_is_refused(fresh: Cluster) -> None:
    assert "up has no option --embeded." in refusal(fresh, "up", "--embeded")


@with_docker
def test_an_unknown_service_lists_those_that_there_are(fresh: Cluster) -> None:
    for command in ("logs", "restart"):
        said = refusal(fresh, command, "sparkmaster")
        assert "There is no service sparkmaster. The services are: " in said
        for name in ("spark-master", "spark-worker-1", "spark-worker-2", "spark-app"):
            assert name in said


@with_docker
def test_a_build_without_a_network_says_what_to_do(fresh: Cluster) -> None:
    lock = fresh.folder / "docker" / "requirements.lock"
    lock.write_text(lock.read_text() + "\n# not in the cache\n")
    said = refusal(fresh, "build", SPARKPAR_BUILD_NETWORK="none")
    assert "The image could not be built" in said
    assert "Check the network" in said


def test_commands_on_containers_that_are_not_up_say_how_to_start_them(project: Cluster) -> None:
    for command in (["materialize", "fare_trends"], ["restart"], ["restart", "spark-app"]):
        done = project.run(*command)
        assert done.returncode == 1
        assert "Start the containers: ./run.sh up, or ./run.sh up --embedded." in done.stderr


def test_down_and_status_when_nothing_is_up_are_no_failures(project: Cluster) -> None:
    assert "Nothing is up" in project.succeed("down")
    assert "Nothing is up" in project.succeed("status")
