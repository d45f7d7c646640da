"""The model of docs/scaling.md: it follows its formulas, and the document holds its figures."""

from dataclasses import replace
from math import ceil

import pytest

from benchmarks.model import (
    CLUSTERS,
    EXECUTOR_GB,
    TAXI,
    WORKS,
    Cluster,
    Work,
    duration,
    egress_usd,
    estimate,
    money,
    request_table,
    s3_requests,
    table,
)
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.settings import load_settings

DOCUMENT = (PROJECT_ROOT / "docs" / "scaling.md").read_text()
HERE = Cluster("here", executors=2, cores=1, overhead_gb=0.0)


def test_the_document_holds_the_tables_that_the_command_prints() -> None:
    assert table() in DOCUMENT
    assert request_table() in DOCUMENT


def test_ten_times_the_rows_take_ten_times_as_long_to_read_and_no_more_memory() -> None:
    small, large = (estimate(replace(TAXI, rows=rows), HERE) for rows in (1e9, 1e10))
    assert large.seconds["read"] == pytest.approx(10 * small.seconds["read"])
    assert large.seconds["publish"] == small.seconds["publish"]
    assert large.executor_gb == small.executor_gb


def test_twice_the_cores_read_twice_as_fast_until_the_network_is_full() -> None:
    one, two, many = (
        estimate(TAXI, replace(HERE, executors=executors)) for executors in (4, 8, 4096)
    )
    assert one.seconds["read"] == pytest.approx(2 * two.seconds["read"])
    assert (one.bottleneck, many.bottleneck) == ("cores", "network")
    # 56 bytes a trip through 10 Gbit/s, which are 1.25 GB.
    assert many.seconds["read"] == pytest.approx(TAXI.rows * 56 / 1.25e9)


def test_a_table_is_read_by_no_more_than_a_thousand_cores() -> None:
    one_table = Work("one table", rows=1e12, partitions=1)
    cluster = Cluster("large", executors=2000, cores=1, abroad=False)
    found = estimate(one_table, cluster)
    assert found.bottleneck == "streams"
    assert (
        found.seconds["read"]
        == estimate(one_table, replace(cluster, executors=1000)).seconds["read"]
    )
    assert estimate(replace(one_table, partitions=2), cluster).bottleneck == "cores"


def test_what_leaves_google_in_a_month_is_cheaper_the_more_it_is() -> None:
    tib = 2**40
    assert egress_usd(tib) == pytest.approx(1024 * 0.12)
    assert egress_usd(11 * tib) == pytest.approx(1024 * (0.12 + 9 * 0.11 + 0.08))
    assert estimate(TAXI, replace(HERE, abroad=False)).usd["egress"] == 0


def test_requests_to_s3_grow_with_partitions_and_runs_alone() -> None:
    run, partition = (
        s3_requests(replace(TAXI, partitions=partitions)).total for partitions in (0, 1)
    )
    assert s3_requests(replace(TAXI, rows=1.0)) == s3_requests(TAXI)
    assert s3_requests(replace(TAXI, partitions=100, runs=10)).total == 10 * run + 100 * (
        partition - run
    )


def test_money_is_what_reading_transfer_cores_and_requests_cost() -> None:
    found = estimate(Work("a TiB", rows=ceil(2**40 / 56), partitions=1), HERE)
    assert found.usd["read"] == pytest.approx(1.1)
    assert found.usd["egress"] == pytest.approx(122.88)
    assert found.usd["compute"] == pytest.approx(2 * sum(found.seconds.values()) / 3600 * 0.048)
    # 11 listings and writes of a partition at 0.005, 12 reads at 0.0004 US dollars a thousand; of
    # a run 34 and 13. Removals are free.
    assert found.usd["s3"] == pytest.approx(((12 + 34) * 0.005 + (12 + 13) * 0.0004) / 1000)


def test_an_executor_of_the_model_is_that_of_the_settings() -> None:
    assert load_settings({}).spark_executor_memory == f"{EXECUTOR_GB:g}g"


def test_figures_have_two_digits_and_the_unit_that_one_would_say() -> None:
    assert [duration(seconds) for seconds in (1.34, 99, 700, 86_400)] == [
        "1.3 s",
        "99 s",
        "12 min",
        "24 h",
    ]
    assert [money(usd) for usd in (0, 0.01271, 1.4999, 1284.0)] == [
        "$0",
        "$0.013",
        "$1.5",
        "$1,300",
    ]


def test_every_work_is_estimated_on_every_cluster() -> None:
    assert table().count("\n") == 1 + len(WORKS) * len(CLUSTERS)
