"""How the containers are kept in: user, privileges, memory, ports, secrets, logs."""

import ast
import json
import re
from typing import Any

import pytest

from sparkpar_assets.project import PROJECT_ROOT
from tests.compose.cluster import NAME, Cluster

ONE_SHOT = {"embedded-keys", "sample-trips"}
SIX_GB = 6 * 2**30
UIS = {"spark-master", "spark-worker-1", "spark-worker-2", "spark-history", "dagster-webserver"}
SERVICES = UIS | ONE_SHOT | {"spark-app", "dagster-daemon", "postgres", "bigquery", "s3"}
SERVICES |= {"token-endpoint"}


@pytest.fixture(scope="module")
def containers(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """What Docker knows of each container."""
    return cluster.containers()


def test_every_service_is_there_and_healthy(containers: dict[str, dict[str, Any]]) -> None:
    assert set(containers) == SERVICES
    for name, container in containers.items():
        state = container["State"]
        if name in ONE_SHOT:
            assert (state["Status"], state["ExitCode"]) == ("exited", 0)
        else:
            assert state["Health"]["Status"] == "healthy"


def test_the_health_of_the_daemon_is_that_of_all_that_dagster_counts(cluster: Cluster) -> None:
    script = "import dagster as dg; print(*dg.DagsterInstance.get().get_required_daemon_types())"
    counted = cluster.execute("dagster-daemon", "python", "-c", script).decode().split()
    source = (PROJECT_ROOT / "docker" / "healthy.py").read_text()
    (listed,) = re.findall(r"^DAEMONS = (\(.*?^\))", source, re.DOTALL | re.MULTILINE)
    assert sorted(counted) == list(ast.literal_eval(listed))


def test_none_can_do_more_than_it_needs(containers: dict[str, dict[str, Any]]) -> None:
    for name, container in containers.items():
        host = container["HostConfig"]
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["ReadonlyRootfs"], name
        assert not host["Privileged"], name
        assert container["Config"]["User"].split(":")[0] not in ("", "0", "root"), name


def test_each_has_a_limit_of_memory_and_together_six_gigabytes(
    containers: dict[str, dict[str, Any]],
) -> None:
    limits = {name: c["HostConfig"]["Memory"] for name, c in containers.items()}
    assert all(limits.values())
    assert sum(limit for name, limit in limits.items() if name not in ONE_SHOT) <= SIX_GB


def test_each_is_started_again_after_a_crash_and_its_log_is_rotated(
    containers: dict[str, dict[str, Any]],
) -> None:
    for name, container in containers.items():
        host = container["HostConfig"]
        wanted = "no" if name in ONE_SHOT else "unless-stopped"
        assert host["RestartPolicy"]["Name"] == wanted, name
        assert host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}, name


def test_only_web_interfaces_are_published_and_on_this_machine_alone(
    containers: dict[str, dict[str, Any]],
) -> None:
    published = {
        name: [binding["HostIp"] for port in ports for binding in port]
        for name, container in containers.items()
        if (ports := [p for p in container["HostConfig"]["PortBindings"].values() if p])
    }
    assert published == {name: ["127.0.0.1"] for name in UIS}


def test_they_have_a_network_of_their_own(containers: dict[str, dict[str, Any]]) -> None:
    for container in containers.values():
        assert list(container["NetworkSettings"]["Networks"]) == [f"{NAME}_cluster"]


def test_the_database_password_is_in_no_container_s_description(
    cluster: Cluster, containers: dict[str, dict[str, Any]]
) -> None:
    file = cluster.folder / ".sparkpar" / "compose" / "postgres_password"
    password = file.read_text()
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert file.parent.stat().st_mode & 0o077 == 0
    assert password not in json.dumps(containers)


def test_the_database_refuses_a_wrong_password(cluster: Cluster) -> None:
    connect = (
        "import psycopg2\n"
        "try: psycopg2.connect(host='postgres', user='dagster', password='wrong')\n"
        "except psycopg2.OperationalError as error: print(error)"
    )
    said = cluster.execute("dagster-daemon", "python", "-c", connect).decode()
    assert "password authentication failed" in said


def test_nothing_that_they_write_belongs_to_root(cluster: Cluster) -> None:
    find = "find /var/lib/dagster /var/lib/spark-events /var/lib/spark -uid 0 | head"
    assert cluster.execute("spark-app", "sh", "-c", find) == b""


def test_status_shows_each_service_and_the_workers_as_the_master_sees_them(
    cluster: Cluster,
) -> None:
    shown = cluster.succeed("status")
    for name in SERVICES:
        assert re.search(rf"^{name} +(Up|Exited \(0\))", shown, re.MULTILINE), name
    for port_name in ("dagster", "spark-master-ui", "spark-worker-2-ui"):
        assert cluster.url(port_name) in shown
    assert re.search(r"MiB / \d", shown)
    assert "is ALIVE: 2 workers, 0 of 4 cores" in shown
    assert re.search(r"^    spark-worker-2 +0 of 2 cores", shown, re.MULTILINE)
