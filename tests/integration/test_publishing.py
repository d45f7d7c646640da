"""Readers and writers of one year at once, kills included: every version is whole."""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest

from tests.integration.publisher_process import start_publisher
from tests.integration.readers import boto3_reader, duckdb_reader
from tests.integration.versions import fares, trips_table, version_of
from tests.integration.workbench import FARES, Workbench, kill_group, wait_until

REMATERIALIZATIONS = 20
KILLED_EVERY = 3
EACH_YEAR = ("--select", FARES, "--partition")
# The driver's own machine is enough for a few rows, and leaves the cluster to other tests.
ALONE = {"SPARK_MASTER_URL": "local[1]", "SPARK_EVENT_LOG_DIR": ""}


def spark_sightings(bench: Workbench, reader: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What the Spark reader has seen so far."""
    lines = bench.output_of(reader).splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def spark_versions(sightings: list[dict[str, Any]], way: str) -> list[int]:
    return [
        version_of(
            {name: Decimal(value) for name, value in row.items()} for row in sighting["rows"]
        )
        for sighting in sightings
        if sighting["way"] == way and "rows" in sighting
    ]


@pytest.mark.slow
def test_readers_meet_whole_versions_while_runs_replace_them_and_are_killed(
    workbench: Workbench,
) -> None:
    # Twenty runs from the command line would take six minutes, nearly all of them for the starts of
    # Python, Java and Spark. What publishes is the asset's step: most runs are those of processes
    # that keep their session, and the last one comes from the command line. A process that was
    # killed, with its JVM, is replaced by one that has been started meanwhile.
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 — shown when the test fails
    chance = random.Random(seed)  # noqa: S311
    workbench.configure(**ALONE, STAGING_LEASE_SECONDS="5")
    publishers = [start_publisher(workbench) for _ in range(2)]
    for publisher in publishers:
        workbench.wait_for(publisher.process, "published 2011 1\n")
    publishers[0].publish(2018, 1)
    spark = workbench.start(sys.executable, "-m", "tests.integration.spark_reader")
    readers = [boto3_reader(workbench, 2018).start(), duckdb_reader(workbench, 2018).start()]
    workbench.wait_for(spark, '{"way": "plain"')

    took = [2.0]
    killed: list[int] = []
    for version in range(2, REMATERIALIZATIONS + 1):
        if version % KILLED_EVERY:
            took.append(publishers[0].publish(2018, version))
            continue
        publishers[0].begin(2018, version)
        if len(killed) % 2:  # anywhere in the run, or in its end, where the object is replaced
            publishers[0].wait_for_staged_rows()
            time.sleep(chance.uniform(0, 0.5))
        else:
            time.sleep(chance.uniform(0, statistics.median(took)))
        kill_group(publishers.pop(0).process)
        killed.append(version)
        publishers.append(start_publisher(workbench))
        workbench.wait_for(publishers[0].process, "published 2011 1\n")
    last = REMATERIALIZATIONS + 1
    workbench.load_trips(2018, trips_table(last))
    workbench.materialize_years(2018)

    seen = len(spark_sightings(workbench, spark))
    wait_until(lambda: len(spark_sightings(workbench, spark)) > seen + 3, "two more reads of both")
    for reader in readers:
        wait_until(lambda r=reader: r.failure or r.versions[-1] == last, "the last version")  # type: ignore[misc]
        reader.stop()
    assert spark.poll() is None, workbench.output_of(spark)[-5000:]
    kill_group(spark)

    assert len(killed) == REMATERIALIZATIONS // KILLED_EVERY
    sightings = spark_sightings(workbench, spark)
    everything = {
        "boto3": readers[0].versions,
        "duckdb": readers[1].versions,
        "spark, as an asset": spark_versions(sightings, "asset"),
        "spark, plainly": spark_versions(sightings, "plain"),
    }
    for who, versions in everything.items():
        print(who, len(versions), "reads of", sorted(set(versions)))  # noqa: T201
        assert versions == sorted(versions), f"{who} saw an old version again: {versions}"
        assert versions[-1] == last
        assert len(set(versions)) > 3, f"{who} saw too few versions to tell: {versions}"
    assert set(range(1, last + 1)) - set(everything["boto3"]) <= set(killed)
    assert len(workbench.keys("_history/fare_by_passenger_count/year=2018/")) == 5
    print(Counter(readers[1].retries), Counter(str(s.get("error")) for s in sightings))  # noqa: T201


@pytest.mark.slow
def test_runs_of_other_years_and_of_the_same_year_at_once_leave_each_year_whole(
    workbench: Workbench,
) -> None:
    workbench.configure(SPARK_CORES_MAX="1")  # so that all three get an executor
    for year, version in ((2017, 7), (2018, 8)):
        workbench.load_trips(year, trips_table(version))
    runs = [workbench.popen(*EACH_YEAR, year) for year in ("2017", "2018", "2018")]
    for run in runs:
        assert run.wait() == 0, workbench.output_of(run)[-5000:]
    for year, version in ((2017, 7), (2018, 8)):
        assert workbench.published(year).to_pylist() == fares(version)
    assert workbench.keys(f"{FARES}/") == [workbench.key(2017), workbench.key(2018)]
    assert sorted(workbench.materialized_years()) == ["2017", "2018", "2018"]
    histories = [workbench.keys(f"_history/{FARES}/year={year}/") for year in (2017, 2018)]
    assert [len(keys) for keys in histories] == [1, 2]
    ids = [key.removesuffix(".parquet")[-36:] for key in histories[1]]
    assert len(set(ids)) == 2, "each run's own version is kept"
    assert not workbench.keys("_staging/")


def test_a_year_published_from_a_newer_state_of_its_table_is_left_as_it_is(
    workbench: Workbench,
) -> None:
    workbench.share_driver()
    workbench.load_trips(2018, trips_table(1))
    workbench.materialize_years(2018)
    key = workbench.key(2018)
    head = workbench.s3.head_object(Bucket=workbench.bucket, Key=key)
    noted = head["Metadata"]
    with workbench.instance() as instance:
        (run,) = instance.get_runs()
    assert noted["run-id"] == run.run_id
    assert noted["code-version"] == "1"
    assert noted["source-version"].endswith(" 4 rows")
    assert noted["published-at"] < time.strftime("%Y%m%dT%H%M%S.999999Z", time.gmtime())

    workbench.s3.copy_object(
        Bucket=workbench.bucket,
        Key=key,
        CopySource={"Bucket": workbench.bucket, "Key": key},
        Metadata={**noted, "source-version": "9999-01-01T00:00:00.000+00:00 5 rows"},
        MetadataDirective="REPLACE",
    )
    workbench.load_trips(2018, trips_table(2))
    done = workbench.materialize(*EACH_YEAR, "2018")
    assert done.returncode == 0
    assert "2018 is left as it is: it was published from a newer state" in done.stderr
    assert workbench.published(2018).to_pylist() == fares(1)
    assert len(workbench.keys(f"_history/{FARES}/")) == 1
    with workbench.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(FARES))
    assert event is not None
    assert event.asset_materialization is not None
    said = event.asset_materialization.metadata
    assert said["source_version"].value == "9999-01-01T00:00:00.000+00:00 5 rows"
    assert "not_replaced" in said
    assert "trips" not in said, "of rows that were not published nothing is said"


def cancel(workbench: Workbench, by: signal.Signals) -> None:
    """Cancel a run from the command line while Spark works for it."""
    object_before = b"what was published before"
    key = workbench.key(2018)
    workbench.s3.put_object(Bucket=workbench.bucket, Key=key, Body=object_before)
    workbench.load_trips(2018, trips_table(3))
    run = workbench.popen(*EACH_YEAR, "2018")
    wait_until(
        lambda: run.poll() is not None or workbench.keys("_staging/"),
        "a staging area, in which Spark begins to write",
    )
    assert run.poll() is None, workbench.output_of(run)[-5000:]
    with workbench.instance() as instance:
        (run_id,) = [record.run_id for record in instance.get_runs()]
    assert [name for name in active_applications(workbench) if run_id in name]

    os.kill(run.pid, by)
    assert run.wait(timeout=60) != 0, workbench.output_of(run)[-5000:]
    wait_until(
        lambda: not [name for name in active_applications(workbench) if run_id in name],
        "the end of the Spark application",
        seconds=30,
    )
    assert not workbench.keys("_staging/"), workbench.output_of(run)[-5000:]
    assert workbench.content(key) == object_before
    assert not workbench.materialized_years()


def active_applications(workbench: Workbench) -> list[str]:
    """Names of the applications that the master counts as active."""
    import requests

    port = workbench.stack.ports["spark-master-ui"]
    state = requests.get(f"http://127.0.0.1:{port}/json/", timeout=10).json()
    return [application["name"] for application in state["activeapps"]]


def test_a_run_that_is_interrupted_leaves_neither_application_nor_staging(
    workbench: Workbench,
) -> None:
    cancel(workbench, signal.SIGINT)


def test_a_run_that_is_terminated_leaves_neither_application_nor_staging(
    workbench: Workbench,
) -> None:
    cancel(workbench, signal.SIGTERM)
