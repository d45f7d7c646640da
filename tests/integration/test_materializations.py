"""What Dagster shows of a published year: its phases, what it changed, how to read and plot it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
from duckdb_extensions import import_extension
from pydantic import SecretStr

from sparkpar_assets.definitions import defs
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.io_managers.history import Version, published_versions
from sparkpar_assets.io_managers.materialization import of_changes, of_changes_from_published
from sparkpar_assets.io_managers.published import TIME_FORMAT, PublishedDataset
from sparkpar_assets.resources.s3 import s3_client
from sparkpar_assets.rollback import roll_back
from tests.expected import expected_fares, expected_trends
from tests.integration.warm_spark import end_warm_session, run_on_warm_session
from tests.integration.workbench import FARES, Workbench, new_workbench
from tests.unit.readmes import table_after

TRENDS = "fare_trends"
MONEY = pa.decimal128(38, 9)
FIRST_YEAR, LAST_YEAR = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
PHASES = ("waiting", "starting_spark", "reading_and_aggregating", "validating", "publishing")
COLUMNS = ("trips", "total_fare", "avg_fare", "median_fare", "p95_fare", "avg_tip", "avg_distance")
Trip = tuple[int, str]


def trips(*made: Trip) -> pa.Table:
    """Trips from passenger counts and fares; tips and distances follow from the fares."""
    fares = [Decimal(fare) for _, fare in made]
    return pa.table(
        {
            "passenger_count": pa.array([group for group, _ in made], pa.int64()),
            "fare_amount": pa.array(fares, MONEY),
            "tip_amount": pa.array([fare / 4 for fare in fares], MONEY),
            "trip_distance": pa.array([fare / 8 for fare in fares], MONEY),
        }
    )


BEFORE = trips((1, "7"), (1, "9.5"), (1, "11.25"), (2, "5"), (2, "8.5"), (3, "20"), (4, "-1"))
AFTER = trips((1, "7"), (1, "9.5"), (2, "5"), (2, "8.5"), (5, "13"), (5, "14.1"))
"""Of one group a trip is gone, one is the same, one is gone, one is new."""


@dataclass(frozen=True)
class History:
    """What was published one after the other, and the fares that DuckDB finds of 2018.

    Attributes:
        bench: Where.
        before: The fares of 2018 as first published, with 2017 in one run.
        after: Those of the second run.
        run: The first run, which published both years.
    """

    bench: Workbench
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]
    run: dg.ExecuteInProcessResult

    def said(self, asset: str = FARES, year: str | None = "2018", at: int = -1) -> dict[str, Any]:
        """The metadata of one of a year's materializations."""
        found = [r for r in self.bench.materializations(asset) if r.partition_key == year]
        materialization = found[at].asset_materialization
        assert materialization
        return {name: value.value for name, value in materialization.metadata.items()}


@pytest.fixture(scope="module")
def history(embedded_stack: EmbeddedStack) -> Iterator[History]:
    """2017 and 2018 in one run, 2018 again, trends, a rollback, a run that does not replace it."""
    with (
        new_workbench(embedded_stack, "materializations") as bench,
        pytest.MonkeyPatch.context() as patch,
    ):
        bench.configure(SPARK_MASTER_URL="local[1]", SPARK_EVENT_LOG_DIR="")
        for name, value in bench.env.items():
            patch.setenv(name, value)
        # Somebody has put it there by hand, and S3 says when.
        bench.s3.put_object(Bucket=bench.bucket, Key=bench.key(2017), Body=b"no Parquet")
        both = {FIRST_YEAR: "2017", LAST_YEAR: "2018"}
        second = {FIRST_YEAR: "2018", LAST_YEAR: "2018"}
        for year in (2017, 2018):
            bench.load_trips(year, BEFORE)
        file = bench.folder / "trips_2018.parquet"
        before = expected_fares(file)
        runs = [run_on_warm_session(bench, FARES, both), run_on_warm_session(bench, TRENDS)]
        bench.load_trips(2018, AFTER)
        after = expected_fares(file)
        runs += [run_on_warm_session(bench, FARES, second), run_on_warm_session(bench, TRENDS)]
        published = published_versions(dataset(bench), "2018")
        with bench.instance() as instance:
            roll_back(instance, published, published.versions[-1], definition_of(FARES))
        note_newer_source(bench)
        runs.append(run_on_warm_session(bench, FARES, second))
        assert all(run.success for run in runs)
        yield History(bench, before, after, runs[0])
    end_warm_session()


def dataset(bench: Workbench, asset: str = FARES) -> PublishedDataset:
    return PublishedDataset(bench.s3, bench.bucket, bench.root, asset, asset)


def definition_of(asset: str) -> dict[str, Any]:
    return dict(defs.resolve_asset_graph().get(dg.AssetKey(asset)).metadata)


def note_newer_source(bench: Workbench) -> None:
    """Let 2018 be published from a state of its table that is newer than any."""
    key = bench.key(2018)
    noted = bench.s3.head_object(Bucket=bench.bucket, Key=key)["Metadata"]
    bench.s3.copy_object(
        Bucket=bench.bucket,
        Key=key,
        CopySource={"Bucket": bench.bucket, "Key": key},
        Metadata={**noted, "source-version": "9999-01-01T00:00:00.000+00:00 5 rows"},
        MetadataDirective="REPLACE",
    )


def test_the_phases_are_numbers_and_add_up_to_the_time_from_the_runs_creation(
    history: History,
) -> None:
    years = {year: history.said(year=year, at=0) for year in ("2017", "2018")}
    for said in years.values():
        assert all(isinstance(said[f"seconds_{phase}"], float) for phase in PHASES)
        assert all(said[f"seconds_{phase}"] >= 0 for phase in PHASES)
    for phase in PHASES[:3]:  # of the run, not of the year
        assert years["2017"][f"seconds_{phase}"] == years["2018"][f"seconds_{phase}"]

    spent = sum(years["2017"][f"seconds_{phase}"] for phase in PHASES)
    with history.bench.instance() as instance:
        record = instance.get_run_record_by_id(history.run.run_id)
    assert record
    created = record.create_timestamp.timestamp()
    stamp = years["2017"]["version"].partition("-")[0]
    published = datetime.strptime(stamp, TIME_FORMAT).replace(tzinfo=UTC).timestamp()
    logged = history.bench.materializations()[0].timestamp
    assert published - created - 0.1 <= spent <= logged - created + 0.1


def test_the_session_is_of_the_run_that_started_it_alone(history: History) -> None:
    assert history.said(at=0)["seconds_starting_spark"] > 0
    assert history.said(TRENDS, None, at=0)["seconds_starting_spark"] < 0.5


def test_a_first_publication_changes_nothing_and_says_nothing_of_changes(history: History) -> None:
    said = history.said(at=0)
    assert [name for name in said if "change" in name or "compared" in name] == []


def test_a_later_publication_says_what_it_changed_as_duckdb_finds_it(history: History) -> None:
    said = history.said(at=1)
    before, after = by_group(history.before), by_group(history.after)
    assert said["compared_with"] == history.said(at=0)["version"]
    assert said["change_of_trips"] == total(after, "trips") - total(before, "trips")
    assert isinstance(said["change_of_trips"], int)
    fares = total(after, "total_fare") - total(before, "total_fare")
    assert said["change_of_total_fare"] == float(fares)
    means = [after[group]["avg_fare"] - before[group]["avg_fare"] for group in {*before} & {*after}]
    assert said["largest_change_of_avg_fare"] == float(max(means, key=abs))
    assert said["largest_change_of_avg_fare"] < 0

    shown = [record.data for record in said["changes"].records]
    assert [(row["group"], row["column"]) for row in shown] == [
        (str(group), name)
        for group in sorted({*before, *after})
        for name in COLUMNS
        if before.get(group, {}).get(name) != after.get(group, {}).get(name)
    ]
    for row in shown:
        old, new = (side.get(int(row["group"]), {}).get(row["column"]) for side in (before, after))
        assert [decimal(row[side]) for side in ("before", "after")] == [old, new]
        assert decimal(row["change"]) == (None if old is None or new is None else new - old)
    kinds = {row["group"]: row["kind"] for row in shown}
    assert kinds == {"1": "changed", "3": "removed", "5": "added"}
    assert said["groups_changed"] == len(kinds)
    assert "changes_left_out" not in said


def by_group(fares: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {row["passenger_count"]: row for row in fares}


def total(fares: dict[Any, dict[str, Any]], column: str) -> Any:  # noqa: ANN401
    return sum(row[column] for row in fares.values())


def decimal(shown: str) -> Decimal | None:
    return None if shown == "—" else Decimal(shown.replace(",", ""))


def test_the_trends_say_it_as_well(history: History) -> None:
    said = history.said(TRENDS, None)
    before, after = (
        {
            f"{row['year']}, {row['passenger_count']}": row
            for row in expected_trends({2017: history.before, 2018: fares})
        }
        for fares in (history.before, history.after)
    )
    assert said["change_of_trips"] == total(after, "trips") - total(before, "trips")
    assert said["largest_change_of_avg_fare"] == history.said(at=1)["largest_change_of_avg_fare"]
    changed = {group for group in {*before, *after} if before.get(group) != after.get(group)}
    assert {row.data["group"] for row in said["changes"].records} == changed
    assert said["groups_changed"] == len(changed) == 3


def test_a_rollback_says_what_the_first_run_said_and_what_it_changed_back(
    history: History,
) -> None:
    first, second, said = (history.said(at=at) for at in (0, 1, 2))
    assert said["compared_with"] == said["rolled_back_from"] == second["version"]
    for name in ("change_of_trips", "change_of_total_fare", "largest_change_of_avg_fare"):
        assert said[name] == -second[name]
    # A rollback takes no time of Spark's, and reads nothing that costs.
    of_the_run = ("seconds_", "bytes_to_read", "estimate")
    of_the_rows = {name for name in first if not name.startswith(of_the_run)} - {"version"}
    assert {name: said[name] for name in of_the_rows} == {name: first[name] for name in of_the_rows}
    assert [name for name in said if name.startswith(of_the_run)] == []


def test_figures_are_of_one_type_under_each_key_in_all_materializations(history: History) -> None:
    types: dict[str, set[type]] = {}
    for asset in (FARES, TRENDS):
        for record in history.bench.materializations(asset):
            assert record.asset_materialization
            for name, value in record.asset_materialization.metadata.items():
                types.setdefault(name, set()).add(type(value))
    assert {name: found for name, found in types.items() if len(found) > 1} == {}
    plotted = {
        name
        for name, found in types.items()
        if found <= {dg.IntMetadataValue, dg.FloatMetadataValue}
    }
    assert plotted >= {"trips", "rows_read", "excluded_trips", "groups_changed"}


def test_the_line_to_paste_reads_the_object_and_holds_no_key(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = history.bench.settings
    key, secret = settings.aws_access_key_id, settings.aws_secret_access_key
    assert key
    assert secret
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.get_secret_value())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret.get_secret_value())
    connection = duckdb.connect(config={"extension_directory": str(tmp_path)})
    import_extension("httpfs", con=connection)
    connection.load_extension("httpfs")
    for asset, year in ((FARES, "2017"), (TRENDS, None)):
        line = history.said(asset, year)["read_parquet"]
        assert "\n" not in line
        assert key.get_secret_value() not in line
        assert secret.get_secret_value() not in line
        rows = history.bench.published(year, asset).to_pylist()
        of_the_path = {"year": int(year)} if year else {}
        assert connection.execute(line).to_arrow_table().to_pylist() == [
            row | of_the_path for row in rows
        ]


def test_an_object_that_is_not_comparable_is_replaced_and_the_reason_said(
    history: History,
) -> None:
    said = history.said(year="2017")
    assert said["not_compared"] == "The version published before is not a Parquet file."
    assert history.bench.published(2017).to_pylist() == history.before


def test_an_object_that_s3_does_not_let_one_read_is_not_compared(history: History) -> None:
    settings = history.bench.settings.model_copy(update={"aws_secret_access_key": SecretStr("no")})
    refused = PublishedDataset(
        s3_client(settings), history.bench.bucket, history.bench.root, FARES, FARES
    )
    said = of_changes_from_published(refused, "2018", history.bench.published(2018), {})
    assert said == {
        "not_compared": "S3 answered SignatureDoesNotMatch for the version published before."
    }


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_the_readmes_name_every_key_and_no_other(history: History, readme: str) -> None:
    documented = [row[0] for row in table_after("metadata", readme)]
    groups = [pa.table({"zone": range(100), "trips": [trips] * 100}) for trips in (1, 2)]
    many = Version("before", {}, groups[0], is_current=True)
    keys = set(of_changes(many, groups[1], {"group_by": ["zone"]}))
    for asset in (FARES, TRENDS):
        for record in history.bench.materializations(asset):
            assert record.asset_materialization
            keys |= set(record.asset_materialization.metadata)
    keys = {name.partition("_of_")[0] + "_of_…" if "change_of_" in name else name for name in keys}
    assert sorted(documented) == sorted(keys)
