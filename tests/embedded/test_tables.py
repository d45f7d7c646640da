"""Loading tables: BigQuery's types, whole replacements, bad input."""

import datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparkpar_assets.embedded import samples, tables
from sparkpar_assets.embedded.bigquery_types import table_schema
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.testing import EmbeddedStack

TABLE = "sparkpar-embedded.loading.fares"


@pytest.fixture
def fares(tmp_path: Path) -> Path:
    return write(tmp_path / "fares.parquet", pa.table({"fare": pa.array([1, 2, 3], pa.int64())}))


def write(file: Path, table: pa.Table) -> Path:
    pq.write_table(table, file)
    return file


@pytest.mark.parametrize(
    ("arrow_type", "name", "mode"),
    [
        (pa.int64(), "INTEGER", "NULLABLE"),
        (pa.int8(), "INTEGER", "NULLABLE"),
        (pa.decimal128(38, 9), "NUMERIC", "NULLABLE"),
        (pa.decimal128(10, 2), "NUMERIC", "NULLABLE"),
        (pa.float64(), "FLOAT", "NULLABLE"),
        (pa.float32(), "FLOAT", "NULLABLE"),
        (pa.bool_(), "BOOLEAN", "NULLABLE"),
        (pa.string(), "STRING", "NULLABLE"),
        (pa.dictionary(pa.int32(), pa.string()), "STRING", "NULLABLE"),
        (pa.binary(), "BYTES", "NULLABLE"),
        (pa.date32(), "DATE", "NULLABLE"),
        (pa.time64("us"), "TIME", "NULLABLE"),
        (pa.timestamp("us", tz="UTC"), "TIMESTAMP", "NULLABLE"),
        (pa.timestamp("us"), "DATETIME", "NULLABLE"),
        (pa.list_(pa.int64()), "INTEGER", "REPEATED"),
        (pa.struct([("fare", pa.decimal128(38, 9))]), "RECORD", "NULLABLE"),
    ],
)
def test_parquets_types_become_bigquerys(arrow_type: pa.DataType, name: str, mode: str) -> None:
    (field,) = table_schema(pa.schema([("column", arrow_type)]))
    assert (field.field_type, field.mode) == (name, mode)


def test_a_column_without_nulls_by_its_schema_is_required() -> None:
    (field,) = table_schema(pa.schema([pa.field("id", pa.string(), nullable=False)]))
    assert field.mode == "REQUIRED"


@pytest.mark.parametrize(
    "arrow_type",
    [pa.duration("s"), pa.map_(pa.string(), pa.string()), pa.uint64(), pa.decimal128(38, 10)],
)
def test_a_type_without_counterpart_is_named(arrow_type: pa.DataType) -> None:
    with pytest.raises(EmbeddedError, match="Column odd has type"):
        table_schema(pa.schema([("odd", arrow_type)]))


def test_values_come_back_as_they_were(embedded_stack: EmbeddedStack, tmp_path: Path) -> None:
    row = {
        "id": 2**53 + 1,
        "fare": Decimal("429490.200000001"),
        "at": datetime.datetime(2018, 6, 30, 23, 59, 59, 123456, tzinfo=datetime.UTC),
        "flag": None,
        "note": "Straße",
    }
    types = [pa.int64(), pa.decimal128(38, 9), pa.timestamp("us", tz="UTC"), pa.bool_()]
    schema = pa.schema(list(zip(row, [*types, pa.string()], strict=True)))
    embedded_stack.load(TABLE, write(tmp_path / "row.parquet", pa.Table.from_pylist([row], schema)))
    client = tables.connect(embedded_stack.stack.config)
    assert [dict(found) for found in client.list_rows(client.get_table(TABLE))] == [row]


def test_a_replacement_has_its_own_columns_rows_and_time(
    embedded_stack: EmbeddedStack, fares: Path, tmp_path: Path
) -> None:
    client = tables.connect(embedded_stack.stack.config)
    assert embedded_stack.load(TABLE, fares).rows == 3
    before = client.get_table(TABLE)
    other = write(tmp_path / "other.parquet", pa.table({"tip": ["a", "b"]}))
    embedded_stack.load(TABLE, other)
    after = client.get_table(TABLE)
    assert (before.num_rows, after.num_rows) == (3, 2)
    assert [field.name for field in after.schema] == ["tip"]
    assert after.modified > before.modified
    names = [item.table_id for item in client.list_tables("sparkpar-embedded.loading")]
    assert names == ["fares"]


def test_a_table_can_be_empty(embedded_stack: EmbeddedStack, tmp_path: Path) -> None:
    empty = pa.table({"fare": pa.array([], pa.int64())})
    assert embedded_stack.load(TABLE, write(tmp_path / "empty.parquet", empty)).rows == 0


def damaged(folder: Path) -> Path:
    """A file whose footer is good and whose pages are not."""
    content = bytearray((samples.SAMPLES / "tlc_yellow_trips_2017.parquet").read_bytes())
    content[20_000:60_000] = bytes(40_000)
    file = folder / "damaged.parquet"
    file.write_bytes(content)
    return file


def no_parquet(folder: Path) -> Path:
    file = folder / "trips.csv"
    file.write_text("fare\n1\n")
    return file


def cut_off(folder: Path) -> Path:
    content = (samples.SAMPLES / "tlc_yellow_trips_2017.parquet").read_bytes()
    file = folder / "cut.parquet"
    file.write_bytes(content[: len(content) // 2])
    return file


def odd_type(folder: Path) -> Path:
    return write(folder / "odd.parquet", pa.table({"fare": pa.array([1], pa.duration("s"))}))


@pytest.mark.parametrize("make", [damaged, no_parquet, cut_off, odd_type, lambda d: d / "none"])
def test_bad_input_is_explained_and_leaves_the_table_as_it_was(
    embedded_stack: EmbeddedStack,
    fares: Path,
    tmp_path: Path,
    make: "pytest.FixtureRequest",
) -> None:
    embedded_stack.load(TABLE, fares)
    client = tables.connect(embedded_stack.stack.config)
    before = client.get_table(TABLE)
    with pytest.raises(EmbeddedError) as caught:
        embedded_stack.load(TABLE, make(tmp_path))  # type: ignore[operator]
    assert caught.value.cause.endswith(".")
    assert "\n" not in str(caught.value)
    after = client.get_table(TABLE)
    assert (after.num_rows, after.modified) == (before.num_rows, before.modified)


@pytest.mark.parametrize("name", ["fares", "loading.fares", "a.b.c.d", "p..t", "p/x.d.t", ""])
def test_a_bad_table_name_is_explained(
    embedded_stack: EmbeddedStack, fares: Path, name: str
) -> None:
    with pytest.raises(EmbeddedError, match="is not the name of a table"):
        embedded_stack.load(name, fares)


def test_samples_are_loaded_once_and_never_over_a_users_table(
    embedded_stack: EmbeddedStack, fares: Path
) -> None:
    config, said = embedded_stack.stack.config, list[str]()
    samples.load_samples(config, say=said.append)
    client = tables.connect(config)
    assert client.get_table(samples.table_name(2018)).num_rows == 120_000
    assert client.get_table(samples.table_name(2023)).num_rows == 0
    embedded_stack.load(samples.table_name(2018), fares)
    samples.load_samples(config, say=said.append)
    assert client.get_table(samples.table_name(2018)).num_rows == 3
    assert len([line for line in said if "there already" in line]) == 4
    embedded_stack.load(samples.table_name(2018), samples.SAMPLES / "tlc_yellow_trips_2018.parquet")


def test_a_corrupt_sample_is_named(embedded_stack: EmbeddedStack, tmp_path: Path) -> None:
    (tmp_path / "tlc_yellow_trips_2017.parquet").write_bytes(b"PAR1, they said")
    with pytest.raises(EmbeddedError, match=r"tlc_yellow_trips_2017\.parquet is not a Parquet"):
        samples.load_samples(embedded_stack.stack.config, tmp_path)
