"""The way back: what was published is listed, compared and put back, on real S3 and Dagster."""

import io
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkpar_assets import versions
from sparkpar_assets.io_managers.history import published_versions, put_back
from sparkpar_assets.io_managers.published import HISTORY, PublishedDataset, publication_time
from sparkpar_assets.settings import ENV_FILE_VARIABLE
from tests.integration.versions import fares, trips_table
from tests.integration.workbench import COMMAND_SECONDS, FARES, Workbench

TRENDS = "fare_trends"
MONEY = pa.decimal128(38, 9)
SCHEMA = pa.schema(
    [
        ("passenger_count", pa.int64()),
        ("trips", pa.int64()),
        *((name, MONEY) for name in ("total_fare", "avg_fare", "median_fare", "p95_fare")),
        *((name, MONEY) for name in ("avg_tip", "avg_distance")),
    ]
)
HUGE = Decimal("12345678901234567890123456789.123456789")
"""38 digits: more than a float or Python's default context holds."""

Said = tuple[int, str, str]
InProcess = Callable[..., Said]


@dataclass(frozen=True)
class Published:
    """A version as a test has published it."""

    name: str
    rows: pa.Table
    content: bytes
    noted: dict[str, str]

    @property
    def run_id(self) -> str:
        """The run that is noted with it."""
        return self.noted["run-id"]


def dataset(bench: Workbench, asset: str = FARES) -> PublishedDataset:
    return PublishedDataset(bench.s3, bench.bucket, bench.root, asset, asset)


def rows_of(version: int, **changed: Any) -> pa.Table:  # noqa: ANN401
    """The fares of a version, its first group's values replaced by some."""
    rows = fares(version)
    rows[0] |= changed
    return pa.Table.from_pylist(rows, SCHEMA)


def publish(bench: Workbench, rows: pa.Table | bytes, number: int, keep: int = 5) -> Published:
    """Publish rows for 2018 as the end of a run does, without the run."""
    content = rows
    if isinstance(rows, pa.Table):
        file = io.BytesIO()
        pq.write_table(rows, file)
        content = file.getvalue()
    noted = {
        "published-at": publication_time(),
        "run-id": f"{number:08d}-aaaa-bbbb-cccc-dddddddddddd",
        "code-version": "1",
        "source-version": f"2026-01-{number:02}T00:00:00.000+00:00 3 rows",
    }
    staged = f"{bench.root}_staging/run/0-{number}/rows/year=2018/part.parquet"
    bench.s3.put_object(Bucket=bench.bucket, Key=staged, Body=content)
    dataset(bench).publish("2018", staged, noted, keep)
    dataset(bench).update_history("2018", staged, noted, keep)
    bench.s3.delete_object(Bucket=bench.bucket, Key=staged)
    name = f"{noted['published-at']}-{noted['run-id']}"
    return Published(name, rows, content, noted)


def command(bench: Workbench, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it."""
    return bench.run(sys.executable, "-m", "sparkpar_assets.versions", *words)


@pytest.fixture
def in_process(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> InProcess:
    """The command in this process, which has loaded the definitions already."""

    def run(*words: str, **variables: str) -> Said:
        workbench.configure(**variables)
        for name, value in workbench.env.items():
            monkeypatch.setenv(name, value)
        for name, value in variables.items():
            if not value:
                monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(workbench.folder)  # where there is no .env
        monkeypatch.setattr(sys, "argv", ["run.sh", *words])
        capsys.readouterr()
        code = 0
        try:
            versions.main()
        except SystemExit as end:
            said = end.code
            code = said if isinstance(said, int) else 1
            sys.stderr.write("" if isinstance(said, int) else str(said))
        return code, *capsys.readouterr()

    return run


def cells(output: str) -> list[list[str]]:
    """The cells of the table in an output, without its heading."""
    lines = output.splitlines()
    ruler = next(i for i, line in enumerate(lines) if line.startswith("---"))
    ends = [(m.start(), m.end()) for m in re.finditer("-+", lines[ruler])]
    table = []
    for line in lines[ruler + 1 :]:
        if not line:
            break
        # The last column's ruler is shorter than nothing where it has no title and no cell.
        table.append([line[start:end].strip() for start, end in ends])
    return table


def total(rows: pa.Table, column: str) -> Any:  # noqa: ANN401
    """The sum that DuckDB computes: exact, of integers and of decimals."""
    (found,) = duckdb.connect().execute(f"SELECT sum({column}) FROM rows").fetchall()[0]
    return int(found) if rows.schema.field(column).type == pa.int64() else found


def latest(bench: Workbench, asset: str = FARES) -> dg.AssetMaterialization:
    event = bench.materializations(asset)[-1].asset_materialization
    assert event is not None
    return event


def names_in_history(bench: Workbench, asset: str = FARES) -> set[str]:
    keys = bench.keys(f"{HISTORY}{asset}/")
    return {key.rpartition("/")[2].removesuffix(".parquet") for key in keys}


def test_versions_are_listed_newest_first_with_exact_totals_and_their_changes(
    workbench: Workbench,
) -> None:
    made = [
        publish(workbench, rows_of(3), 1),
        publish(workbench, rows_of(4, total_fare=HUGE, trips=2**62), 2),
        publish(workbench, rows_of(2, total_fare=-HUGE), 3),
    ]
    # A run that was killed between its two copies: the published version is not in the history.
    workbench.s3.delete_object(
        Bucket=workbench.bucket, Key=dataset(workbench).history_key("2018", made[-1].name)
    )
    done = command(workbench, "list", FARES, "2018")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""

    expected: list[tuple[Published, list[Any], list[Any]]] = []
    for version, before in zip(made, [None, *made], strict=False):
        sums = {name: total(version.rows, name) for name in ("trips", "total_fare")}
        shown = [version.rows.num_rows, sums["trips"], sums["total_fare"]]
        with localcontext(prec=200):
            changes = [sums[n] - total(before.rows, n) if before else None for n in sums]
        expected.append((version, shown, changes))
    found = cells(done.stdout)
    assert len(found) == 3
    for line, (version, (rows, trips, fare), (more_trips, more_fare)) in zip(
        found, reversed(expected), strict=True
    ):
        short, when, run, source, code, *numbers = line[:10]
        assert version.name.startswith(short)
        time = version.noted["published-at"]
        assert re.sub(r"\D", "", when) == re.sub(r"\D", "", time.partition(".")[0])
        assert (run, code) == (version.run_id[:8], "1")
        assert source == version.noted["source-version"]
        assert [number.replace(",", "") for number in numbers] == [
            str(rows),
            str(trips),
            "—" if more_trips is None else f"{more_trips:+}",
            plain(fare),
            "—" if more_fare is None else plain(more_fare, "+"),
        ]
    lines = [line for line in done.stdout.splitlines() if line.startswith("20")]
    assert [line.endswith("  current") for line in lines] == [True, False, False]
    shorts = [line[0] for line in found]
    assert len(set(shorts)) == 3, "each is called by a name of its own"


def plain(amount: Decimal, sign: str = "") -> str:
    """All digits of an amount, two after the point at least: by Python's text of it alone."""
    whole, _, fraction = f"{amount:f}".partition(".")
    sign = sign if amount >= 0 else ""
    return f"{sign}{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def test_a_rollback_puts_back_the_very_bytes_is_told_to_dagster_and_can_itself_be_undone(
    workbench: Workbench, in_process: InProcess
) -> None:
    first, second, third = (publish(workbench, rows_of(number), number) for number in (1, 2, 3))
    done = command(workbench, "rollback", FARES, "2018", first.name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{FARES} 2018 is rolled back to ")
    assert workbench.content(workbench.key(2018)) == first.content
    assert workbench.published(2018).to_pylist() == fares(1)

    head = workbench.s3.head_object(Bucket=workbench.bucket, Key=workbench.key(2018))
    noted = head["Metadata"]
    assert noted["published-at"] > third.noted["published-at"]
    assert noted["restored-from"] == first.noted["published-at"]
    same = ("run-id", "code-version", "source-version")
    assert {name: noted[name] for name in same} == {name: first.noted[name] for name in same}
    rollback = f"{noted['published-at']}-{first.run_id}"
    assert names_in_history(workbench) == {first.name, second.name, third.name, rollback}

    event = latest(workbench)
    said: dict[str, Any] = {name: value.value for name, value in event.metadata.items()}
    assert event.partition == "2018"
    assert said["rolled_back_from"] == third.name
    assert said["rolled_back_to"] == first.name
    assert said["version"] == rollback
    assert said["original_run_id"] == first.run_id
    assert said["source_version"] == first.noted["source-version"]
    assert said["dagster/partition_row_count"] == len(fares(1))
    assert said["dagster/uri"] == f"s3://{workbench.bucket}/{workbench.key(2018)}"
    assert [column.name for column in said["dagster/column_schema"].columns] == SCHEMA.names
    assert workbench.materialized_years() == ["2018"]

    _, output, _ = in_process("list", FARES, "2018")
    newest = output.splitlines()[4]
    assert rollback.startswith(newest.split()[0])
    assert newest.split("  ")[-1].startswith("current, rollback to ")
    assert first.name.startswith(newest.rpartition(" ")[2])

    for asked in (rollback, first.name):  # two names of the same bytes
        code, output, _ = in_process("rollback", FARES, "2018", asked)
        assert code == 0
        assert output.endswith(" already: nothing to do.\n")
    assert len(names_in_history(workbench)) == 4
    assert len(workbench.materializations()) == 1

    code, output, _ = in_process("rollback", FARES, "2018", third.name)
    assert code == 0, output
    assert workbench.content(workbench.key(2018)) == third.content
    assert len(names_in_history(workbench)) == 5
    assert latest(workbench).metadata["rolled_back_from"].value == rollback
    # To the rollback: what is put back is what that had put back.
    code, output, _ = in_process("rollback", FARES, "2018", rollback)
    assert code == 0, output
    assert workbench.content(workbench.key(2018)) == first.content
    assert latest(workbench).metadata["rolled_back_to"].value == first.name

    fourth = publish(workbench, rows_of(4), 4, keep=2)
    assert workbench.content(workbench.key(2018)) == fourth.content
    assert fourth.name in names_in_history(workbench)
    assert len(names_in_history(workbench)) == 2, "a rollback is a version as others are"


def test_real_runs_are_rolled_back_and_later_runs_publish_over_that(
    workbench: Workbench, in_process: InProcess
) -> None:
    workbench.share_driver()
    both = ("--select", f"{FARES},{TRENDS}", "--partition", "2018")
    for version in (1, 2):
        workbench.load_trips(2018, trips_table(version))
        done = workbench.materialize(*both)
        assert done.returncode == 0, done.stderr
    first, second = workbench.materializations()
    newest, oldest = published_versions(dataset(workbench), "2018").versions
    assert [oldest.run_id, newest.run_id] == [first.run_id, second.run_id]

    code, _, errors = in_process("rollback", FARES, "2018", oldest.name)
    assert code == 0, errors
    assert workbench.published(2018).to_pylist() == fares(1)
    assert first.asset_materialization is not None
    assert latest(workbench).tags == first.asset_materialization.tags
    assert latest(workbench).tags["dagster/code_version"] == "1"  # type: ignore[index]

    trends = published_versions(dataset(workbench, TRENDS), None).versions
    code, output, _ = in_process("diff", TRENDS, trends[1].name, trends[0].name)
    assert code == 0
    trips = [line for line in cells(output) if line[:4] == ["changed", "2018", "1", "trips"]]
    assert trips == [["changed", "2018", "1", "trips", "1", "2", "+1"]]
    code, output, errors = in_process("rollback", TRENDS, trends[1].name)
    assert code == 0, errors
    assert workbench.published(None, TRENDS)["trips"].to_pylist() == [1] * len(fares(1))
    assert latest(workbench, TRENDS).partition is None
    assert latest(workbench, TRENDS).metadata["dagster/row_count"].value == len(fares(1))

    # The table has not changed since the second run: its state is newer than the rollback's.
    workbench.materialize_years(2018)
    assert workbench.published(2018).to_pylist() == fares(2)


def test_what_changed_between_two_versions_is_what_duckdb_finds(
    workbench: Workbench, in_process: InProcess
) -> None:
    # Version 6 has the groups 1 to 4, version 3 those of 1 to 6, of which the second is the same.
    before = pa.Table.from_pylist(
        [*fares(6)[:1], *fares(3)[1:2], *fares(6)[2:], fares(6)[0] | {"passenger_count": 9}], SCHEMA
    )
    after = rows_of(3, total_fare=HUGE, avg_fare=None)
    first, second = publish(workbench, before, 1), publish(workbench, after, 2)
    code, output, errors = in_process("diff", FARES, "2018", first.name, second.name)
    assert code == 0, errors

    columns = SCHEMA.names[1:]
    query = " UNION ALL ".join(
        f"""SELECT CASE WHEN b.passenger_count IS NULL THEN 'added'
                WHEN a.passenger_count IS NULL THEN 'removed' ELSE 'changed' END,
            coalesce(a.passenger_count, b.passenger_count), '{name}', {number},
            b.{name}::VARCHAR, a.{name}::VARCHAR, (a.{name} - b.{name})::VARCHAR
        FROM before b FULL JOIN after a USING (passenger_count)
        WHERE b.{name} IS DISTINCT FROM a.{name}"""
        for number, name in enumerate(columns)
    )
    expected = sorted(duckdb.connect().execute(query).fetchall(), key=lambda row: (row[1], row[3]))
    assert {row[0] for row in expected} == {"added", "changed", "removed"}
    # An added group's NULL is shown as well, though nothing differs from nothing.
    found = [line for line in cells(output) if line[3:5] != ["—", "—"]]
    assert [line[:3] for line in found] == [
        [kind, str(group), name] for kind, group, name, *_ in expected
    ]
    for line, row in zip(found, expected, strict=True):
        for shown, text in zip(line[3:], row[4:], strict=True):
            assert_same_number(shown, text)
    assert "Groups: 3 changed, 2 added, 1 removed, 1 same." in output

    code, output, _ = in_process("diff", FARES, "2018", second.name, second.name)
    assert code == 0
    assert f"Nothing changed: all {after.num_rows} groups are the same in both." in output


def assert_same_number(shown: str, text: str | None) -> None:
    if text is None:
        assert shown == "—"
    else:
        assert Decimal(shown.replace(",", "")) == Decimal(text)


def test_rollbacks_and_runs_that_publish_at_once_lose_no_version(workbench: Workbench) -> None:
    made = [publish(workbench, rows_of(number), number, keep=1000) for number in (1, 2)]
    failures: list[BaseException] = []

    def publish_many() -> None:
        try:
            made.extend(
                publish(workbench, rows_of(number), number, keep=1000) for number in range(3, 23)
            )
        except BaseException as error:  # noqa: BLE001 — raised again below
            failures.append(error)

    publisher = threading.Thread(target=publish_many)
    publisher.start()
    put: list[tuple[str, str]] = []
    while publisher.is_alive():
        published = published_versions(dataset(workbench), "2018")
        chosen = published.find(made[len(put) % 2].name)
        put.append((put_back(published, chosen), chosen.name))
    publisher.join()
    assert not failures
    assert len(put) > 3
    contents = {version.name: version.content for version in made}
    expected = contents | {name: contents[chosen] for name, chosen in put}
    assert names_in_history(workbench) == set(expected)
    for name, content in expected.items():
        assert workbench.content(dataset(workbench).history_key("2018", name)) == content
    current = published_versions(dataset(workbench), "2018").current
    assert current is not None
    assert workbench.content(workbench.key(2018)) == expected[current.name]


def test_what_a_run_publishes_in_the_midst_of_a_rollback_is_kept_and_said(
    workbench: Workbench, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (publish(workbench, rows_of(number), number) for number in (1, 2))
    copy, replaced_by = PublishedDataset._copy, []

    def copy_in_the_midst(self: PublishedDataset, *args: Any, **more: Any) -> None:  # noqa: ANN401
        monkeypatch.setattr(PublishedDataset, "_copy", copy)
        replaced_by.append(publish(workbench, rows_of(3), 3))  # before the rollback's copy
        copy(self, *args, **more)
        replaced_by.append(publish(workbench, rows_of(4), 4))  # and after it

    monkeypatch.setattr(PublishedDataset, "_copy", copy_in_the_midst)
    code, output, _ = in_process("rollback", FARES, "2018", first.name)
    assert code == 0
    assert f"Meanwhile {replaced_by[1].name} was published" in output
    assert workbench.content(workbench.key(2018)) == replaced_by[1].content
    known = {version.name for version in (first, second, *replaced_by)}
    assert known < names_in_history(workbench)
    assert len(names_in_history(workbench)) == 5


def test_an_object_that_is_no_parquet_file_is_listed_replaced_and_kept(
    workbench: Workbench, in_process: InProcess
) -> None:
    first = publish(workbench, rows_of(1), 1)
    garbage = [b"somebody's mistake", b"and another"]
    for content in garbage:
        workbench.s3.put_object(Bucket=workbench.bucket, Key=workbench.key(2018), Body=content)
        code, output, _ = in_process("list", FARES, "2018")
        assert code == 0
        assert "current, not a Parquet file" in output
        wrong = published_versions(dataset(workbench), "2018").current
        assert wrong is not None
        code, _, said = in_process("diff", FARES, "2018", wrong.name, first.name)
        assert code == 1
        assert " is not a Parquet file. Compare others." in said
        code, _, _ = in_process("rollback", FARES, "2018", first.name)
        assert code == 0
        assert workbench.content(workbench.key(2018)) == first.content
        kept = dataset(workbench).history_key("2018", wrong.name)
        assert workbench.content(kept) == content


def test_a_version_that_a_run_has_removed_meanwhile_is_said_to_be_gone(
    workbench: Workbench, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (publish(workbench, rows_of(number), number) for number in (1, 2))
    put = PublishedDataset.put_back

    def removed_meanwhile(self: PublishedDataset, year: str, *more: Any) -> None:  # noqa: ANN401
        publish(workbench, rows_of(3), 3, keep=1)
        put(self, year, *more)

    monkeypatch.setattr(PublishedDataset, "put_back", removed_meanwhile)
    code, _, said = in_process("rollback", FARES, "2018", first.name)
    assert code == 1
    assert said == (
        f"Error: The version {first.name} is gone: a run has just published, and the oldest went. "
        "List the versions again."
    )
    assert workbench.published(2018).to_pylist() == fares(3)
    assert not workbench.materializations()
    assert second.name not in names_in_history(workbench)


def test_settings_come_from_env_as_for_dagsters_commands_and_the_instance_does_not(
    workbench: Workbench, tmp_path: Path
) -> None:
    first, second = (publish(workbench, rows_of(number), number) for number in (1, 2))
    (tmp_path / ".env").write_text(
        workbench.env_file.read_text() + f"DAGSTER_HOME={tmp_path / 'of_env'}\n"
    )
    wrong = {"S3_BUCKET": "exported", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-m", "sparkpar_assets.versions", "rollback", FARES, "2018", first.name],
        cwd=tmp_path,
        env={name: v for name, v in workbench.env.items() if name != ENV_FILE_VARIABLE} | wrong,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert workbench.content(workbench.key(2018)) == first.content
    assert latest(workbench).metadata["rolled_back_from"].value == second.name
    assert not (tmp_path / "of_env").exists()


def test_a_rollback_to_a_version_that_is_not_there_changes_nothing(workbench: Workbench) -> None:
    first = publish(workbench, rows_of(1), 1)
    done = command(workbench, "rollback", FARES, "2018", "20200101T000000")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"Error: {FARES} 2018 has no version '20200101T000000'. "
        f"The versions are: {first.name[:15]}.\n"
    )
    assert workbench.content(workbench.key(2018)) == first.content
    assert names_in_history(workbench) == {first.name}
    assert not workbench.materializations()


UNSET = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
PROBLEMS: Sequence[tuple[str, dict[str, str], str]] = (
    ("list fares 2018", {}, "There is no asset fares to materialize. The assets are: fare_by_"),
    (f"list {FARES}", {}, f"{FARES} has the partitions 2011 to "),
    (f"list {FARES} 1999", {}, f"{FARES} has no partition '1999'. The partitions are 2011 to "),
    (f"list {FARES} 2017...2019", {}, f"{FARES} has no partition '2017...2019'. The partitions"),
    (f"list {FARES} 2018 2019", {}, "There is a word too many, 2019. Leave it out."),
    (f"list {FARES} 2017", {}, f"{FARES} 2017 was never published at s3://"),
    (f"list {TRENDS} 2018", {}, f"{TRENDS} has no partitions. Leave 2018 out."),
    (f"rollback {TRENDS} 2018 20", {}, f"{TRENDS} has no partitions. Leave 2018 out."),
    (f"rollback {TRENDS} 20", {}, f"{TRENDS} was never published at s3://"),
    (
        f"rollback {FARES} 2018",
        {},
        f"Of the versions of {FARES} 2018, 0 are named, and it takes 1.",
    ),
    (f"diff {FARES} 2018 20", {}, f"Of the versions of {FARES} 2018, 1 are named, and it takes 2."),
    (f"rollback {FARES} 2018 3", {}, f"{FARES} 2018 has no version '3'. The versions are: 20"),
    (f"rollback {FARES} 2018 20", {}, "'20' begins several versions. Write one of: 20"),
    (f"diff {FARES} 2018 3 20", {}, f"{FARES} 2018 has no version '3'. The versions are: 20"),
    (f"list {FARES} 2018", {"S3_BUCKET": "not-there"}, "The bucket not-there does not exist at "),
    (f"list {FARES} 2018", {"S3_BUCKET": ""}, "S3_BUCKET is not set, so there is nowhere to "),
    (f"list {FARES} 2018", {"AWS_SECRET_ACCESS_KEY": "no"}, "S3 at "),
    (f"list {FARES} 2018", {**UNSET, "AWS_PROFILE": "no"}, "The config profile (no) could not be "),
    (f"rollback {FARES} 2018 20", UNSET, "S3 at "),
    (f"list {FARES} 2018", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, "S3 at "),
    (f"rollback {FARES} 2018 20", {"HISTORY_VERSIONS": "0"}, "HISTORY_VERSIONS is 0, so no "),
    (f"list {FARES} 2018", {"HISTORY_VERSIONS": "many"}, "Settings cannot be read: HISTORY_"),
    (f"rollback {FARES} 2018 20", {"DAGSTER_HOME": ""}, "DAGSTER_HOME is not set, so Dagster "),
)
"""The words, the settings, and how the error begins."""


def test_what_a_user_can_mend_ends_in_a_sentence_of_cause_and_one_of_remedy(
    workbench: Workbench, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # nobody answers there: it would wait
    for number in (1, 2):
        publish(workbench, rows_of(number), number)
    before = set(workbench.keys())
    as_it_was = {name: workbench.env.get(name, "") for _, more, _ in PROBLEMS for name in more}
    for words, variables, beginning in PROBLEMS:
        code, output, said = in_process(*words.split(), **(as_it_was | variables))
        assert (code, output) == (1, ""), words
        assert said.startswith(f"Error: {beginning}"), (words, said)
        assert "Traceback" not in said
        assert len(re.findall(r"[.](?: |$)", said)) >= 2, said
    assert set(workbench.keys()) == before
