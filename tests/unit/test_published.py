"""Reading what is published."""

import subprocess
import sys
from datetime import UTC, datetime

from sparkpar_assets.io_managers.published import version_name

READ = """
import io
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from sparkpar_assets.io_managers.published import parquet_rows

buffer = io.BytesIO()
pq.write_table(pa.table({"a": [1, 2], "b": [3, 4]}), buffer)
before = psutil.Process().num_threads()
assert parquet_rows(buffer.getvalue()).to_pylist() == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
print(psutil.Process().num_threads() - before)
"""


def test_rows_are_read_without_threads_of_arrows_that_could_abort_the_process_at_its_end() -> None:
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_two_objects_of_one_second_that_no_run_has_put_there_have_two_names() -> None:
    second = datetime(2026, 11, 30, 17, 33, tzinfo=UTC)  # finer times S3 does not tell
    names = [version_name({}, second, f'"{digest * 8}"') for digest in ("0a1b", "2c3d")]
    assert names == [f"20261130T173300.000000Z-unknown-{tag}" for tag in ("0a1b0a1b", "2c3d2c3d")]


def test_the_name_of_what_a_run_has_published_is_of_what_it_noted() -> None:
    noted = {"published-at": "20261123T021800.123456Z", "run-id": "a-run"}
    assert version_name(noted, datetime.now(UTC), '"0a1b"') == "20261123T021800.123456Z-a-run"
