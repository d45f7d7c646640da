"""Up twice, down, up, and everything removed. The last file: nothing is left after it."""

from typing import Any

from sparkpar_assets.project import PROJECT_ROOT
from tests.compose.cluster import ENDS, NAME, RETRY, Cluster, wait_until
from tests.compose.test_daily_use import YEARS, sample
from tests.expected import expected_fares

OURS = f"label=com.docker.compose.project={NAME}"


def settled_runs(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """All runs, once none is under way and each that Dagster retries has its retry."""
    runs: dict[str, dict[str, Any]] = {}

    def are_settled() -> bool:
        nonlocal runs
        runs = cluster.runs()
        return all(
            run["status"] in ENDS
            and (run["tags"].get("dagster/will_retry") != "true" or RETRY in run["tags"])
            for run in runs.values()
        )

    try:
        wait_until(are_settled, 300, "the end of all runs")
    except AssertionError as error:
        raise AssertionError(f"{error}: {runs}") from None
    return runs


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[Any, Any]]:
    """The runs that are not as they were."""
    every = sorted({*before, *after})
    return [(before.get(r), after.get(r)) for r in every if before.get(r) != after.get(r)]


def test_up_when_already_up_changes_nothing(cluster: Cluster) -> None:
    def running() -> dict[str, str]:
        return {
            name: container["Id"] + container["State"]["StartedAt"]
            for name, container in cluster.containers().items()
            if container["State"]["Running"]
        }

    before = running()
    cluster.succeed("up", "--embedded", "--no-run")
    assert running() == before


def test_all_data_is_there_after_down_and_up(cluster: Cluster) -> None:
    runs = settled_runs(cluster)
    assert runs
    mounts = [m for c in cluster.containers().values() for m in c["Mounts"]]
    volumes = {mount["Name"] for mount in mounts if mount["Type"] == "volume"}
    cluster.succeed("down")
    assert cluster.containers() == {}
    left = volumes & set(cluster.docker("volume", "ls", "-q").split())
    named = {"postgres", "dagster", "spark-events", "embedded-keys", "embedded-data"}
    assert left == {f"{NAME}_{name}" for name in named}
    cluster.succeed("up", "--embedded", "--no-run")
    assert changed(runs, cluster.runs()) == []
    for year in YEARS:
        assert cluster.fares(year) == expected_fares(sample(year))


def test_a_lost_password_of_the_database_is_renewed(cluster: Cluster) -> None:
    runs = settled_runs(cluster)
    cluster.succeed("down")
    (cluster.folder / ".sparkpar" / "compose" / "postgres_password").unlink()
    cluster.succeed("up", "--embedded", "--no-run")
    assert changed(runs, cluster.runs()) == []


def test_cleanup_asks_before_it_removes_data_and_removes_nothing_of_others(
    cluster: Cluster,
) -> None:
    volume = cluster.docker("volume", "create").strip()
    try:
        said = cluster.succeed("cleanup")
        assert "The volumes stay." in said
        assert cluster.containers() == {}
        assert cluster.docker("images", "-q", NAME) == ""
        assert cluster.docker("network", "ls", "-q", "--filter", OURS) == ""
        assert cluster.docker("volume", "ls", "-q", "--filter", OURS) != ""

        cluster.succeed("cleanup", "--yes")
        assert cluster.docker("volume", "ls", "-q", "--filter", OURS) == ""
        assert volume in cluster.docker("volume", "ls", "-q")
        assert cluster.docker("images", "-q", "postgres:15-bookworm") != ""
    finally:
        cluster.docker("volume", "rm", volume)
    assert not (cluster.folder / ".sparkpar" / "compose").exists()
    assert (PROJECT_ROOT / "run.sh").exists()
