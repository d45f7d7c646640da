"""What the benchmark makes of its measurements."""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.answers import Answer, Group, answer_of
from benchmarks.benchmark import Plan
from benchmarks.contenders import AFTERWARDS, CONTENDERS, READING
from benchmarks.goals import LIST_DEFS, goals
from benchmarks.measurements import Measurement, Measurements, ratio
from benchmarks.memory import DRIVER, EXECUTOR, RUN, role_of
from benchmarks.report import Report, spread
from benchmarks.workloads import Workload, write_trips

YEAR, FIVE = Workload("sample"), Workload("sample", years=5)
LARGE, ONE_WORKER = Workload("40m"), Workload("40m", workers=1)
GROUP: Group = {
    "passenger_count": 1,
    "trips": 3,
    "total_fare": Decimal("10.000000000"),
    "avg_fare": Decimal("3.333333333"),
    "avg_tip": Decimal("1.500000000"),
    "avg_distance": Decimal("2.000000000"),
}


def measured(**seconds: float) -> Measurements:
    """One round of one real year, by contender."""
    of = Measurements()
    for contender, taken in seconds.items():
        of.add(contender, YEAR, Measurement(taken))
    return of


def report_of(of: Measurements) -> Report:
    titles = {contender.name: contender.title for contender in CONTENDERS}
    return Report("./run.sh bench", titles, {"memory": "8 GB"}, "2026-01-01", ["0.1"], of)


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    # The third round was slow as a whole: the ratio of the medians would be 4 / 10.
    assert ratio([1, 2, 40, 4, 5], [10, 10, 100, 10, 10]) == 0.4
    assert ratio([1], [2]) == 0.5
    assert ratio([], [2]) is None
    assert ratio([1], []) is None


def test_a_time_is_shown_with_its_spread() -> None:
    assert spread([3.0]) == "3.00"
    assert spread([5.0, 1.0, 2.25]) == "2.25 (1.00 to 5.00)"


def test_what_follows_the_publication_is_not_before_it() -> None:
    of = measured(script=10)
    of.add(
        "warm", YEAR, Measurement(2, phases={READING: 1.2, AFTERWARDS[0]: 0.5, AFTERWARDS[1]: 0.2})
    )
    (warm,) = (
        goal for goal in goals(of) if goal.what.startswith("warm, one sample year, from command")
    )
    assert (warm.found, warm.met) == ("0.13", True)


def test_long_workloads_can_be_done_in_fewer_rounds(tmp_path: Path) -> None:
    fewer = Plan("./run.sh bench", tmp_path, 4, rounds_of_years=2, rounds_of_rows=3)
    assert [fewer.rounds_for(workload) for workload in (YEAR, FIVE, LARGE)] == [4, 2, 3]
    same = Plan("./run.sh bench", tmp_path, 4)
    assert [same.rounds_for(workload) for workload in (YEAR, FIVE, LARGE)] == [4, 4, 4]


def test_goals_are_met_missed_or_not_measured() -> None:
    found = goals(measured(script=10, cold=4.4, warm=2, **{"warm-click": 5.1, LIST_DEFS: 3}))
    by_what = {goal.what: goal for goal in found}
    cold = by_what["cold, one sample year, against *script*"]
    assert (cold.found, cold.met) == ("0.44", True)
    warm = by_what["warm, one sample year, from command to published, against *script*"]
    assert (warm.found, warm.met) == ("0.20", False)
    click = by_what["warm, one sample year, from the click"]
    assert (click.found, click.met) == ("5.10 s", False)
    assert by_what["`dg list defs`"].met is True
    five = by_what["cold, five years in one run, against five *scripts*"]
    assert (five.found, five.met) == ("", None)


def test_a_second_worker_and_more_rows_are_held_to_the_platforms_own_figures() -> None:
    of = Measurements()
    for workload, seconds, peak in (
        (Workload("2m"), 10, 500),
        (LARGE, 110, 540),
        (ONE_WORKER, 200, 540),
    ):
        memory, phases = {EXECUTOR: peak}, {READING: seconds - 5.0}
        of.add("cold", workload, Measurement(seconds, memory, phases))
    of.add("limit", LARGE, Measurement(30))
    found = {goal.what: (goal.goal, goal.found, goal.met) for goal in goals(of)}
    assert found["20 times the rows, cold: times the time"] == ("≤ 20", "11.00", True)
    assert found["20 times the rows, cold: times the executor's memory"] == ("≤ 1.1", "1.08", True)
    reading = "read + aggregate of 40 million rows, cold, against *limit*"
    assert found[reading] == ("≤ 3", "3.50", False)
    second = "second worker on a year of 40 million rows, read + aggregate, cold: speed"
    assert found[second] == ("≥ 1.7", "1.86", True)


def test_the_report_shows_times_memory_and_phases_of_each_contender() -> None:
    of = measured(script=30)
    memory = {RUN: 300 * 1024**2, DRIVER: 500 * 1024**2}
    of.add("cold", YEAR, Measurement(6, memory, {"Spark's session": 2.0}))
    text = report_of(of).text()
    assert "| platform, cold | 6.00 | 0.20 | 300 | 500 |  |" in text
    assert "| Spark's session | 2.00 |" in text
    assert "| cold, one sample year, against *script* | ≤ 0.45 | 0.20 | met |" in text


def test_what_is_written_by_hand_stays_where_the_results_are_written_anew(tmp_path: Path) -> None:
    report_of(measured(script=30, cold=6)).write(tmp_path)
    file = tmp_path / "RESULTS.md"
    file.write_text(file.read_text().replace("None were written yet.", "It is slow: **because**."))
    report_of(measured(script=40, cold=7)).write(tmp_path)
    assert file.read_text().endswith("\n## Reasons\n\nIt is slow: **because**.\n")
    assert "| 40.00 |" in file.read_text()
    assert "| 30.00 |" not in file.read_text()
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")


def test_a_result_counts_only_if_its_groups_counts_sums_and_means_are_right() -> None:
    answer = Answer([GROUP])

    def of(**other: object) -> str:
        return answer.difference(pa.Table.from_pylist([{**GROUP, **other}]))

    assert of() == ""
    assert of(median_fare=Decimal(3)) == ""  # more than is compared
    assert of(avg_fare=Decimal("3.3333333333333")) == ""  # rounded later
    assert "avg_fare of passenger_count 1 is 3.34" in of(avg_fare=Decimal("3.34"))
    assert "total_fare of passenger_count 1" in of(total_fare=Decimal("10.000000001"))
    assert "trips of passenger_count 1 is 4 instead of 3" in of(trips=4)
    assert of(passenger_count=2) == "It has the groups [2] instead of [1]."
    assert answer.difference(pa.Table.from_pylist([GROUP, GROUP])) != ""


def test_synthetic_trips_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.parquet" for number in range(3)]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        write_trips(file, 20_000, seed)
    same, again, other = map(answer_of, files)
    assert same == again
    assert same != other
    assert [group["passenger_count"] for group in same.groups] == [1, 2, 3, 4, 5, 6]
    trips = pq.read_table(files[0])
    assert trips.schema.field("fare_amount").type == pa.decimal128(38, 9)
    counted = sum(group["trips"] for group in same.groups)
    assert 0.96 < counted / trips.num_rows < 0.98  # the others are left out by the rules


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["python3", "bin/dagster", "asset", "materialize"], RUN),
        (["python3", "-m", "dagster", "api", "execute_run"], RUN),
        (["python3", "-m", "dagster", "api", "grpc", "--port", "1"], None),
        (["python3", "/venv/bin/dagster-webserver", "-w", "workspace.local.yaml"], None),
        (["/jdk/bin/java", "-cp", "x", "org.apache.spark.deploy.SparkSubmit"], DRIVER),
        (["java", "org.apache.spark.deploy.SparkSubmit", "--class", "ConnectServer"], DRIVER),
        (["java", "org.apache.spark.executor.CoarseGrainedExecutorBackend"], EXECUTOR),
        (["java", "org.apache.spark.deploy.worker.Worker"], None),
        (["bash", "spark-class"], None),
        ([], None),
    ],
)
def test_a_process_is_known_by_its_command_line(command: list[str], role: str | None) -> None:
    assert role_of(command) == role


def test_a_large_year_is_always_read_by_one_worker_too() -> None:
    plan = Plan("", Path(), years=[1, 2])
    assert plan.workloads("sample") == [YEAR, Workload("sample", years=2)]
    assert plan.workloads("10m") == [Workload("10m")]
    assert plan.workloads("40m") == [LARGE, ONE_WORKER]
