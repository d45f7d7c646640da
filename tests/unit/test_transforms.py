"""The transforms against DuckDB and Python's Decimal, to the last digit."""

import itertools
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.transforms.decimals import (
    SMALL,
    exact_difference_sql,
    exact_quotient,
    numeric_of_units,
    small_units,
    sum_of_small_units,
)
from sparkpar_assets.transforms.fares import (
    audit_fares,
    count_by_fare,
    fares_by_passenger_count,
)
from sparkpar_assets.transforms.trends import fare_trends
from tests.expected import expected_exclusions, expected_fares, expected_trends, half_up

SAMPLE_YEARS = (2017, 2018, 2019, 2021)
TRIP_SCHEMA = (
    "year int, passenger_count bigint, fare_amount decimal(38,9), tip_amount decimal(38,9), "
    "trip_distance decimal(38,9)"
)
LARGEST = Decimal("9" * 29 + "." + "9" * 9)
"""The largest NUMERIC."""


def sample(year: int) -> Path:
    return PROJECT_ROOT / "sample_data" / f"tlc_yellow_trips_{year}.parquet"


def sample_trips(spark: SparkSession, years: Iterable[int]) -> DataFrame:
    frames = [
        spark.read.parquet(str(sample(year))).withColumn("year", F.lit(year)) for year in years
    ]
    whole = frames[0]
    for frame in frames[1:]:
        whole = whole.unionByName(frame)
    return whole


def made_trips(spark: SparkSession, rows: Sequence[tuple[Any, ...]]) -> DataFrame:
    return spark.createDataFrame([(2018, *row) for row in rows], TRIP_SCHEMA)


def as_dicts(frame: DataFrame, *order: str) -> list[dict[str, Any]]:
    return [row.asDict() for row in frame.orderBy(*order).collect()]


def money(*amounts: str) -> list[tuple[int, Decimal, None, None]]:
    return [(1, Decimal(amount), None, None) for amount in amounts]


def test_fares_of_all_sample_years_at_once_equal_those_of_duckdb(spark: SparkSession) -> None:
    counts = count_by_fare(sample_trips(spark, SAMPLE_YEARS))
    found = as_dicts(fares_by_passenger_count(counts), "year", "passenger_count")
    assert found == [
        {"year": year, **row} for year in SAMPLE_YEARS for row in expected_fares(sample(year))
    ]


def test_what_each_rule_leaves_out_is_counted_by_year(spark: SparkSession) -> None:
    audit = audit_fares(count_by_fare(sample_trips(spark, SAMPLE_YEARS)))
    for year in SAMPLE_YEARS:
        excluded = audit.where(f"year = {year} AND excluded_by IS NOT NULL").collect()
        assert {row["excluded_by"]: row["trips"] for row in excluded} == expected_exclusions(
            sample(year)
        )


def test_result_types_are_the_declared_ones(spark: SparkSession) -> None:
    fares = fares_by_passenger_count(count_by_fare(sample_trips(spark, [2017])))
    types = dict(fares.dtypes)
    assert [types.pop(name) for name in ("year", "passenger_count", "trips")] == [
        "int",
        "bigint",
        "bigint",
    ]
    assert types == dict.fromkeys(
        ("total_fare", "avg_fare", "median_fare", "p95_fare", "avg_tip", "avg_distance"),
        "decimal(38,9)",
    )
    trends = dict(fare_trends(fares).dtypes)
    assert trends["share_of_trips"] == trends["change_in_avg_fare"] == "decimal(38,9)"


def test_a_passenger_count_of_0_is_a_group_of_its_own(spark: SparkSession) -> None:
    trips = made_trips(spark, [(0, Decimal(5), None, None), (None, Decimal(5), None, None)])
    found = fares_by_passenger_count(count_by_fare(trips)).collect()
    assert [(row["passenger_count"], row["trips"]) for row in found] == [(0, 1)]


def test_the_first_rule_that_applies_counts_an_excluded_trip(spark: SparkSession) -> None:
    trips = made_trips(
        spark,
        [
            (None, None, None, None),
            (None, Decimal(-1), None, None),
            (1, None, None, None),
            (1, Decimal(0), None, None),
            (1, Decimal("-2.5"), None, None),
        ],
    )
    audit = audit_fares(count_by_fare(trips)).collect()
    assert {row["excluded_by"]: row["trips"] for row in audit} == {
        "no passenger count": 2,
        "no fare": 1,
        "fare not above 0": 2,
    }


@pytest.mark.parametrize(
    ("fares", "median", "p95"),
    [
        (["7"], "7", "7"),
        (["1", "2"], "1", "2"),
        (["1", "2", "3"], "2", "3"),
        ([str(n) for n in range(1, 21)], "10", "19"),
        ([str(n) for n in range(1, 22)], "11", "20"),
        (["1"] * 19 + ["100"], "1", "1"),
        (["1"] * 18 + ["100"], "1", "100"),
    ],
)
def test_percentiles_are_the_smallest_fare_whose_share_reaches_them(
    spark: SparkSession, fares: list[str], median: str, p95: str
) -> None:
    found = fares_by_passenger_count(count_by_fare(made_trips(spark, money(*fares)))).first()
    assert found is not None
    assert (found["median_fare"], found["p95_fare"]) == (Decimal(median), Decimal(p95))


@pytest.mark.parametrize(
    ("fares", "mean"),
    [
        (["0.000000001", "0.000000002"], "0.000000002"),  # …1.5 is half: away from zero
        (["0.000000001", "0.000000001", "0.000000002"], "0.000000001"),
        (["1", "1", "2"], "1.333333333"),
        (["1", "2", "2"], "1.666666667"),
        (
            ["99999999999999999999999999.999999999", "0.000000002"],
            "50000000000000000000000000.000000001",
        ),
    ],
)
def test_means_are_rounded_half_up_at_the_9th_digit(
    spark: SparkSession, fares: list[str], mean: str
) -> None:
    found = fares_by_passenger_count(count_by_fare(made_trips(spark, money(*fares)))).first()
    assert found is not None
    assert found["avg_fare"] == Decimal(mean)


def test_units_of_small_amounts_are_exact_and_others_have_none(spark: SparkSession) -> None:
    chance = Random(26)  # noqa: S311
    limit = SMALL * 10**9
    units = [
        *(sign * (limit + near) for sign in (1, -1) for near in (-2, -1, 0, 1, 2)),
        *(chance.randrange(-limit, limit) for _ in range(20_000)),
        *(chance.randrange(-(10**size), 10**size) for size in range(1, 38) for _ in range(20)),
    ]
    values = [(Decimal(one).scaleb(-9, Context(prec=38)),) for one in units]
    frame = spark.createDataFrame(values, "x decimal(38,9)").selectExpr(
        f"{small_units('x')} AS units", f"{numeric_of_units(small_units('x'))} AS back"
    )
    expected = [one if abs(one) < limit else None for one in units]
    assert dict(frame.dtypes) == {"units": "bigint", "back": "decimal(38,9)"}
    rows = frame.collect()
    assert [row["units"] for row in rows] == expected
    assert [row["back"] for row in rows] == [
        None if one is None else value for one, (value,) in zip(expected, values, strict=True)
    ]


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_of_small_amounts_are_exact_where_whole_numbers_would_overflow(
    spark: SparkSession, sign: int
) -> None:
    largest = SMALL - Decimal("0.000000001")
    amounts = [sign * (largest - n % 3) for n in range(20_000)]
    total = sum(amounts, Decimal(0))
    assert abs(total.scaleb(9)) > 2**63
    frame = spark.createDataFrame([(amount,) for amount in amounts], "x decimal(38,9)")
    units = frame.selectExpr(f"{small_units('x')} AS units")
    found = units.selectExpr(f"{sum_of_small_units('units')} AS total")
    assert found.dtypes == [("total", "decimal(38,9)")]
    assert found.collect() == [Row(total=total)]


def test_amounts_below_and_above_the_limit_of_small_ones_make_one_group(
    spark: SparkSession,
) -> None:
    limit, least = Decimal(SMALL), Decimal("0.000000001")
    amounts = [limit - least, limit, limit + least, Decimal("7.5")]
    trips = list(itertools.product([1], amounts, amounts, [-one for one in amounts]))
    (found,) = fares_by_passenger_count(count_by_fare(made_trips(spark, trips))).collect()
    total = sum(amounts, Decimal(0)) * len(amounts) ** 2
    mean = half_up(total, len(trips))
    assert mean is not None
    assert found.asDict() == {
        "year": 2018,
        "passenger_count": 1,
        "trips": len(trips),
        "total_fare": total,
        "avg_fare": mean,
        "median_fare": limit - least,
        "p95_fare": limit + least,
        "avg_tip": mean,
        "avg_distance": -mean,
    }


def test_quotients_are_rounded_once_also_next_to_a_half(spark: SparkSession) -> None:
    cases = [
        (Decimal(total), count)
        for count in (3, 7, 999, 36_000_000, 36_000_001)
        for total in (
            "0.000000001",
            f"{10**17}.499999999",
            f"{10**26 - 1}.{'9' * 9}",
            f"{count // 2}.000000001",
        )
    ]
    frame = spark.createDataFrame(cases, "total decimal(38,9), n bigint")
    found = frame.select(exact_quotient(F.col("total"), F.col("n")).alias("q")).collect()
    assert [row["q"] for row in found] == [half_up(total, count) for total, count in cases]


def test_differences_keep_the_9th_digit(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [(Decimal("1.000000002"), Decimal("0.000000001"))], "a decimal(38,9), b decimal(38,9)"
    )
    difference = frame.selectExpr(f"{exact_difference_sql('a', 'b')} AS d")
    assert difference.dtypes == [("d", "decimal(38,9)")]
    assert difference.collect() == [Row(d=Decimal("1.000000001"))]


@pytest.mark.parametrize(
    "fares",
    [[LARGEST, LARGEST], [LARGEST, Decimal("0.000000001")]],
    ids=["within one fare", "across fares"],
)
def test_a_sum_of_more_than_38_digits_is_named_and_never_a_number(
    spark: SparkSession, fares: list[Decimal]
) -> None:
    trips = made_trips(
        spark, [(1, fare, fare, None) for fare in fares] + [(2, Decimal(3), None, None)]
    )
    counts = count_by_fare(trips)
    audit = audit_fares(counts).orderBy("passenger_count").collect()
    assert [row["overflowed"] for row in audit] == [["fare_amount", "tip_amount"], []]
    groups = fares_by_passenger_count(counts).orderBy("passenger_count").collect()
    assert [row["total_fare"] for row in groups] == [None, Decimal(3)]


def test_a_sum_that_just_fits_is_exact(spark: SparkSession) -> None:
    half = Decimal("49999999999999999999999999999.999999999")
    counts = count_by_fare(made_trips(spark, [(1, half, None, None)] * 2))
    audit = audit_fares(counts).first()
    assert audit is not None
    assert audit["overflowed"] == []
    assert audit["total_fare"] == Decimal("99999999999999999999999999999.999999998")


def test_trips_without_tip_or_distance_do_not_count_in_their_means(spark: SparkSession) -> None:
    trips = made_trips(
        spark,
        [
            (1, Decimal(5), Decimal(1), None),
            (1, Decimal(5), None, Decimal(3)),
            (2, Decimal(5), None, None),
        ],
    )
    found = as_dicts(fares_by_passenger_count(count_by_fare(trips)), "passenger_count")
    assert [(row["avg_tip"], row["avg_distance"]) for row in found] == [
        (Decimal(1), Decimal(3)),
        (None, None),
    ]


def test_trends_equal_those_computed_from_duckdbs_fares(spark: SparkSession) -> None:
    fares = fares_by_passenger_count(count_by_fare(sample_trips(spark, SAMPLE_YEARS)))
    found = as_dicts(fare_trends(fares), "year", "passenger_count")
    assert found == expected_trends({year: expected_fares(sample(year)) for year in SAMPLE_YEARS})
    changes = {
        row["year"]: row["change_in_avg_fare"] for row in found if row["passenger_count"] == 1
    }
    assert [year for year, change in changes.items() if change is None] == [2017, 2021]
