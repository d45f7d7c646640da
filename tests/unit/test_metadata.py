"""Schemas, previews and charts for Dagster's UI."""

import base64
from decimal import Decimal

import dagster as dg
import pyarrow as pa
import pytest

from sparkpar_assets.metadata import (
    column_lineage,
    column_schema,
    line_chart,
    preview,
    readable,
    same_columns,
    sql_type,
    table_schema,
    with_sources,
)

DECLARED = column_schema({"a": ("INT64", "first"), "b": ("DECIMAL(38,9)", "second")})


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.int64(), "INT64"),
        (pa.int32(), "INT32"),
        (pa.decimal128(38, 9), "DECIMAL(38,9)"),
        (pa.string(), "STRING"),
        (pa.float64(), "FLOAT64"),
        (pa.bool_(), "BOOL"),
        (pa.date32(), "DATE"),
        (pa.timestamp("us", tz="UTC"), "TIMESTAMP"),
    ],
)
def test_types_have_their_sql_names(kind: pa.DataType, name: str) -> None:
    assert sql_type(kind) == name


def test_a_files_schema_takes_the_declared_descriptions() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.decimal128(38, 9))])
    assert table_schema(schema, DECLARED) == DECLARED


def test_a_schemas_descriptions_name_the_columns_that_each_is_computed_from() -> None:
    lineage = column_lineage(DECLARED, "trips", lambda name: {"a": ("x", "y")}.get(name, ()))
    columns = [*DECLARED.columns, dg.TableColumn("c", "DATE")]
    found = with_sources(dg.TableSchema(columns), lineage)
    assert [column.description for column in found.columns] == [
        "first (from trips: x, y)",
        "second",
        "",
    ]
    assert same_columns(dg.TableSchema(columns), found) == ""


@pytest.mark.parametrize(
    ("columns", "difference"),
    [
        ([("a", "INT64"), ("b", "DECIMAL(38,9)")], ""),
        ([("a", "INT64")], "It lacks b DECIMAL(38,9)."),
        ([("a", "INT64"), ("b", "DECIMAL(38,9)"), ("c", "DATE")], "It has c DATE besides."),
        (
            [("a", "INT64"), ("b", "FLOAT64")],
            "It has b as FLOAT64 where DECIMAL(38,9) is declared.",
        ),
        ([("b", "DECIMAL(38,9)"), ("a", "INT64")], "It has its columns in another order."),
    ],
)
def test_a_schemas_difference_is_a_sentence(
    columns: list[tuple[str, str]], difference: str
) -> None:
    found = dg.TableSchema([dg.TableColumn(name, kind) for name, kind in columns])
    assert same_columns(DECLARED, found) == difference


def test_a_preview_keeps_every_digit_and_at_most_20_rows() -> None:
    rows = pa.table({"a": range(30), "b": pa.array([Decimal("0.1")] * 30, pa.decimal128(38, 9))})
    table = preview(rows)
    assert len(table.records) == 20
    assert table.records[1].data == {"a": 1, "b": "0.10"}
    assert [column.type for column in table.schema.columns] == ["INT64", "DECIMAL(38,9)"]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("429490.200000000", "429490.20"),
        ("0E-9", "0.00"),
        ("-2.5", "-2.50"),
        ("1E+3", "1000.00"),
        ("13.187734304", "13.187734304"),
    ],
)
def test_an_amount_is_shown_with_its_cents_and_all_its_digits(amount: str, text: str) -> None:
    assert readable(Decimal(amount)) == text


def test_a_chart_is_a_png_of_a_width_that_the_ui_shows_whole() -> None:
    chart = line_chart("Fares", "US dollars", {"1 passenger": {2018: 9.5, 2019: 10.0, 2021: 9.0}})
    encoded = str(chart.md_str).removeprefix("![Fares](data:image/png;base64,").removesuffix(")")
    image = base64.b64decode(encoded)
    assert image.startswith(b"\x89PNG")
    width, height = (int.from_bytes(image[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (880, 462)
    assert len(encoded) < 200_000
