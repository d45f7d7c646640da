"""A driver that serves run after run: each as right, and as much by itself, as with its own."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pytest

from sparkpar_assets.io_managers import s3_parquet
from sparkpar_assets.resources.private_files import write_private
from sparkpar_assets.resources.warm_driver import Folder, end_warm_driver, fingerprint
from tests.integration.test_secrets import secrets_of
from tests.integration.versions import AMOUNTS, fares, trips_table
from tests.integration.warm_spark import end_warm_session, run_on_warm_session
from tests.integration.workbench import FARES, Workbench, wait_until

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

WARM, OWN = "warm", "of the run"


@pytest.fixture
def folder(workbench: Workbench) -> Iterator[Folder]:
    """Where the test's runs look for a warm driver; none is left in the end."""
    found = Folder(workbench.folder / "warm driver")
    workbench.configure(SPARK_WARM_DRIVER=str(found.path), SPARK_CORES_MAX="1")
    yield found
    end_warm_driver(found.path)


def drivers_of(bench: Workbench) -> list[tuple[str, str]]:
    """Of each materialization, oldest first, what kind of driver it had, and which application."""
    found = [record.asset_materialization for record in bench.materializations()]
    return [
        (str(one.metadata["spark_driver"].value), str(one.metadata["spark_application_id"].value))
        for one in found
        if one is not None
    ]


def test_runs_share_a_driver_that_is_there_before_the_second_one(
    workbench: Workbench, folder: Folder
) -> None:
    workbench.load_trips(2018, trips_table(3))
    workbench.load_trips(2019, trips_table(5))
    workbench.materialize_years(2018)
    pid = folder.pid()
    workbench.materialize_years(2018, 2019)
    assert folder.pid() == pid is not None
    assert workbench.published(2018).to_pylist() == fares(3)
    assert workbench.published(2019).to_pylist() == fares(5)
    kinds, applications = zip(*drivers_of(workbench), strict=True)
    assert kinds == (WARM, WARM, WARM)
    assert len(set(applications)) == 1
    first, *_, last = (
        float(str(record.asset_materialization.metadata["seconds_starting_spark"].value))
        for record in workbench.materializations()
        if record.asset_materialization
    )
    assert last < first / 2

    changed = trips_table(4)
    workbench.load_trips(2018, changed)
    workbench.materialize_years(2018)
    assert workbench.published(2018).to_pylist() == fares(4)


def test_no_secret_is_in_the_drivers_command_line_environment_or_log(
    workbench: Workbench, folder: Folder
) -> None:
    workbench.load_trips(2018, trips_table(3))
    workbench.materialize_years(2018)
    process = psutil.Process(folder.pid())
    note = json.loads(folder.note.read_text())
    assert folder.note.stat().st_mode & 0o077 == 0
    seen = "\0".join(
        [*process.cmdline(), *process.environ().values(), folder.log.read_text()]
        + [text for child in process.children(recursive=True) for text in child.cmdline()]
    )
    values = [value for values in secrets_of(workbench, []).values() for value in values]
    assert [value for value in [*values, note["word"]] if value in seen] == []


@pytest.mark.slow
def test_a_run_with_another_key_gets_a_driver_that_never_knew_the_one_before(
    workbench: Workbench, folder: Folder
) -> None:
    workbench.load_trips(2018, trips_table(3))
    workbench.materialize_years(2018)
    before = psutil.Process(folder.pid())
    key = json.loads(Path(str(workbench.settings.google_credentials_file)).read_text())
    renewed = workbench.folder / "renewed.json"
    write_private(renewed, json.dumps(key | {"private_key_id": "renewed"}))
    workbench.configure(GOOGLE_APPLICATION_CREDENTIALS=str(renewed))
    workbench.materialize_years(2018)
    assert folder.pid() not in (None, before.pid)
    assert not before.is_running()
    (first, second) = drivers_of(workbench)
    assert first[0] == second[0] == WARM
    assert first[1] != second[1]


@pytest.mark.slow
def test_a_run_with_other_settings_starts_its_own_where_the_driver_is_busy(
    workbench: Workbench, folder: Folder
) -> None:
    workbench.load_trips(2018, trips_table(3))
    workbench.materialize_years(2018)
    pid = folder.pid()
    with held_session(workbench, folder):
        workbench.configure(SPARK_EXECUTOR_MEMORY="600m")
        workbench.materialize_years(2018)
        assert folder.pid() == pid
    assert [kind for kind, _ in drivers_of(workbench)] == [WARM, OWN]
    assert workbench.published(2018).to_pylist() == fares(3)
    # The session was not given back in order: nobody knows what is left of it.
    wait_until(lambda: folder.pid() is None, "the end of the driver")


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_two_runs_at_once_are_both_right(workbench: Workbench) -> None:
    workbench.load_trips(2018, trips_table(3))
    workbench.load_trips(2019, trips_table(5))
    runs = [workbench.popen("--select", FARES, "--partition", year) for year in ("2018", "2019")]
    assert [run.wait(180) for run in runs] == [0, 0], [workbench.output_of(run) for run in runs]
    assert workbench.published(2018).to_pylist() == fares(3)
    assert workbench.published(2019).to_pylist() == fares(5)
    kinds, applications = zip(*drivers_of(workbench), strict=True)
    assert kinds == (WARM, WARM)
    assert len(set(applications)) == 1


@pytest.mark.slow
def test_a_run_reads_its_table_and_not_what_another_run_has_cached_of_it(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def left_in_the_cache(shared: "DataFrame") -> Iterator[None]:
        """As a run has it that is still at work."""
        shared.persist()
        yield

    monkeypatch.setattr(s3_parquet, "_cached", left_in_the_cache)
    workbench.configure(SPARK_MASTER_URL="local[1]", SPARK_EVENT_LOG_DIR="")
    for name, value in workbench.env.items():
        monkeypatch.setenv(name, value)
    try:
        for fare in (3, 5):
            amounts = pa.array([Decimal(fare)] * 4, pa.decimal128(38, 9))
            trips = pa.table(
                {
                    "passenger_count": pa.array([1] * 4, pa.int64()),
                    **dict.fromkeys(AMOUNTS, amounts),
                }
            )
            workbench.load_trips(2018, trips)  # of each time as many rows
            assert run_on_warm_session(workbench, FARES, {"dagster/partition": "2018"}).success
            (row,) = workbench.published(2018).to_pylist()
            assert (row["trips"], row["total_fare"]) == (4, 4 * fare)
    finally:
        end_warm_session()


@pytest.mark.slow
def test_who_does_not_know_the_word_gets_no_answer(workbench: Workbench, folder: Folder) -> None:
    workbench.load_trips(2018, trips_table(3))
    workbench.materialize_years(2018)
    note = json.loads(folder.note.read_text())
    stranger = Folder(workbench.folder / "stranger")
    stranger.create()
    write_private(stranger.note, json.dumps(note | {"word": "guessed"}))
    for question in ({"run": "x", "fingerprint": "x"}, {"end": "now"}):
        assert stranger.ask(**question) is None
    assert folder.pid() == note["pid"]


@contextmanager
def held_session(bench: Workbench, folder: Folder) -> Iterator[None]:
    """A session that is asked for as a run asks for it, and not given back in order."""
    settings = bench.settings
    question = {"run": "held", "fingerprint": fingerprint(settings, str(settings.java_home))}
    asked = folder.ask(**question)
    assert asked is not None
    with closing(asked[0]):
        assert "port" in asked[1], asked[1]
        yield
