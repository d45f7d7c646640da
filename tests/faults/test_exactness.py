"""Random tables and analyses: what is published is what DuckDB and Python's Decimal compute."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sparkpar_assets.assets.fares import fare_by_passenger_count
from sparkpar_assets.assets.trips import yellow_taxi_trips
from sparkpar_assets.components.aggregation import aggregation_asset
from sparkpar_assets.components.attributes import AggregationAttributes
from sparkpar_assets.components.loading import tables_of
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.io_managers.bigquery import BigQueryYears, SourceYears
from sparkpar_assets.io_managers.source import TableSource
from sparkpar_assets.resources.bigquery import BigQueryTables
from sparkpar_assets.transforms.aggregation import filtered
from tests.faults.exactness.analyses import FARES, Analysis, analyses
from tests.faults.exactness.expressions import Chance
from tests.faults.exactness.oracle import Expected, differences, expected
from tests.faults.exactness.tables import tables, written_out
from tests.faults.report import Trial
from tests.integration.warm_spark import WarmSpark, end_warm_session, run_on_warm_session
from tests.integration.workbench import FARES as FARES_ASSET
from tests.integration.workbench import Workbench, new_workbench

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MADE = 300
"""Tables in CI."""
FIRST_YEAR = 2011
BATCH = 14
"""Tables of one run: each is a year. A run takes a second or two, however few rows it reads."""
READ = 28
"""Tables in CI that are read from BigQuery: that takes several times as long."""
FIRST, LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
REFUSED = "A sum needs more digits than its type has"
REFUSED_FARE = "needs more than the 38 digits of DECIMAL(38,9)"
EMPTY = ("no row is left after the rules; there is nothing to publish", " is empty.")


@dataclass(frozen=True)
class Made:
    """A table, and what is to become of it."""

    table: pa.Table
    expected: Expected


Years = Mapping[int, Made]


class MadeYears(dg.ConfigurableIOManager):
    """The tables of a Parquet file, which has a column ``year``, in the place of BigQuery's."""

    tables: BigQueryTables
    spark: WarmSpark
    file: str

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Refuse, as the reader of BigQuery does."""
        raise NotImplementedError

    def load_input(self, context: dg.InputContext) -> SourceYears:
        """The rows that an asset reads, as the reader of BigQuery hands them over."""
        source = TableSource.of_input(context.definition_metadata)
        assert source is not None
        rows: DataFrame = self.spark.session.read.parquet(self.file)
        if source.where is not None:
            rows = filtered(rows, source.where)
        return SourceYears(
            rows=rows.select("year", *source.columns),
            states={},
            refused={},
            tables=self.tables,
            snapshots=True,
            is_filtered=source.where is not None,
        )


@dataclass
class Search:
    """Runs assets over made tables, and compares what they publish with what they have to.

    Attributes:
        bench: Where they run.
        reads: Whether the tables are read from BigQuery.
        tables: How many tables there were.
        compared: How many results were published exactly.
        refused: How many were rightly refused, for a sum or value beyond its type.
        empty: How many had no row to publish.
    """

    bench: Workbench
    reads: bool
    tables: int = 0
    compared: int = 0
    refused: int = 0
    empty: int = 0
    _duckdb: duckdb.DuckDBPyConnection = field(
        default_factory=lambda: duckdb.connect(config={"threads": 1})  # enough for few rows
    )
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def check_fares(self, tables: Sequence[pa.Table]) -> None:
        """Check the built-in fares of some tables."""
        for key in self.bench.keys(f"{FARES_ASSET}/"):  # of the tables before
            self.bench.s3.delete_object(Bucket=self.bench.bucket, Key=key)
        made = [Made(table, expected(self._duckdb, FARES, table)) for table in tables]
        years = _by_year(made)
        run = self._run(FARES_ASSET, [yellow_taxi_trips, fare_by_passenger_count], years)
        self._compare(FARES, FARES_ASSET, "", years, run, REFUSED_FARE)

    def check(self, analysis: Analysis, tables: Sequence[pa.Table]) -> None:
        """Check an analysis of some tables: a run of those that can be computed, one of another."""
        self.tables += len(tables)
        made = [Made(table, expected(self._duckdb, analysis, table)) for table in tables]
        if computed := [one for one in made if one.expected.fails == Chance.NONE]:
            self._check_that_it_succeeds(analysis, _by_year(computed))
        if failing := [one for one in made if one.expected.fails == Chance.CERTAIN]:
            self._check_that_it_fails(analysis, _by_year(failing[:1]))

    def _check_that_it_succeeds(self, analysis: Analysis, years: Years) -> None:
        attributes, asset = self._asset(analysis, years)
        run = self._run(attributes.asset, [asset, *tables_of([asset])], years)
        self._compare(analysis, attributes.asset, _yaml(attributes), years, run, REFUSED)

    def _check_that_it_fails(self, analysis: Analysis, years: Years) -> None:
        attributes, asset = self._asset(analysis, years)
        run = self._run(attributes.asset, [asset, *tables_of([asset])], years)
        said = failure(run)
        shown = f"{said}\n{_yaml(attributes)}\n{written_out(years[FIRST_YEAR].table)}"
        assert f"Spark cannot compute {attributes.asset}: " in said or REFUSED in said, shown
        assert self.bench.keys(f"{attributes.asset}/") == [], shown
        self.refused += 1

    def _asset(
        self, analysis: Analysis, years: Years
    ) -> tuple[AggregationAttributes, dg.AssetsDefinition]:
        name = f"{'read' if self.reads else 'made'}_{next(self._numbers)}"
        text = yaml.safe_dump(analysis.attributes(name, self.table, sorted(years)))
        attributes = AggregationAttributes.model_validate(yaml.safe_load(text))
        return attributes, aggregation_asset(attributes)

    @property
    def table(self) -> str:
        """Name of the tables of an analysis."""
        return f"{self.bench.settings.taxi_table_prefix}{{year}}"

    def _run(
        self, name: str, assets: Sequence[dg.AssetsDefinition], years: Years
    ) -> dg.ExecuteInProcessResult:
        tags = {FIRST: str(min(years)), LAST: str(max(years))}
        # In memory: an instance with files takes as long as the rest of a run.
        instance = dg.DagsterInstance.ephemeral()
        reader = self._reader(years)
        return run_on_warm_session(self.bench, name, tags, assets, reader, instance)

    def _reader(self, years: Years) -> Callable[..., dg.ConfigurableIOManager]:
        if self.reads:
            for year, made in years.items():
                self.bench.load_trips(year, made.table)
            return BigQueryYears
        file = self.bench.folder / "made.parquet"
        rows = [
            made.table.append_column("year", pa.array([year] * made.table.num_rows, pa.int32()))
            for year, made in years.items()
        ]
        # Statistics leave NaN out: by them Spark would pass over a file whose only row above 0 is
        # a NaN, for a condition `speed > 0` that to Spark is true of it. BigQuery has none.
        pq.write_table(pa.concat_tables(rows), file, write_statistics=False)
        return partial(MadeYears, file=str(file))

    def _compare(
        self,
        analysis: Analysis,
        asset: str,
        text: str,
        years: Years,
        run: dg.ExecuteInProcessResult,
        refusal: str,
    ) -> None:
        published = {int(key.split("/year=")[1][:4]) for key in self.bench.keys(f"{asset}/")}
        said = "" if run.success else failure(run)
        for year, made in years.items():
            rows = self.bench.published(year, asset).to_pylist() if year in published else None
            wrong = self._wrong(analysis, made.expected, rows, said, year, refusal)
            assert not wrong, "\n".join([*wrong, text, written_out(made.table)])

    def _wrong(
        self,
        analysis: Analysis,
        outcome: Expected,
        rows: list[dict[str, Any]] | None,
        said: str,
        year: int,
        refusal: str,
    ) -> list[str]:
        """What is wrong with what became of a table, a sentence each."""
        if rows is not None and outcome.overflow == Chance.CERTAIN:
            return [f"It is published, although {', '.join(outcome.overflows)} overflow."]
        if rows is not None:
            self.compared += 1
            return differences(analysis, outcome, rows)
        reason = said.partition(f" {year}: ")[2].partition(f" {year + 1}: ")[0]
        if outcome.overflow and refusal in reason:
            self.refused += 1
        elif not outcome.groups and any(sentence in reason for sentence in EMPTY):
            self.empty += 1
        else:
            return [f"It is not published: {said}"]
        return []


def failure(run: dg.ExecuteInProcessResult) -> str:
    """What a failed run says."""
    assert not run.success, "The run succeeds."
    (event,) = [event for event in run.all_events if event.is_step_failure]
    data = event.step_failure_data
    return str(data.user_failure_data.description if data.user_failure_data else data.error)


def _by_year(made: Sequence[Made]) -> Years:
    return dict(enumerate(made, FIRST_YEAR))


def _yaml(attributes: AggregationAttributes) -> str:
    shown = attributes.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump({"attributes": shown}, sort_keys=False, allow_unicode=True)


@pytest.fixture(scope="module")
def bench(embedded_stack: EmbeddedStack) -> Iterator[Workbench]:
    """A workbench whose environment this process has, and a Spark session that all runs share."""
    with (
        new_workbench(embedded_stack, "exactness") as bench,
        pytest.MonkeyPatch.context() as patch,
    ):
        bench.configure(SPARK_MASTER_URL="local[1]", SPARK_CORES_MAX="1", SPARK_EVENT_LOG_DIR="")
        for name, value in bench.env.items():
            patch.setenv(name, value)
        yield bench
    end_warm_session()


@pytest.mark.quick
@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("reads", "made"),
    [
        pytest.param(
            False, MADE, id="made", marks=pytest.mark.fault("random tables, random analyses")
        ),
        pytest.param(
            True, READ, id="read", marks=pytest.mark.fault("the same, read from BigQuery")
        ),
    ],
)
def test_what_is_published_of_random_tables_is_exact(
    bench: Workbench, trial: Trial, request: pytest.FixtureRequest, reads: bool, made: int
) -> None:
    """The search is the same every time; with ``--examples``, another every time."""
    search, batches = Search(bench, reads), itertools.count()
    chosen = request.config.getoption("--examples")

    @settings(
        max_examples=-(-(chosen or made) // BATCH),
        derandomize=not chosen,
        phases=[Phase.generate],  # A failure names one table: a smaller batch would say no more.
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(tables(), min_size=BATCH, max_size=BATCH), analyses())
    def check(made: list[pa.Table], analysis: Analysis) -> None:
        search.check(analysis, made)
        if next(batches) % 2 == 0:  # there is but one such analysis
            search.check_fares(made)

    check()
    trial.outcome = (
        f"{search.tables:,} tables: {search.compared:,} results exact, "
        f"{search.refused:,} refused for an overflow, {search.empty:,} empty"
    )
