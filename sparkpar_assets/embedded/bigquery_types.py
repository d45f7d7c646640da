"""BigQuery's types for Parquet's.

As BigQuery's own loader maps them:
https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-parquet#type_conversions
"""

import pyarrow as pa
from google.cloud.bigquery import SchemaField

from sparkpar_assets.embedded.errors import EmbeddedError


def table_schema(schema: pa.Schema) -> list[SchemaField]:
    """The BigQuery schema of a Parquet file's columns.

    Raises:
        EmbeddedError: A column has a type that BigQuery has not, or that the emulator cannot keep.
    """
    return [_field(field) for field in schema]


def _field(field: pa.Field) -> SchemaField:
    kind, mode = field.type, "NULLABLE" if field.nullable else "REQUIRED"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, mode = kind.value_type, "REPEATED"
    if pa.types.is_struct(kind):
        fields = [_field(kind.field(index)) for index in range(kind.num_fields)]
        return SchemaField(field.name, "RECORD", mode=mode, fields=fields)
    return SchemaField(field.name, _type_name(field.name, kind), mode=mode)


def _type_name(column: str, kind: pa.DataType) -> str:
    """The name of a type, as BigQuery's REST API writes it: INTEGER where SQL says INT64."""
    if pa.types.is_decimal(kind):
        return _decimal_name(column, kind)
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    if pa.types.is_dictionary(kind):
        return _type_name(column, kind.value_type)
    if pa.types.is_uint64(kind):  # half of its values are beyond INT64
        raise _unsupported(column, kind)
    for is_kind, name in (
        (pa.types.is_integer, "INTEGER"),
        (pa.types.is_floating, "FLOAT"),
        (pa.types.is_boolean, "BOOLEAN"),
        (pa.types.is_string, "STRING"),
        (pa.types.is_large_string, "STRING"),
        (pa.types.is_binary, "BYTES"),
        (pa.types.is_large_binary, "BYTES"),
        (pa.types.is_fixed_size_binary, "BYTES"),
        (pa.types.is_date, "DATE"),
        (pa.types.is_time, "TIME"),
    ):
        if is_kind(kind):
            return name
    raise _unsupported(column, kind)


def _decimal_name(column: str, kind: pa.DataType) -> str:
    """NUMERIC has 29 digits before the point and 9 after it.

    BIGNUMERIC has 38 and 38, but the emulator's DuckDB keeps 38 digits in all, and would make a
    double of it: better refused than changed.
    """
    if kind.scale <= 9 and kind.precision - kind.scale <= 29:
        return "NUMERIC"
    raise _unsupported(column, kind)


def _unsupported(column: str, kind: pa.DataType) -> EmbeddedError:
    return EmbeddedError(
        f"Column {column} has type {kind}, for which the embedded BigQuery has none.",
        "Cast it to another type in the Parquet file.",
    )
