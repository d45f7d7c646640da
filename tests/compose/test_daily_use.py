"""What a data engineer does with the containers, by run.sh and by the UI."""

import html
import re
import subprocess
from functools import partial
from pathlib import Path

from sparkpar_assets.project import PROJECT_ROOT
from tests.compose.cluster import FARES, TRENDS, Cluster, wait_until
from tests.expected import expected_fares, expected_trends

YEARS = (2017, 2018, 2019, 2021)
ASSETS = "query Assets { assetNodes { assetKey { path } description dependencyKeys { path } } }"


def sample(year: int) -> Path:
    return PROJECT_ROOT / "sample_data" / f"tlc_yellow_trips_{year}.parquet"


def links(page: str) -> set[str]:
    """The addresses that a page leads to and is made of."""
    return {html.unescape(link) for link in re.findall(r'(?:href|src)="([^"#]+)"', page)}


def answers(cluster: Cluster, link: str) -> bool:
    """Whether a page is there."""
    return cluster.get(link)[0] == 200


def test_up_has_published_every_sample_year_to_the_last_digit(cluster: Cluster) -> None:
    expected = {year: expected_fares(sample(year)) for year in YEARS}
    for year in YEARS:
        assert cluster.fares(year) == expected[year]
    assert cluster.published(f"{TRENDS}/data.parquet") == expected_trends(expected)


def test_the_ui_shows_the_lineage(cluster: Cluster) -> None:
    nodes = {
        node["assetKey"]["path"][0]: [key["path"][0] for key in node["dependencyKeys"]]
        for node in cluster.graphql(ASSETS)["assetNodes"]
    }
    assert nodes == {"yellow_taxi_trips": [], FARES: ["yellow_taxi_trips"], TRENDS: [FARES]}


def test_two_runs_from_the_ui_share_the_workers_and_the_spark_pages_answer(
    cluster: Cluster,
) -> None:
    runs = [cluster.launch(FARES, {"dagster/partition": str(year)}) for year in (2017, 2019)]
    applications = [cluster.wait_for_application(run) for run in runs]
    assert [app["cores"] for app in applications] == [2, 2]

    master = cluster.url("spark-master-ui")
    _, front = cluster.get(master)
    for app in applications:
        assert app["id"] in front
    found = {link for link in links(front) if "127.0.0.1" in link}
    workers = {link for link in found if "/proxy/worker-" in link}
    assert len(workers) == 2
    for worker in workers:
        _, page = cluster.get(worker)
        assert "Running Executors" in page
        found |= {link for link in links(page) if link.startswith(master)}
    # Of an application that has just got its cores, Spark attaches the pages a moment later.
    for link in found:
        wait_until(partial(answers, cluster, link), 30, link)
    assert any("logPage" in link for link in found)
    status, jobs = cluster.get(f"{master}/proxy/{applications[1]['id']}/jobs/")
    assert status == 200
    assert FARES in jobs

    assert [cluster.wait_for_end(run) for run in runs] == ["SUCCESS", "SUCCESS"]
    for year in (2017, 2019):
        assert cluster.fares(year) == expected_fares(sample(year))
    past = f"{cluster.url('spark-history')}/history/{applications[0]['id']}/jobs/"
    wait_until(lambda: cluster.get(past)[0] == 200, 60, "the run on the History Server")


def test_a_version_is_listed_compared_and_put_back_in_the_containers(cluster: Cluster) -> None:
    cluster.succeed("materialize", FARES, "2021")
    shown = cluster.succeed("versions", FARES, "2021")
    newest, *_, oldest = re.findall(r"^(\d{8}T\d{6}\S*) ", shown, re.MULTILINE)
    assert "Nothing changed" in cluster.succeed("diff", FARES, "2021", oldest, newest)
    said = cluster.succeed("rollback", FARES, "2021", oldest)
    assert f"{FARES} 2021 is rolled back to {oldest}, from {newest}." in said
    assert f"rollback to {oldest}" in cluster.succeed("versions", FARES, "2021")
    assert cluster.fares(2021) == expected_fares(sample(2021))


def test_each_worker_s_own_page_answers(cluster: Cluster) -> None:
    for number in (1, 2):
        status, page = cluster.get(cluster.url(f"spark-worker-{number}-ui"))
        assert status == 200
        for link in links(page):
            assert cluster.get(link)[0] == 200, link


def test_materialize_says_what_there_is_where_the_asset_or_year_is_not(cluster: Cluster) -> None:
    for arguments, said in {
        ("fares",): "There is no asset fares to materialize. The assets are: fare_by_passenger",
        (FARES,): f"{FARES} has the partitions 2011 to ",
        (FARES, "1999"): f"{FARES} has no partition '1999'. The partitions are 2011 to ",
        (FARES, "2019...2017"): "2019...2017 ends before it begins. Write 2017...2019.",
        (TRENDS, "2018"): f"{TRENDS} has no partitions. Leave 2018 out.",
    }.items():
        done = cluster.run("materialize", *arguments)
        assert done.returncode == 1
        assert f"Error: {said}" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_year_without_a_table_fails_with_its_name_and_leaves_the_others(
    cluster: Cluster,
) -> None:
    done = cluster.run("materialize", FARES, "2018...2020")
    assert done.returncode != 0
    assert "2020: the table" in done.stdout + done.stderr
    assert cluster.fares(2018) == expected_fares(sample(2018))


def test_logs_follows_one_service(cluster: Cluster) -> None:
    with subprocess.Popen(
        ["/bin/bash", str(cluster.folder / "run.sh"), "logs", "spark-master"],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout
        assert any("Starting Spark master" in line for line in following.stdout)
        following.terminate()


def test_a_third_worker_is_started_and_taken_away_again(cluster: Cluster) -> None:
    cluster.succeed("up", "--embedded", "--no-run", "--workers", "3")
    assert len(cluster.workers()) == 3
    cluster.succeed("up", "--embedded", "--no-run")
    wait_until(lambda: len(cluster.workers()) == 2, 120, "the master to forget the worker")
    assert cluster.workers() == ["spark-worker-1", "spark-worker-2"]


def test_an_edit_reaches_the_ui_by_a_restart_of_the_app(cluster: Cluster) -> None:
    cluster.succeed("up", "--embedded", "--no-run", "--dev")
    asset = cluster.folder / "sparkpar_assets" / "assets" / "fares.py"
    before = asset.read_text()
    asset.write_text(before.replace('    """Trips, fares', '    """Edited: trips, fares', 1))
    try:
        cluster.succeed("restart", "spark-app")
        wait_until(
            lambda: any(
                node["description"].startswith("Edited: trips")
                for node in cluster.graphql(ASSETS)["assetNodes"]
            ),
            60,
            "the edited description",
        )
    finally:
        asset.write_text(before)
        cluster.succeed("up", "--embedded", "--no-run")


WARM = """
folder=/var/lib/spark/warm-driver
grep -v ^SPARK_WARM_DRIVER= "$SPARKPAR_ENV_FILE" >/tmp/warm.env
echo "SPARK_WARM_DRIVER='$folder'" >>/tmp/warm.env
export SPARKPAR_ENV_FILE=/tmp/warm.env
for year in 2017 2019; do
    dagster asset materialize -m sparkpar_assets.definitions --select "$0" --partition $year 2>&1
done
python -c "from pathlib import Path
from sparkpar_assets.resources.warm_driver import end_warm_driver
end_warm_driver(Path('$folder'))"
"""
"""Two runs as with the line SPARK_WARM_DRIVER=/var/lib/spark/warm-driver in .env."""


def test_a_warm_driver_in_spark_app_serves_run_after_run(cluster: Cluster) -> None:
    said = cluster.execute("spark-app", "bash", "-euc", WARM, FARES).decode()
    applications = re.findall(r"Spark application (\S+) staged the rows", said)
    assert len(applications) == 2, said[-5000:]
    assert len(set(applications)) == 1
    for year in (2017, 2019):
        assert cluster.fares(year) == expected_fares(sample(year))
    wait_until(lambda: not cluster.master()["activeapps"], 60, "the end of the driver")
