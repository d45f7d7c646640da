"""Starts bqemulator with its gaps closed.

``tests/embedded/test_bigquery_gaps.py`` fails when one is no longer needed.
"""

import argparse
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import duckdb_extensions
import grpc
import pyarrow as pa
import uvicorn
from bqemulator import cli
from bqemulator.api.dependencies import AppContext
from bqemulator.api.routes import jobs
from bqemulator.grpc_api import read_servicer
from bqemulator.storage.engine import DuckDBEngine
from bqemulator.streaming import read_session
from google.cloud.bigquery_storage_v1 import types
from grpc.aio import _server

from sparkpar_assets.embedded.bigquery_sessions import LateCopies, RecentSessions

Asgi = Callable[[dict[str, Any], object, object], Awaitable[None]]
"""A server's application, as the ASGI specification has it."""


def main() -> None:
    """Start the emulator: our own two options, then bqemulator's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    arguments, emulator_arguments = parser.parse_known_args()
    credentials = grpc.ssl_server_credentials(
        [(arguments.key.read_bytes(), arguments.certificate.read_bytes())]
    )
    install_spatial()
    separate_threads()
    serve_rest()
    serve_tls(credentials)
    read_session._serialise_arrow_schema = serialize_schema
    read_session._SESSIONS = RecentSessions()
    copy_late()
    read_servicer._build_read_session_response = without_estimate
    jobs._execute_query_or_failed_meta = into_destination  # type: ignore[assignment]
    cli.main(emulator_arguments)


def serve_rest() -> None:
    """Understand Google's Java client, and let no client that stays connected hold up the end."""
    configure = uvicorn.Config.__init__

    def configure_with_ours(config: uvicorn.Config, app: Asgi, **options: Any) -> None:  # noqa: ANN401
        options["timeout_graceful_shutdown"] = 1
        configure(config, MethodOverride(app), **options)

    uvicorn.Config.__init__ = configure_with_ours  # type: ignore[method-assign, assignment]


class MethodOverride:
    """Takes a POST for the method that its header names: Java's own HTTP client knows no PATCH."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: object, send: object) -> None:
        """Serve one request, as ASGI has it."""
        method = dict(scope.get("headers", ())).get(b"x-http-method-override")
        await self.app(scope | {"method": method.decode()} if method else scope, receive, send)


def install_spatial() -> None:
    """Give DuckDB the extension that the emulator needs, from its wheel, not the network."""
    with duckdb.connect() as connection:
        duckdb_extensions.import_extension("spatial", con=connection)


def separate_threads() -> None:
    """Give each thread a connection to DuckDB of its own.

    bqemulator has one for all, and the next statement takes the place of the rows of the one
    before. Some requests are served in threads: a look at the server's health, just as it counted
    the rows of a new table, left that table without any.
    """
    shared: Callable[[DuckDBEngine], duckdb.DuckDBPyConnection] = vars(DuckDBEngine)[
        "connection"
    ].fget
    own = threading.local()

    def connection(engine: DuckDBEngine) -> duckdb.DuckDBPyConnection:
        first = shared(engine)
        if threading.current_thread() is threading.main_thread():
            return first
        if getattr(own, "first", None) is not first:
            own.first, own.cursor = first, first.cursor()
            own.cursor.execute("SET TimeZone = 'UTC'")  # as bqemulator's own: BigQuery's
        cursor: duckdb.DuckDBPyConnection = own.cursor
        return cursor

    DuckDBEngine.connection = property(connection)  # type: ignore[assignment, method-assign]


def copy_late() -> None:
    """Begin read sessions of large tables without a copy of their rows."""
    begin = read_servicer.BigQueryReadHandler.__init__

    def begin_with_ours(handler: read_servicer.BigQueryReadHandler, context: AppContext) -> None:
        late = LateCopies(context.engine)
        begin(handler, replace(context, engine=late))  # type: ignore[arg-type]  # has what it uses

    read_servicer.BigQueryReadHandler.__init__ = begin_with_ours  # type: ignore[assignment, method-assign]  # there is no other way in


def serialize_schema(schema: pa.Schema) -> bytes:
    """The schema message alone.

    bqemulator ends it with an end-of-stream marker, at which Java's reader stops: it finds no
    rows, and no error.
    """
    content: bytes = schema.serialize().to_pybytes()
    return content


def without_estimate(
    build: Callable[..., types.ReadSession] = read_servicer._build_read_session_response,
    **parts: object,
) -> types.ReadSession:
    """The answer to a request for a read session, without an estimate of the bytes it scans.

    bqemulator gives the memory that its copy of the filtered rows takes, which would be taken for
    the bytes that BigQuery bills: logical ones, of all rows.
    """
    session = build(**parts)
    session.estimated_total_bytes_scanned = 0
    return session


async def into_destination(
    execute: Callable[..., Awaitable[object]] = jobs._execute_query_or_failed_meta,
    **parts: Any,  # noqa: ANN401  # bqemulator's arguments
) -> object:
    """Run a query; where its rows are to become a table, make that.

    bqemulator answers the query and makes none. The connector reads the rows of views from there.
    """
    wanted = parts["query_config"]
    if (table := wanted.get("destinationTable")) and wanted.get(
        "writeDisposition"
    ) != "WRITE_APPEND":
        name = f"`{table['projectId']}.{table['datasetId']}.{table['tableId']}`"
        parts["bq_sql"] = f"CREATE OR REPLACE TABLE {name} AS {parts['bq_sql']}"
    return await execute(**parts)


def serve_tls(credentials: grpc.ServerCredentials) -> None:
    """Let the gRPC server speak TLS, which Google's Java client always does."""

    def add_secure_port(grpc_server: _server.Server, address: str) -> int:
        port = grpc_server.add_secure_port(address, credentials)
        return int(port)

    _server.Server.add_insecure_port = add_secure_port


if __name__ == "__main__":
    main()
