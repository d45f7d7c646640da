"""What is killed in the middle of a run comes back, and the run's years are right in the end."""

import pytest

from tests.compose.cluster import ENDS, NAME, RETRY, Cluster, wait_until
from tests.compose.test_daily_use import sample
from tests.expected import expected_fares

YEARS = (2017, 2018, 2019)
KILL_CODE_SERVER = """
for process in /proc/[0-9]*; do
    id=${process#/proc/}
    if [ "$id" = $$ ]; then continue; fi
    if grep -qa lazy-load $process/cmdline; then kill -9 "$id"; fi
done
"""


@pytest.fixture
def running(cluster: Cluster) -> str:
    """A run of three years that has its executors."""
    run = wait_until(lambda: cluster.launch_years(YEARS[0], YEARS[-1]), 60, "a launch")
    # A launch that fails on its old connection to a database that was restarted may leave a run.
    for other, found in cluster.runs().items():
        if other != run and found["status"] not in ENDS:
            cluster.cancel(other)
    cluster.wait_for_application(run)
    return run


def check_figures(cluster: Cluster) -> None:
    for year in YEARS:
        assert cluster.fares(year) == expected_fares(sample(year))


def test_a_run_succeeds_though_a_worker_is_killed(cluster: Cluster, running: str) -> None:
    cluster.docker("kill", f"{NAME}-spark-worker-1-1")
    try:
        assert cluster.wait_for_end(running) == "SUCCESS"
    finally:
        cluster.docker("start", f"{NAME}-spark-worker-1-1")
    check_figures(cluster)
    cluster.wait_until_healthy("spark-worker-1")


def test_a_run_succeeds_though_the_database_is_restarted(cluster: Cluster, running: str) -> None:
    cluster.succeed("restart", "postgres")
    assert cluster.wait_for_end(running) == "SUCCESS"
    check_figures(cluster)


def test_a_killed_code_server_comes_back_and_its_run_is_retried(
    cluster: Cluster, running: str
) -> None:
    before = cluster.containers()["spark-app"]["RestartCount"]
    cluster.execute("spark-app", "sh", "-c", KILL_CODE_SERVER)
    wait_until(lambda: cluster.containers()["spark-app"]["RestartCount"] > before, 60, "a restart")
    assert cluster.wait_for_end(running) == "FAILURE"

    def retry() -> object:
        return cluster.runs()[running]["tags"].get(RETRY)

    assert cluster.wait_for_end(str(wait_until(retry, 120, "the retry"))) == "SUCCESS"
    check_figures(cluster)
