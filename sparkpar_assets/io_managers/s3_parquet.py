"""Publishing results as Parquet in S3: stage, validate, publish; and loading what is published."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import DagsterEvent, DagsterEventType

from sparkpar_assets.io_managers.bigquery import unreadable_years
from sparkpar_assets.io_managers.materialization import (
    of_changes_from_published,
    of_object,
    of_rows,
)
from sparkpar_assets.io_managers.publication import (
    WHOLE,
    Outcome,
    Publication,
    StagedYear,
)
from sparkpar_assets.io_managers.published import (
    publication_time,
    published_dataset,
    read_object,
    version_name,
)
from sparkpar_assets.io_managers.staging import (
    StagingArea,
    ended_runs,
    remove_dead_staging,
    staging_area,
)
from sparkpar_assets.metadata import SCHEMA_KEY, same_columns, table_schema
from sparkpar_assets.resources.environment import RunEnvironment
from sparkpar_assets.resources.s3 import explained_errors
from sparkpar_assets.resources.spark import Spark, explained_data_errors
from sparkpar_assets.resources.spark_losses import DRIVER_LOST, WarmDriverLost, explained_losses
from sparkpar_assets.retries import retrying

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, Row


@dataclass(frozen=True)
class PublishedYears:
    """What is published of an upstream asset.

    Attributes:
        rows: The rows of all published years, with ``year`` INT32; lazy.
        years: The published years, ascending.
        missing: Years that Dagster has a materialization of, and S3 no object.
    """

    rows: "DataFrame"
    years: Sequence[str]
    missing: Sequence[str]


@dataclass
class _Staged:
    """What Spark has staged: object keys by year, and the audit rows."""

    keys: Mapping[str, str]
    audit: Sequence["Row"]


class S3ParquetIOManager(dg.ConfigurableIOManager):
    """Publishes one zstd Parquet object a year, and only if its staged rows pass the checks.

    - All years of a run are staged in one Spark job, outside of what readers see.
    - A year whose staged rows fail a check keeps the object it has; the others are published.
    - A year is published by one server-side copy: a reader sees the old object or the new one.
    - The versions before stay under ``_history/``.

    The asset's output is a ``Publication``. Where the asset has partitions, its rows have a column
    ``year``, which stands in the path only: ``<asset>/year=2018/data.parquet``.
    """

    environment: RunEnvironment
    spark: Spark

    def handle_output(self, context: dg.OutputContext, obj: Publication) -> None:
        """Stage, validate and publish.

        On success Dagster logs a materialization for each year by itself. Where a year fails, those
        of the published years are logged here, since then Dagster logs none.

        Raises:
            dg.Failure: A year was not published; the message names it, with the reason.
            dg.RetryRequested: The source changed while it was read.
            WarmDriverLost: The warm driver ended before a year was published.
        """
        run = _Run(self, context, obj)
        try:
            retrying(run.stage_and_publish, context.log, under_way=True)
        except BaseException as error:
            # Dagster's events follow S3, also where a run is cancelled between two years.
            run.log_events_of_published()
            if isinstance(error, WarmDriverLost) and run.published:
                raise dg.Failure(DRIVER_LOST, allow_retries=False) from error
            raise
        if run.refused:
            run.log_events_of_published()
            raise run.failure()

    def load_input(self, context: dg.InputContext) -> PublishedYears:
        """The published years of the upstream asset, as one lazy DataFrame.

        S3 says what is published, not Dagster: years without an object are left out.

        Raises:
            dg.Failure: No year is published, or years differ from the asset's declared schema.
        """
        load = explained_errors(self.environment.settings)(self._load)
        return retrying(lambda: load(context), context.log, under_way=False)

    def _load(self, context: dg.InputContext) -> PublishedYears:
        from pyspark.sql.pandas.types import from_arrow_schema
        from pyspark.sql.types import IntegerType

        upstream = context.upstream_output
        definition = (upstream and upstream.definition_metadata) or {}
        environment = self.environment
        dataset = published_dataset(
            environment.settings, environment.s3, context.asset_key, definition
        )
        years = dataset.years()
        if not years:
            raise dg.Failure(
                f"No year of {dataset.asset} is published under s3://{dataset.bucket}/"
                f"{dataset.root}{dataset.folder}/. Materialize {dataset.asset} first.",
                allow_retries=False,
            )
        keep = self.environment.settings.history_versions
        keys = {year: dataset.readable_key(year, keep) for year in years}
        schemas = {year: dataset.schema(key) for year, key in keys.items()}
        latest = table_schema(schemas[years[-1]])
        # One after the other: what is declared may leave types open, which no two years may.
        for expected in (definition.get(SCHEMA_KEY, latest), latest):
            _check_same_schemas(dataset.asset, expected, schemas)
        schema = from_arrow_schema(schemas[years[-1]]).add("year", IntegerType())
        rows = (
            self.spark.session_for(rows=0)  # results: few, beside what they were computed from
            .read.schema(schema)
            .option("basePath", f"s3a://{dataset.bucket}/{keys[years[0]].rpartition('year=')[0]}")
            .parquet(*(f"s3a://{dataset.bucket}/{key}" for key in keys.values()))
        )
        known = context.step_context.instance.get_materialized_partitions(context.asset_key)
        return PublishedYears(
            rows=rows,
            years=years,
            missing=sorted(set(known) - set(years)),
        )


class _Run:
    """One publication of one asset: the steps, and what came of them."""

    def __init__(
        self, manager: S3ParquetIOManager, context: dg.OutputContext, publication: Publication
    ) -> None:
        self.spark = manager.spark
        self.settings = manager.environment.settings
        self.definition = context.definition_metadata or {}
        self.dataset = published_dataset(
            self.settings, manager.environment.s3, context.asset_key, self.definition
        )
        self.context = context
        self.publication = publication
        self.years = list(context.asset_partition_keys) if context.has_asset_partitions else []
        self.refused = dict(publication.source.refused) if publication.source else {}
        self.published: list[str] = []
        self.placed: dict[str, tuple[str, Mapping[str, str]]] = {}
        """By year, the staged key of what was published, and what was noted with it."""
        self.seconds: dict[str, float] = {}

    def stage_and_publish(self) -> None:
        """Publish the years that are not yet: another try goes on where the one before ended."""
        with explained_errors(self.settings), self._staging_area() as area:
            staged = self._stage(area)
            self._start_over_if_the_source_changed()
            self.seconds = self._seconds_until_staged()
            for year in self.years or [WHOLE]:
                if year not in {*self.refused, *self.published}:
                    self._validate_and_publish(area, staged, year)
                if year in self.placed:
                    keep = self.settings.history_versions
                    self.dataset.update_history(_of_year(year), *self.placed[year], keep)

    @contextmanager
    def _staging_area(self) -> Iterator[StagingArea]:
        lifetime, log = float(self.settings.staging_lease_seconds), self.context.log
        place = (self.dataset.client, self.dataset.bucket, self.dataset.root)
        step = self.context.step_context
        remove_dead_staging(*place, lifetime, log, ended_runs(step.instance))
        owner = f"{step.run_id}/{step.previous_attempt_count}"
        with staging_area(*place, owner, lifetime, log) as area:
            yield area

    def failure(self) -> dg.Failure:
        if set(self.refused) <= set(
            self.publication.source.refused if self.publication.source else ()
        ):
            return unreadable_years(self.refused)
        reasons = " ".join(f"{year}: {reason}" for year, reason in sorted(self.refused.items()))
        return dg.Failure(
            f"Not published: {', '.join(sorted(self.refused))}. {reasons} What was published "
            "before stays in place. Mend the source, then materialize these partitions again.",
            metadata={"not_published": dg.MetadataValue.json(self.refused)},
            allow_retries=False,
        )

    def log_events_of_published(self) -> None:
        """Log what Dagster would have logged for the published years, had the run succeeded."""
        from dagster._core.definitions.assets.definition.asset_spec import AssetExecutionType
        from dagster._core.execution.plan.execute_step import _get_output_asset_events

        step = self.context.step_context
        if self.published:
            # Dagster's own function, for the versions and provenance it tags events with; private,
            # and so covered by a test that compares them with those of a run that succeeded.
            for event in _get_output_asset_events(
                self.context.asset_key,
                [] if self.published == [WHOLE] else self.published,
                dg.Output(None, output_name=self.context.name),
                step.op_def.output_def_named(self.context.name),
                {},
                step,
                AssetExecutionType.MATERIALIZATION,
            ):
                DagsterEvent.asset_materialization(step, event)  # type: ignore[arg-type]
        for result in self.publication.check_results():
            DagsterEvent.asset_check_evaluation(step, result.to_asset_check_evaluation(step))

    def _stage(self, area: StagingArea) -> _Staged:
        """Write all years at once, and collect the audit rows from the same shared aggregate."""
        started = time.monotonic()
        publication = self.publication
        path = f"s3a://{area.bucket}/{area.prefix}rows"
        with (
            explained_data_errors(self.dataset.asset),
            explained_losses(),
            self.spark.progress(self.context.log),
            _cached(publication.shared),
        ):
            self._write(path)
            audit = publication.audit.collect() if publication.audit is not None else []
        self.context.log.info(
            f"Spark application {self.spark.application_id} staged the rows in "
            f"{time.monotonic() - started:.1f} s."
        )
        return _Staged(_staged_keys(area), audit)

    def _write(self, path: str) -> None:
        """Write one file for each year, or for all where there are none."""
        publication = self.publication
        if self.years:
            rows = publication.rows.repartition("year").sortWithinPartitions(
                "year", *publication.order_by
            )
            rows.write.partitionBy("year").parquet(path)
        else:
            rows = publication.rows.coalesce(1)
            if publication.order_by:
                rows = rows.sortWithinPartitions(*publication.order_by)
            rows.write.parquet(path)

    def _seconds_until_staged(self) -> dict[str, float]:
        """How long the phases took that all years of the run share.

        From Dagster's records of the run: its creation, which is before it is queued, and the start
        of this step. All are of this machine's clock but the first, which is the launcher's.
        """
        now, step = time.time(), self.context.step_context
        (run,) = step.instance.get_run_records(dg.RunsFilter(run_ids=[step.run_id]))
        starts = step.instance.get_records_for_run(
            step.run_id, of_type=DagsterEventType.STEP_START
        ).records
        started = next(
            start.timestamp for start in starts if start.event_log_entry.step_key == step.step.key
        )
        starting_spark = self.spark.seconds_starting(since=started)
        return {
            "seconds_waiting": started - run.create_timestamp.timestamp(),
            "seconds_starting_spark": starting_spark,
            "seconds_reading_and_aggregating": now - started - starting_spark,
        }

    def _start_over_if_the_source_changed(self) -> None:
        source = self.publication.source
        changed = source.changed_years() if source else []
        if not changed:
            return
        if self.context.step_context.previous_attempt_count:
            raise dg.Failure(
                f"The tables of {', '.join(changed)} "
                "changed while they were read, at the last try. "
                "Run it again when they are no longer written to.",
                allow_retries=False,
            )
        self.context.log.warning(
            f"The tables of {', '.join(changed)} changed while they were read: reading once more."
        )
        raise dg.RetryRequested(max_retries=1)

    def _validate_and_publish(self, area: StagingArea, staged: _Staged, year: str) -> None:
        started = time.monotonic()
        if year not in staged.keys:
            self.refused[year] = "no row is left after the rules; there is nothing to publish."
            return
        key = staged.keys[year]
        rows = read_object(area.client, area.bucket, key)
        audit = [row for row in staged.audit if year == WHOLE or str(row["year"]) == year]
        staged_year = StagedYear(year, rows, audit, self._source_rows(year))
        outcomes = self._schema_outcomes(rows) or self.publication.validate(staged_year)
        self.publication.outcomes[year] = [o for o in outcomes if o.check != SCHEMA_KEY]
        errors = [outcome.sentence for outcome in outcomes if outcome.refuses]
        if errors:
            self.refused[year] = " ".join(errors)
            self.context.log.error(f"{year} is not published: {self.refused[year]}")
            return
        validated = time.monotonic()
        area.assert_held()
        newer = self._published_from_newer(year)
        if newer:
            self._leave(year, newer)
            return
        changes = of_changes_from_published(self.dataset, _of_year(year), rows, self.definition)
        version = self._publish(year, key)
        self.published.append(year)
        seconds = self.seconds | {
            "seconds_validating": validated - started,
            "seconds_publishing": time.monotonic() - validated,
        }
        self._add_metadata(
            year,
            {
                **of_object(self.dataset, _of_year(year), rows),
                **self.publication.describe(staged_year),
                "version": version,
                "source_version": self._source_version(year) or None,
                **(self.publication.source.cost_metadata(year) if self.publication.source else {}),
                **changes,
                **of_rows(rows, self.definition),
                "checks": _checks_table(self.publication.outcomes[year]),
                "spark_ui": dg.MetadataValue.url(self.spark.ui_url),
                "spark_application_id": self.spark.application_id,
                "spark_driver": "warm" if self.spark.is_warm else "of the run",
                **{phase: round(spent, 2) for phase, spent in seconds.items()},
            },
        )

    def _schema_outcomes(self, rows: "pa.Table") -> list[Outcome]:
        """An asset publishes what it declares, or nothing."""
        declared = self.definition.get(SCHEMA_KEY)
        difference = same_columns(declared, table_schema(rows.schema)) if declared else ""
        return [Outcome(SCHEMA_KEY, difference, passed=False)] if difference else []

    def _published_from_newer(self, year: str) -> str:
        """The source version that the year is published from, if it is newer than this run's."""
        current = self.dataset.published_metadata(_of_year(year)) or {}
        version = self._source_version(year)
        published = current.get("source-version", "")
        return published if version and published > version else ""

    def _leave(self, year: str, newer: str) -> None:
        """Say that a year was not replaced, also in the event that Dagster logs for it."""
        sentence = (
            f"{year} is left as it is: it was published from a newer state of its table "
            f"({newer}, and this run read {self._source_version(year)})."
        )
        self.context.log.warning(sentence)
        self._add_metadata(
            year,
            {
                "dagster/uri": self.dataset.uri(_of_year(year)),
                "source_version": newer,
                "not_replaced": sentence,
            },
        )

    def _publish(self, year: str, staged_key: str) -> str:
        """Put the staged object in its place; returns the name of the version that it is."""
        of_year = _of_year(year)
        step = self.context.step_context
        note = {
            "published-at": publication_time(),
            "run-id": step.run_id,
            "code-version": self._code_version(),
            "source-version": self._source_version(year),
        }
        self.dataset.publish(of_year, staged_key, note, self.settings.history_versions)
        self.placed[year] = staged_key, note
        self.context.log.info(f"Published {self.dataset.uri(of_year)}")
        return version_name(note)

    def _source_version(self, year: str) -> str:
        source = self.publication.source
        return source.states[year].version if source and year in source.states else ""

    def _source_rows(self, year: str) -> int | None:
        source = self.publication.source
        state = source.states.get(year) if source else None
        return state.rows if state and state.knows_its_rows else None

    def _code_version(self) -> str:
        layer = self.context.step_context.job_def.asset_layer
        return layer.get(self.context.asset_key).code_version or ""

    def _add_metadata(self, year: str, metadata: Mapping[str, Any]) -> None:
        self.context.step_context.add_asset_metadata(
            {name: value for name, value in metadata.items() if value is not None},
            asset_key=self.context.asset_key,
            partition_key=_of_year(year),
        )


@contextmanager
def _cached(shared: "DataFrame | None") -> Iterator[None]:
    """Keep a DataFrame in Spark's cache while the block lasts.

    Where the block is interrupted, the cache goes with the session: this thread's connection to the
    JVM still waits for an answer.
    """
    if shared is None:
        yield
        return
    shared.persist()
    try:
        yield
    except Exception:
        shared.unpersist()
        raise
    shared.unpersist()


def _of_year(year: str) -> str | None:
    return None if year == WHOLE else year


def _staged_keys(area: StagingArea) -> dict[str, str]:
    """The staged objects by year; ``WHOLE`` where there are no years."""
    pages = area.client.get_paginator("list_objects_v2").paginate(
        Bucket=area.bucket, Prefix=f"{area.prefix}rows/"
    )
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    parquet = [key for key in keys if key.endswith(".parquet") and "/__magic" not in key]
    staged = {
        key.split("/year=")[-1].split("/")[0] if "/rows/year=" in key else WHOLE: key
        for key in parquet
    }
    if len(staged) != len(parquet):
        raise RuntimeError(f"Spark staged several objects for one year: {sorted(parquet)}")
    return staged


def _checks_table(outcomes: Sequence[Outcome]) -> dg.TableMetadataValue | None:
    if not outcomes:
        return None
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"check": o.check, "passed": o.passed, "found": o.sentence})
            for o in outcomes
        ]
    )


def _check_same_schemas(
    asset: str, expected: dg.TableSchema, schemas: Mapping[str, "pa.Schema"]
) -> None:
    different = {
        year: difference
        for year, schema in schemas.items()
        if (difference := same_columns(expected, table_schema(schema)))
    }
    if different:
        reasons = " ".join(f"{year}: {reason}" for year, reason in different.items())
        commands = "; ".join(
            f"dagster asset materialize -m sparkpar_assets.definitions --select {asset} "
            f"--partition {year}"
            for year in different
        )
        raise dg.Failure(
            f"Published years of {asset} have another schema than it declares. {reasons} "
            f"Publish them again: {commands}",
            metadata={"different_years": dg.MetadataValue.json(different)},
            allow_retries=False,
        )
