"""What a materialization says of changes, of objects that cannot be compared, and of reading."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from sparkpar_assets.io_managers.history import Version
from sparkpar_assets.io_managers.materialization import (
    COMPARED_ROWS,
    SHOWN_CHANGES,
    of_changes,
    read_parquet,
)
from sparkpar_assets.io_managers.published import PublishedDataset
from sparkpar_assets.resources.s3 import s3_client
from sparkpar_assets.settings import load_settings

DEFINITION = {"group_by": ["zone"], "totals": ["trips"]}
"""Of an analysis that says no more than how it groups its rows and what can be summed."""


def rows_of(trips_of_zones: Mapping[int, int], mean: str = "1") -> pa.Table:
    groups = len(trips_of_zones)
    return pa.table(
        {
            "zone": pa.array(list(trips_of_zones), pa.int64()),
            "trips": pa.array(list(trips_of_zones.values()), pa.int64()),
            "mean": pa.array([Decimal(mean)] * groups, pa.decimal128(38, 9)),
            "name": pa.array(["somewhere"] * groups),
        }
    )


def changes(before: pa.Table | None, after: pa.Table, **declared: Any) -> dict[str, Any]:  # noqa: ANN401
    version = Version("the version before", {}, before, is_current=True)
    return of_changes(version, after, DEFINITION | declared)


def cells(said: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    names = ("group", "column", "before", "after", "change", "kind")
    return [tuple(record.data[name] for name in names) for record in said["changes"].records]


NEW = rows_of({1: 10, 2: 20})
INCOMPARABLE: Sequence[tuple[pa.Table | None, str]] = (
    (None, "The version published before is not a Parquet file."),
    (NEW.drop(["zone"]), "A version has no column zone, by which the asset groups its rows. "),
    (
        NEW.set_column(0, "zone", pa.array(["1", "2"])),
        "The versions have zone, by which the asset groups its rows, in other types. ",
    ),
    (
        NEW.set_column(0, "zone", pa.array([1, 1], pa.int64())),
        "A version has several rows with the same zone. ",
    ),
    (NEW.append_column("trips", NEW["trips"]), "The version published before is not comparable: "),
    (rows_of(dict.fromkeys(range(COMPARED_ROWS + 1), 1)), "More than 20,000 rows are compared by "),
)


@pytest.mark.parametrize(("before", "beginning"), INCOMPARABLE)
def test_what_cannot_be_compared_is_said_in_words(before: pa.Table | None, beginning: str) -> None:
    said = changes(before, NEW)
    assert said.pop("compared_with") == "the version before"
    assert list(said) == ["not_compared"]
    assert said["not_compared"].startswith(beginning)


def test_columns_of_other_types_are_left_out_and_the_others_compared() -> None:
    before = NEW.set_column(2, "mean", pa.array([1.5, 2.5]))
    said = changes(before.set_column(1, "trips", pa.array([10, 19], pa.int64())), NEW)
    assert cells(said) == [("2", "trips", "19", "20", "+1", "changed")]
    assert (said["change_of_trips"], said["groups_changed"]) == (1, 1)
    assert "largest_change_of_mean" not in said


def test_of_many_changes_those_of_declared_columns_come_first_and_then_the_largest() -> None:
    before = rows_of(dict.fromkeys(range(100), 100))
    after = rows_of({zone: 100 + zone for zone in range(100)}, mean="9")
    said = changes(before, after, compared=[])
    shown = [(group, column) for group, column, *_ in cells(said)]
    assert shown == [(str(zone), "trips") for zone in range(100 - SHOWN_CHANGES, 100)]
    assert said["changes_left_out"].startswith("159 ")
    assert "largest_change_of_mean" not in said


def test_without_declared_columns_the_largest_change_of_every_number_is_said() -> None:
    said = changes(NEW, rows_of({1: 10, 2: 20}, mean="0.5"))
    assert [change for *_, change, _ in cells(said)] == ["-0.50", "-0.50"]
    del said["changes"]
    assert said == {
        "compared_with": "the version before",
        "change_of_trips": 0,
        "largest_change_of_mean": -0.5,
        "groups_changed": 2,
    }


def test_without_declared_groups_the_totals_alone_are_compared() -> None:
    said = of_changes(
        Version("before", {}, rows_of({1: 3}), is_current=True), NEW, {"totals": ["trips"]}
    )
    assert said == {"compared_with": "before", "change_of_trips": 27}


def test_a_total_that_is_no_number_is_not_plotted() -> None:
    infinite = NEW.set_column(1, "trips", pa.array([float("inf"), 1.0]))
    assert "change_of_trips" not in changes(infinite, infinite)


@pytest.mark.parametrize(
    ("variables", "query"),
    [
        ({"AWS_DEFAULT_REGION": "eu-west-1"}, "?s3_region=eu-west-1"),
        (
            {"AWS_DEFAULT_REGION": "auto", "AWS_ENDPOINT_URL_S3": "https://s3.example:9000"},
            "?s3_endpoint=s3.example:9000&s3_url_style=path&s3_region=auto",
        ),
        (
            {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000"},
            "?s3_endpoint=127.0.0.1:9000&s3_url_style=path&s3_use_ssl=false&s3_region=us-east-1",
        ),
    ],
)
def test_the_line_to_paste_names_what_duckdb_would_not_find_and_no_key(
    variables: dict[str, str], query: str
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIAHUSH", "AWS_SECRET_ACCESS_KEY": "hush"}
    dataset = PublishedDataset(
        s3_client(load_settings(keys | variables)), "bucket", "root/", "asset", "it's"
    )
    assert read_parquet(dataset, "2018") == (
        f"FROM read_parquet('s3://bucket/root/it''s/year=2018/data.parquet{query}');"
    )
