"""Creates and replaces the embedded BigQuery's tables from Parquet files."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core.exceptions import GoogleAPIError, NotFound
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from requests import RequestException

from sparkpar_assets.embedded.bigquery_types import table_schema
from sparkpar_assets.embedded.credentials import PROJECT
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.server import StackConfig

TABLE_NAME = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\.\w{1,1024}\.\w{1,1024}", re.ASCII)
"""BigQuery's rules for project, dataset and table, less what needs quoting in SQL."""

NEW_SUFFIX = "__loading"
TIMEOUT_SECONDS = 120

CALL: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "retry": None}
"""For every call: Google's client would ask a server that is down for ten minutes."""


@dataclass(frozen=True)
class LoadedTable:
    """A table as it was loaded."""

    name: str
    rows: int


def load(config: StackConfig, name: str, file: Path) -> LoadedTable:
    """Create a table from a Parquet file, or replace it.

    The file is read whole, and loaded beside the table, before the table is touched: whatever is
    wrong with it, the old table stays as it was.

    Args:
        config: The stack whose BigQuery gets the table.
        name: ``project.dataset.table``.
        file: The Parquet file.

    Raises:
        EmbeddedError: The name, the file or a column's type is not usable, or the server fails.
    """
    _check_name(name)
    schema, rows = _read_parquet(file)
    fields = table_schema(schema)
    try:
        _replace(connect(config), name, file, fields, rows)
    except (GoogleAPIError, RequestException) as error:
        raise _failure(config, name, error) from error
    return LoadedTable(name, rows)


def create_empty(config: StackConfig, name: str, fields: list[bigquery.SchemaField]) -> None:
    """Create a table without rows, unless there is a table of that name."""
    client = connect(config)
    try:
        _create_dataset(client, name)
        client.create_table(bigquery.Table(name, fields), exists_ok=True, **CALL)
    except (GoogleAPIError, RequestException) as error:
        raise _failure(config, name, error) from error


def connect(config: StackConfig) -> bigquery.Client:
    """A client of the stack's BigQuery, whatever the user's environment says."""
    return bigquery.Client(
        project=PROJECT,
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": config.url("bigquery")},
    )


def _check_name(name: str) -> None:
    if not TABLE_NAME.fullmatch(name):
        raise EmbeddedError(
            f"'{name}' is not the name of a table.",
            "Write project.dataset.table: a project in lower case of 6 to 30 characters, "
            "dataset and table of letters, digits and underscores.",
        )


def _read_parquet(file: Path) -> tuple[pa.Schema, int]:
    """The columns and number of rows of a file, after reading all of it."""
    if not file.is_file():
        raise EmbeddedError(f"{file} is not a file.", "Name a Parquet file.")
    try:
        parquet = pq.ParquetFile(file)
        rows = sum(batch.num_rows for batch in parquet.iter_batches())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise EmbeddedError(
            f"{file} is not a Parquet file, or a damaged one: {reason}.",
            "Write or copy it anew.",
        ) from error
    schema: pa.Schema = parquet.schema_arrow
    if not schema.names:
        raise EmbeddedError(f"{file} has no columns.", "Name a Parquet file that has some.")
    return schema, rows


def _replace(
    client: bigquery.Client,
    name: str,
    file: Path,
    fields: list[bigquery.SchemaField],
    rows: int,
) -> None:
    """Load beside the table, then put the copy in its place.

    The emulator's WRITE_TRUNCATE empties the table before it reads the file, keeps the old schema
    and the time of the last change; a table that a copy job creates has all of them right.
    """
    new = name + NEW_SUFFIX
    _create_dataset(client, name)
    client.delete_table(new, not_found_ok=True, **CALL)
    client.create_table(bigquery.Table(new, fields), **CALL)
    try:
        _load_file(client, new, file)
        loaded = client.get_table(new, **CALL).num_rows
        if loaded != rows:
            raise EmbeddedError(
                f"BigQuery took {loaded} of the {rows} rows of {file}.", "Load it again."
            )
        client.delete_table(name, not_found_ok=True, **CALL)
        client.copy_table(new, name, **CALL).result(**CALL)
    finally:
        client.delete_table(new, not_found_ok=True, **CALL)


def _load_file(client: bigquery.Client, table: str, file: Path) -> None:
    options = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET,
        write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
    )
    with file.open("rb") as content:
        client.load_table_from_file(content, table, job_config=options).result(**CALL)


def _create_dataset(client: bigquery.Client, table: str) -> None:
    dataset = table.rpartition(".")[0]
    try:
        client.get_dataset(dataset, **CALL)
    except NotFound:
        client.create_dataset(dataset, exists_ok=True, **CALL)


def _failure(config: StackConfig, name: str, error: Exception) -> EmbeddedError:
    if isinstance(error, RequestException):
        return EmbeddedError(
            f"The embedded BigQuery does not answer at {config.url('bigquery')}.",
            "Start it by ./run.sh embedded up.",
        )
    reason = str(error).splitlines()[0].rstrip(".")
    return EmbeddedError(
        f"The embedded BigQuery refused {name}: {reason}.",
        "Its log, ./run.sh embedded logs bigquery, says more.",
    )
