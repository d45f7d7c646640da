"""What a run is going to read of BigQuery, and what that costs: looked at before it is read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sparkpar_assets.cost import ReadEstimate, ReadLimit, read_limit, total, why_refused
from sparkpar_assets.io_managers.publication import WHOLE
from sparkpar_assets.io_managers.source import TableSource
from sparkpar_assets.resources.bigquery import BigQueryTables, TableScan, TableState
from sparkpar_assets.settings import Settings


@dataclass(frozen=True)
class ReadPlan:
    """The tables of some years, at one moment. All of it was free to ask.

    Attributes:
        names: The tables' names, by year; ``WHOLE`` stands for the year where there is none.
        states: Those that can be read, as they were then.
        refused: A sentence of cause for each year that can't be read.
        moments: The moment that each table is read at, where the server keeps its past.
        estimates: What reading each of them will be billed for.
        limit: The most that may be read in one run; None for no limit.
    """

    names: Mapping[str, str]
    states: Mapping[str, TableState]
    refused: Mapping[str, str]
    moments: Mapping[str, datetime]
    estimates: Mapping[str, ReadEstimate]
    limit: ReadLimit | None

    @property
    def why_refused(self) -> str | None:
        """A sentence of cause and one of remedy if the limit forbids to read all of it."""
        return why_refused(total(self.estimates.values()), self.limit)


def plan_reading(
    tables: BigQueryTables, source: TableSource, years: Iterable[str], asset: str
) -> ReadPlan:
    """Look at the tables of some years, and ask what reading them will be billed for.

    Args:
        tables: Where the tables are.
        source: What is to be read of them.
        years: The years; of no account where the source is not read by the year.
        asset: Name of the asset that reads them.

    Raises:
        dg.Failure: BigQuery refuses the credentials or a read, or does not answer.
    """
    settings = tables.environment.settings
    asked = datetime.now(UTC)
    names = {year: source.name(year, settings) for year in (years if source.is_yearly else [WHOLE])}
    found = tables.states(names)
    refused = {
        year: reason
        for year, state in found.items()
        if (reason := why_unreadable(names[year], state, source, settings))
    }
    states = {
        year: state for year, state in found.items() if state is not None and year not in refused
    }
    moments = {
        # By our clock, which may be behind the server's: then the last change is later.
        year: max(asked, state.modified)
        for year, state in states.items()
        if settings.bigquery_snapshot_reads and not state.is_view
    }
    estimates = tables.read_estimates(
        {
            year: TableScan(
                state,
                source.scanned_columns,
                source.restriction(year, state.columns),
                moments.get(year),
            )
            for year, state in states.items()
        }
    )
    limit = read_limit(settings.max_bytes_read, source.max_bytes_read, asset)
    return ReadPlan(names, states, refused, moments, estimates, limit)


def why_unreadable(
    name: str, state: TableState | None, source: TableSource, settings: Settings
) -> str | None:
    """A sentence that says why a table cannot be read; None if it can.

    Args:
        name: The table's name.
        state: What is known of it; None if there is no such table.
        source: What is to be read of it.
        settings: Say whether views are read.
    """
    if state is None:
        return f"the table {name} does not exist."
    if state.is_view and settings.bigquery_view_dataset is None:
        return (
            f"{name} is a view, whose rows BigQuery has to compute first: name a dataset for them "
            "in BIGQUERY_VIEW_DATASET."
        )
    if not state.is_view and not state.is_native:
        return f"{name} is of the kind {state.kind}, which the Storage API does not read."
    if problem := source.why_unreadable(state.columns):
        return f"the table {name} {problem}."
    if state.rows == 0 and state.knows_its_rows:
        return f"the table {name} is empty."
    return None
