"""The benchmark runs, and no wrong result counts."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.benchmark import Plan, benchmark
from benchmarks.contenders import CONTENDERS, READING, Arena, Contender, SingleProcess
from benchmarks.memory import DRIVER, EXECUTOR, RUN, MemorySampler
from benchmarks.workloads import Workload
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.testing import EmbeddedStack

YEAR = Workload("sample")


def plan_of(output: Path, *contenders: Contender) -> Plan:
    """One round of one real year."""
    return Plan("./run.sh bench", output, 1, ["sample"], [1], [2], contenders)


@pytest.mark.slow
def test_every_contender_publishes_the_same_fares(
    embedded_stack: EmbeddedStack, tmp_path: Path
) -> None:
    fast = [one for one in CONTENDERS if one.name in ("cold", "duckdb", "polars", "limit")]
    found = benchmark(embedded_stack, plan_of(tmp_path, *fast)).measurements
    assert set(found.contenders(YEAR)) >= {"cold", "duckdb", "limit"}
    (cold,) = found.of["cold", YEAR]
    assert set(cold.memory) == {RUN, DRIVER, EXECUTOR}
    assert cold.phases[READING] > 0
    assert sum(cold.phases.values()) == pytest.approx(cold.seconds, abs=0.5)
    assert "| platform, cold |" in (tmp_path / "RESULTS.md").read_text()


class LeavesOneOut(SingleProcess):
    """Publishes, and then replaces its result by one that lacks a trip."""

    def work(self, arena: Arena, workload: Workload, sampler: MemorySampler) -> None:
        """Do it, then undo some of it."""
        super().work(arena, workload, sampler)
        right = self.published(arena, workload.all_years[0])
        trips = right["trips"].to_pylist()
        position = right.schema.get_field_index("trips")
        wrong = right.set_column(position, "trips", [[trips[0] - 1, *trips[1:]]])
        content = io.BytesIO()
        pq.write_table(wrong, content)
        arena.bench.s3.put_object(
            Bucket=arena.bench.bucket,
            Key=f"{arena.bench.name}/{self.name}/year={workload.all_years[0]}/data.parquet",
            Body=content.getvalue(),
        )


def test_a_wrong_result_stops_the_benchmark(embedded_stack: EmbeddedStack, tmp_path: Path) -> None:
    wrong = LeavesOneOut("duckdb", "wrong")
    with pytest.raises(
        EmbeddedError, match=r"The result of duckdb .* is wrong in 2011\. Its trips"
    ):
        benchmark(embedded_stack, plan_of(tmp_path, wrong))
    assert not (tmp_path / "RESULTS.md").exists()
