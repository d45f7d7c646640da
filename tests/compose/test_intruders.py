"""The containers' Spark cluster lets in only who has its secret."""

import json
import stat
import subprocess
from typing import Any

import pytest

from tests.compose.cluster import DOCKER, NAME, Cluster, wait_until

STRANGER = "sparkpar-test-stranger"


@pytest.fixture(scope="module")
def containers(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """What Docker knows of each container."""
    return cluster.containers()


def test_the_clusters_secret_is_in_a_file_of_the_user_and_in_no_description(
    cluster: Cluster, containers: dict[str, dict[str, Any]]
) -> None:
    file = cluster.folder / ".sparkpar" / "compose" / "spark_auth_secret"
    secret = file.read_text()
    assert len(secret) == 64
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret not in json.dumps(containers)
    for service in ("spark-master", "spark-worker-1", "spark-app"):
        shown = cluster.execute(
            service, "sh", "-c", "cat /proc/[0-9]*/cmdline; ls -l /tmp/spark.properties || true"
        ).decode()
        assert secret not in shown, service
        if service != "spark-app":
            assert "-rw-------" in shown


def test_a_worker_without_the_secret_is_not_let_in(cluster: Cluster) -> None:
    before = cluster.workers()
    cluster.docker(
        *("run", "--detach", "--name", STRANGER, "--network", f"{NAME}_cluster"),
        # The image's own configuration would not even let it start without a secret.
        *("--hostname", "stranger", "--env", "SPARK_CONF_DIR=/tmp", "--entrypoint", "spark-class"),
        *(NAME, "org.apache.spark.deploy.worker.Worker", "--work-dir", "/tmp/work"),  # noqa: S108  # the container's
        "spark://spark-master:7077",
    )
    try:
        wait_until(
            lambda: "Retrying connection to master (attempt # 1)" in _log(),
            120,
            "the stranger's tries",
        )
        assert "Successfully registered" not in _log()
        assert cluster.workers() == before
    finally:
        cluster.docker("rm", "--force", STRANGER)


def _log() -> str:
    done = subprocess.run(
        [DOCKER, "logs", STRANGER], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout + done.stderr
