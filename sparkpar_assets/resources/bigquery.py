"""BigQuery's free metadata: which tables there are, since when, and with which columns."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from sparkpar_assets.resources.environment import RunEnvironment

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

REQUEST_SECONDS = 60
RETRY_SECONDS = 15
"""Google's client would go on for ten minutes where nothing listens."""
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
    def version(self) -> str:
        """The data version: sorts by time, and changes with the row count as well."""
        return f"{self.modified.isoformat(timespec='milliseconds')} {self.rows} rows"


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
        from concurrent.futures import ThreadPoolExecutor

        names = list(dict.fromkeys(tables.values()))
        with self._client() as client, ThreadPoolExecutor(max_workers=8) as pool:
            found = dict(
                zip(names, pool.map(lambda name: _state(client, name), names), strict=True)
            )
        return {key: found[name] for key, name in tables.items()}

    @contextmanager
    def _client(self) -> Iterator["Client"]:
        from dagster_gcp import BigQueryResource
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, RetryError
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

        settings = self.environment.settings
        where = settings.bigquery_http_endpoint or "Google"
        key_file = settings.google_credentials_file
        if key_file:
            _check_key_file(Path(key_file))
        whose = f"The key file {key_file}" if key_file else "The application default credentials"
        try:
            with BigQueryResource(project=settings.gcp_project).get_client() as client:
                yield client
        except DefaultCredentialsError as error:
            raise dg.Failure(
                f"{whose} cannot be used: {_first_line(error)} Set GOOGLE_APPLICATION_CREDENTIALS "
                "to a service account's key file, or run gcloud auth application-default login.",
                allow_retries=False,
            ) from None
        except (GoogleAuthError, ValueError) as error:
            raise dg.Failure(
                f"{whose} was rejected: {_first_line(error)} "
                "Make a new key for the account, or correct GOOGLE_APPLICATION_CREDENTIALS.",
                allow_retries=False,
            ) from None
        except Forbidden as error:
            raise dg.Failure(
                f"BigQuery denied access: {_first_line(error)} Give the account the roles BigQuery "
                "Read Session User on the project and BigQuery Data Viewer on the dataset.",
                allow_retries=False,
            ) from None
        except (GoogleAPICallError, RetryError, OSError) as error:
            raise dg.Failure(
                f"BigQuery at {where} does not answer as it should: {_first_line(error)} "
                "Check the network and BIGQUERY_EMULATOR_HOST, and run it again.",
            ) from None


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


def _check_key_file(path: Path) -> None:
    import json

    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        problem = "does not exist"
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({error.__class__.__name__})"
    except json.JSONDecodeError:
        problem = "is not JSON"
    else:
        if isinstance(content, dict) and "type" in content:
            return
        problem = "is no key of Google's: it has no field type"
    raise dg.Failure(
        f"The key file {path} {problem}. "
        "Set GOOGLE_APPLICATION_CREDENTIALS to the JSON key file of a service account.",
        allow_retries=False,
    )


def _first_line(error: BaseException) -> str:
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else f"{line}."
