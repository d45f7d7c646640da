"""Reading what is published."""

import subprocess
import sys

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
