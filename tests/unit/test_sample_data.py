"""The sample trips are what BigQuery's tables are: a drift would make the demo lie."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.transforms.fares import TRIP_COLUMNS

FOLDER = PROJECT_ROOT / "sample_data"
ARROW_TYPES = {
    "STRING": pa.string(),
    "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    "INTEGER": pa.int64(),
    "NUMERIC": pa.decimal128(38, 9),
}
SCHEMA = json.loads((FOLDER / "tlc_yellow_trips.json").read_text())


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.parquet")), ids=lambda file: file.stem)
def test_a_sample_file_has_the_columns_and_types_of_bigquerys_table(file: Path) -> None:
    found = pq.read_schema(file)
    assert {field.name: field.type for field in found} == {
        field["name"]: ARROW_TYPES[field["type"]] for field in SCHEMA
    }


def test_the_columns_that_are_read_are_in_bigquerys_table_with_these_types() -> None:
    types = {field["name"]: field["type"].replace("INTEGER", "INT64") for field in SCHEMA}
    assert {name: types[name] for name in TRIP_COLUMNS} == TRIP_COLUMNS
