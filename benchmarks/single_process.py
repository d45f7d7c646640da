"""What one would write without Spark: BigQuery's streams read in parallel threads, one process.

``python single_process.py ENGINE CERTIFICATES OUTPUT YEAR…``; each year's result goes to
``s3://BUCKET/OUTPUT/year=YEAR/data.parquet`` by one PUT. Engines: ``duckdb`` and ``polars`` compute
the fares; ``limit`` drops the rows, which no engine can be faster than.
"""

import argparse
import io
import os
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types

COLUMNS = ["passenger_count", "fare_amount", "tip_amount", "trip_distance"]
STREAMS = 8
WAITING_BATCHES = 16
"""Read ahead of the engine, at most: the memory does not grow with the table."""
MEASURES = {"avg_fare": "fare_amount", "avg_tip": "tip_amount", "avg_distance": "trip_distance"}
NUMERIC = pa.decimal128(38, 9)

Sums = Mapping[str, Any]
"""``passenger_count``, ``trips`` and, for each measured column, ``sum_…`` and ``n_…``."""


def main() -> None:
    """Compute each year and put its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("certificates", help="the authority that BigQuery's is signed by, as PEM")
    parser.add_argument("output")
    parser.add_argument("years", nargs="+")
    arguments = parser.parse_args()
    os.environ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] = arguments.certificates
    client = BigQueryReadClient(  # type: ignore[no-untyped-call]  # Google's
        client_options={"api_endpoint": os.environ["BIGQUERY_STORAGE_GRPC_ENDPOINT"]}
    )
    s3 = boto3.client("s3")
    for year in arguments.years:
        result = ENGINES[arguments.engine](client, open_table(client, year))
        s3.put_object(
            Bucket=os.environ["S3_BUCKET"],
            Key=f"{arguments.output}/year={year}/data.parquet",
            Body=result,
        )


def open_table(client: BigQueryReadClient, year: str) -> types.ReadSession:
    """Begin to read a year's table: four columns, no filter, as Arrow."""
    project, dataset, table = (os.environ["TAXI_TABLE_PREFIX"] + year).split(".")
    return client.create_read_session(
        parent=f"projects/{os.environ['GCP_PROJECT_ID']}",
        read_session=types.ReadSession(
            table=f"projects/{project}/datasets/{dataset}/tables/{table}",
            data_format=types.DataFormat.ARROW,
            read_options={"selected_fields": COLUMNS},
        ),
        max_stream_count=STREAMS,
    )


def messages(client: BigQueryReadClient, stream: types.ReadStream) -> Iterator[bytes]:
    """The Arrow messages of one stream."""
    for response in client.read_rows(stream.name):  # type: ignore[no-untyped-call]
        yield response.arrow_record_batch.serialized_record_batch


def for_each_stream(
    session: types.ReadSession, work: Callable[[types.ReadStream], Any]
) -> list[Any]:
    """Work on all streams of a session at once."""
    with ThreadPoolExecutor(max_workers=STREAMS) as pool:
        return list(pool.map(work, session.streams))


def drop(client: BigQueryReadClient, session: types.ReadSession) -> bytes:
    """Read all bytes and drop them; the object to put has the size of a result."""
    for_each_stream(session, lambda stream: sum(map(len, messages(client, stream))))
    return bytes(4096)


def with_duckdb(client: BigQueryReadClient, session: types.ReadSession) -> bytes:
    """Let DuckDB aggregate the batches while they come."""
    import duckdb

    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    arrived: queue.Queue[bytes | None] = queue.Queue(WAITING_BATCHES)

    def pass_on(stream: types.ReadStream) -> None:
        for message in messages(client, stream):
            arrived.put(message)

    def read() -> None:
        try:
            for_each_stream(session, pass_on)
        finally:
            arrived.put(None)

    def batches() -> Iterator[pa.RecordBatch]:
        while (message := arrived.get()) is not None:
            yield pa.ipc.read_record_batch(pa.py_buffer(message), schema)

    sums = ", ".join(
        f"sum({name}) AS sum_{name}, count({name}) AS n_{name}" for name in MEASURES.values()
    )
    with ThreadPoolExecutor(max_workers=1) as pool, duckdb.connect() as connection:
        reading = pool.submit(read)
        connection.register("trips", pa.RecordBatchReader.from_batches(schema, batches()))
        found = connection.execute(
            f"SELECT passenger_count, count(*) AS trips, {sums} FROM trips "  # noqa: S608
            "WHERE passenger_count IS NOT NULL AND fare_amount > 0 GROUP BY 1 ORDER BY 1"
        ).to_arrow_table()
        reading.result()  # raises what a thread has raised
    return as_parquet(found.to_pylist())


def with_polars(client: BigQueryReadClient, session: types.ReadSession) -> bytes:
    """Let Polars aggregate each batch in the thread that read it, then the aggregates."""
    import polars as pl

    schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema))
    measures = list(MEASURES.values())

    def aggregate(stream: types.ReadStream) -> list[pl.DataFrame]:
        return [
            pl.DataFrame(
                pa.Table.from_batches([pa.ipc.read_record_batch(pa.py_buffer(one), schema)])
            )
            .filter(pl.col("passenger_count").is_not_null() & (pl.col("fare_amount") > 0))
            .group_by("passenger_count")
            .agg(
                pl.len().alias("trips").cast(pl.Int64),
                *(pl.col(name).sum().alias(f"sum_{name}") for name in measures),
                *(pl.col(name).count().cast(pl.Int64).alias(f"n_{name}") for name in measures),
            )
            for one in messages(client, stream)
        ]

    parts = [part for found in for_each_stream(session, aggregate) for part in found]
    total = pl.concat(parts).group_by("passenger_count").sum().sort("passenger_count")
    return as_parquet(total.to_dicts())


def as_parquet(groups: Sequence[Sums]) -> bytes:
    """The published columns: means are exact quotients, rounded once."""
    rows = [
        {
            "passenger_count": group["passenger_count"],
            "trips": group["trips"],
            "total_fare": group["sum_fare_amount"],
            **{
                mean: quotient(group[f"sum_{name}"], group[f"n_{name}"])
                for mean, name in MEASURES.items()
            },
        }
        for group in groups
    ]
    amounts = [pa.field(name, NUMERIC) for name in ("total_fare", *MEASURES)]
    counts = [pa.field(name, pa.int64()) for name in ("passenger_count", "trips")]
    content = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=pa.schema([*counts, *amounts]))
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()


def quotient(total: Decimal | None, count: int) -> Decimal | None:
    """The mean, rounded half-up at the 9th digit; None of no values."""
    if not count or total is None:
        return None
    with localcontext(prec=80):
        return (total / count).quantize(Decimal("1e-9"), rounding=ROUND_HALF_UP)


ENGINES = {"duckdb": with_duckdb, "polars": with_polars, "limit": drop}

if __name__ == "__main__":
    main()
