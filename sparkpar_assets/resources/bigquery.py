"""BigQuery's free answers: which tables there are, since when, and what reading them costs."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from sparkpar_assets.cost import ReadEstimate, computed, dry_run, estimated
from sparkpar_assets.resources.bigquery_client import (
    REQUEST_SECONDS,
    RETRY_SECONDS,
    first_line,
    read_client,
    rest_client,
)
from sparkpar_assets.resources.environment import RunEnvironment

if TYPE_CHECKING:
    from google.cloud.bigquery import Client
    from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient

STANDARD_NAMES = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}
"""BigQuery's REST API answers with its old names of types (REST reference, TableFieldSchema)."""


@dataclass(frozen=True)
class TableState:
    """A BigQuery table at one moment.

    Attributes:
        name: project.dataset.table.
        modified: When it was last changed, by the server's clock, in UTC.
        rows: Rows in it.
        bytes: Logical bytes in it, as BigQuery bills them; 0 where a server does not say.
        columns: Types by column name, by their names in GoogleSQL (INT64, NUMERIC, …).
        settled: False while rows are streaming in, which ``rows`` does not count yet.
        kind: TABLE, VIEW, MATERIALIZED_VIEW, EXTERNAL or SNAPSHOT (REST reference, Table.type).
    """

    name: str
    modified: datetime
    rows: int
    bytes: int
    columns: Mapping[str, str]
    settled: bool
    kind: str = "TABLE"

    @property
    def is_view(self) -> bool:
        """Whether BigQuery has to run a query for its rows, whose number it does not know."""
        return self.kind in ("VIEW", "MATERIALIZED_VIEW")

    @property
    def is_native(self) -> bool:
        """Whether BigQuery itself stores its rows."""
        return self.kind in ("TABLE", "SNAPSHOT")

    @property
    def knows_its_rows(self) -> bool:
        """Whether ``rows`` says how many are going to be read."""
        return self.settled and not self.is_view

    @property
    def version(self) -> str:
        """The data version: sorts by time, and changes with the row count as well."""
        return f"{self.modified.isoformat(timespec='milliseconds')} {self.rows} rows"


@dataclass(frozen=True)
class TableScan:
    """What is going to be read of a table.

    Attributes:
        table: The table as it was looked at.
        columns: The columns' names.
        where: A filter on rows, in GoogleSQL; None for all rows.
        at: The moment at which the table is read; None for now.
    """

    table: TableState
    columns: Sequence[str]
    where: str | None = None
    at: datetime | None = None


class BigQueryTables(dg.ConfigurableResource[object]):
    """Looks at BigQuery tables by ``tables.get``, which costs nothing and reads no row."""

    environment: RunEnvironment

    def states(self, tables: Mapping[str, str]) -> dict[str, TableState | None]:
        """Look at several tables at once.

        Args:
            tables: Names (project.dataset.table) by any key: years, say.

        Returns:
            By the same keys, the table's state, or None where there is no such table.

        Raises:
            dg.Failure: BigQuery refuses the credentials or does not answer.
        """
        names = list(dict.fromkeys(tables.values()))
        settings = self.environment.settings
        with rest_client(settings) as client, ThreadPoolExecutor(max_workers=8) as pool:
            found = dict(
                zip(names, pool.map(lambda name: _state(client, name), names), strict=True)
            )
        return {key: found[name] for key, name in tables.items()}

    def read_estimates(self, scans: Mapping[str, TableScan]) -> dict[str, ReadEstimate]:
        """Ask what reading several tables will be billed for, which costs nothing.

        The Storage Read API answers it with the read session that a read begins with: for the very
        columns, rows and moment that are asked for. It needs ``bigquery.readsessions.create``, as
        the read does, and no row is read. Where it knows no answer, as an emulator may, that is
        computed from the table's row count and the columns' widths. The query that makes a view's
        rows is estimated by a dry run.

        Args:
            scans: What will be read, by any key.

        Returns:
            The estimates, by the same keys.

        Raises:
            dg.Failure: BigQuery refuses the credentials or the read, or does not answer.
        """
        tables = {key: scan for key, scan in scans.items() if not scan.table.is_view}
        settings = self.environment.settings
        estimates: dict[str, ReadEstimate] = {}
        if len(tables) < len(scans):
            with rest_client(settings) as client:
                views = {key: scan for key, scan in scans.items() if key not in tables}
                estimates |= {key: _estimate_view(client, scan) for key, scan in views.items()}
        if tables:
            with (
                read_client(settings) as (reader, project),
                ThreadPoolExecutor(max_workers=8) as pool,
            ):
                found = pool.map(lambda scan: _estimate(reader, project, scan), tables.values())
                estimates |= dict(zip(tables, found, strict=True))
        return {key: estimates[key] for key in scans}


def _state(client: "Client", name: str) -> TableState | None:
    from google.api_core.exceptions import NotFound
    from google.cloud.bigquery import DEFAULT_RETRY

    try:
        table = client.get_table(
            name, timeout=REQUEST_SECONDS, retry=DEFAULT_RETRY.with_timeout(RETRY_SECONDS)
        )
    except NotFound:
        return None
    return TableState(
        name=name,
        modified=table.modified or datetime.fromtimestamp(0, UTC),
        rows=table.num_rows or 0,
        bytes=table.num_bytes or 0,
        columns={
            field.name: STANDARD_NAMES.get(field.field_type.upper(), field.field_type.upper())
            + (" REPEATED" if field.mode == "REPEATED" else "")
            for field in table.schema
        },
        settled=table.streaming_buffer is None,
        kind=table.table_type or "TABLE",
    )


def _estimate(client: "BigQueryReadClient", project: str, scan: TableScan) -> ReadEstimate:
    from google.api_core.retry import Retry
    from google.cloud.bigquery_storage_v1 import types

    table = scan.table
    if not scan.columns:
        return computed(table.rows, ())  # BigQuery would take none for all
    owner, dataset, name = table.name.rsplit(".", 2)
    with _explained_refusal(table.name):
        session = client.create_read_session(
            parent=f"projects/{project}",
            read_session=types.ReadSession(
                table=f"projects/{owner}/datasets/{dataset}/tables/{name}",
                data_format=types.DataFormat.ARROW,
                read_options={"selected_fields": scan.columns, "row_restriction": scan.where or ""},
                table_modifiers={"snapshot_time": scan.at} if scan.at else None,
            ),
            max_stream_count=1,
            timeout=REQUEST_SECONDS,
            retry=Retry(timeout=RETRY_SECONDS),
        )
    if session.streams and not session.estimated_total_bytes_scanned:
        return computed(table.rows, (table.columns[column] for column in scan.columns))
    rows = session.estimated_row_count or (table.rows if session.streams else 0)
    return estimated(rows, session.estimated_total_bytes_scanned)


def _estimate_view(client: "Client", scan: TableScan) -> ReadEstimate:
    from google.cloud.bigquery import DEFAULT_RETRY, QueryJobConfig

    columns = ", ".join(f"`{column}`" for column in scan.columns) or "count(*)"
    where = f" WHERE {scan.where}" if scan.where else ""
    with _explained_refusal(scan.table.name):
        query = client.query(
            f"SELECT {columns} FROM `{scan.table.name}`{where}",  # noqa: S608  # nothing is run
            job_config=QueryJobConfig(dry_run=True, use_query_cache=False),
            timeout=REQUEST_SECONDS,
            retry=DEFAULT_RETRY.with_timeout(RETRY_SECONDS),
        )
    return dry_run(query.total_bytes_processed or 0)


@contextmanager
def _explained_refusal(table: str) -> Iterator[None]:
    from google.api_core.exceptions import BadRequest

    try:
        yield
    except BadRequest as error:
        raise dg.Failure(
            f"BigQuery refuses to read {table}: {first_line(error)} "
            "Correct the columns and the filter that the asset names.",
            allow_retries=False,
        ) from None
