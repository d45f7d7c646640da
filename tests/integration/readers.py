"""Readers of a published year that look again and again while others replace it."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import duckdb
from duckdb_extensions import import_extension

from sparkpar_assets.io_managers.published import parquet_rows
from tests.integration.versions import version_of
from tests.integration.workbench import FARES, Workbench

BREATH_SECONDS = 0.05
"""Between two looks: a reader without a pause would take the processor from the runs it watches."""

OF_S3PROXY = re.compile(r"\.parquet-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""S3Proxy writes an object under such a name beside its own, then renames it, and its listings show
the one for some milliseconds (measured: 7 % of the listings while one key was replaced 120 times a
second; the key itself was in every one). AWS's show no object that is not there whole."""


@dataclass
class Reader:
    """A thread that reads until it is stopped.

    Attributes:
        read: Lists and reads once, and returns the version; fails if it is not a whole one.
        retried: Errors with which a tool says by itself that the file has changed.
        versions: The versions that were read, in this order.
        failure: The first one, which ends the thread.
    """

    read: Callable[[], int]
    retried: type[Exception] | None = None
    versions: list[int] = field(default_factory=list)
    retries: list[str] = field(default_factory=list)
    failure: BaseException | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> "Reader":
        """Begin to read."""
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """End, and raise what went wrong."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _loop(self) -> None:
        while not self._stopped.wait(BREATH_SECONDS):
            try:
                self.versions.append(self.read())
            except BaseException as error:  # noqa: BLE001 — raised again by stop()
                if self.retried is None or not isinstance(error, self.retried):
                    self.failure = error
                    return
                self.retries.append(str(error))


def boto3_reader(bench: Workbench, year: int) -> Reader:
    """Lists the year's folder, which has to hold one object, and reads that in one GET."""
    client, bucket, prefix = bench.s3, bench.bucket, f"{bench.root}{FARES}/year={year}/"

    def read() -> int:
        listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        keys = [item["Key"] for item in listed if not OF_S3PROXY.search(item["Key"])]
        assert keys == [bench.key(year)], f"not one object: {keys}"
        body = client.get_object(Bucket=bucket, Key=keys[0])["Body"].read()
        return version_of(parquet_rows(body).to_pylist())

    return Reader(read)


def duckdb_reader(bench: Workbench, year: int) -> Reader:
    """Queries the table as DuckDB finds it; a file that changes meanwhile is DuckDB's error."""
    connection = duckdb.connect(config={"extension_directory": str(bench.temporary / "duckdb")})
    import_extension("httpfs", con=connection)
    connection.load_extension("httpfs")
    settings = bench.settings
    key, secret = settings.aws_access_key_id, settings.aws_secret_access_key
    assert key is not None
    assert secret is not None
    endpoint = str(settings.s3_endpoint).removeprefix("http://")
    connection.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{key.get_secret_value()}', "
        f"SECRET '{secret.get_secret_value()}', ENDPOINT '{endpoint}', URL_STYLE path, "
        f"USE_SSL false, REGION '{settings.aws_region}')"
    )
    query = f"""
        SELECT * EXCLUDE (year)
        FROM read_parquet('s3://{bench.bucket}/{bench.root}{FARES}/*/*.parquet',
            hive_partitioning = true, filename = true)
        WHERE year = {year}
    """

    def read() -> int:
        rows: list[dict[str, Any]] = connection.execute(query).to_arrow_table().to_pylist()
        assert len({row.pop("filename") for row in rows}) == 1
        return version_of(rows)

    return Reader(read, retried=duckdb.HTTPException)
