"""Random tables of trips."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from random import Random
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

SCHEMA = pa.schema(
    {
        "passenger_count": pa.int64(),
        "fare_amount": pa.decimal128(38, 9),
        "tip_amount": pa.decimal128(38, 9),
        "trip_distance": pa.decimal128(38, 9),
        "pickup_location_id": pa.string(),
        "pickup_datetime": pa.timestamp("us", "UTC"),
        "speed": pa.float64(),
        "is_shared": pa.bool_(),
    }
)
LARGEST = 10**38 - 1
"""The digits of the largest NUMERIC."""
AMOUNTS = {
    "cents": st.integers(-500, 20_000).map(lambda cents: cents * 10**7),
    "small": st.integers(-(10**10), 10**10),
    "around 2 million": st.sampled_from(
        [1, -(10**9), *(sign * (2 * 10**15 + one) for sign in (1, -1) for one in (-1, 0, 1))]
    ),
    "large": st.integers(-(10**22), 10**22),
    "at the limits": st.sampled_from(
        [10**23 - 1, -(10**23) + 1, 10**23, 10**29, -(10**36), 10**37 // 3, LARGEST, -LARGEST]
    ),
    "of any size": st.integers(-LARGEST, LARGEST),
}
"""Amounts by their size: in units of the 9th digit."""
SIZES = (
    *("cents",) * 4,
    *("small",) * 4,
    *("around 2 million",) * 2,
    *("large",) * 2,
    "at the limits",
    "of any size",
)
ROWS = (60, 20, 40, 7, 30, 3, 2, 1, 0)
COUNTS = {
    "few": st.sampled_from([0, 1, 2, 3, 6]),
    "many": st.integers(-50, 50),
    "of any size": st.integers(-(2**63), 2**63 - 1),
}
ZONES = st.sampled_from(["", "1", "10", "2", "a", "A", " a", "Å", "东", "🚕", "null", "'", "%_"])
INSTANTS = st.sampled_from(
    [
        datetime(2016, 2, 29, 23, 59, 59, 999_999),
        datetime(2017, 12, 31),
        datetime(2018, 1, 1),
        datetime(2018, 3, 25, 2, 30),
        datetime(1969, 12, 31, 23) + timedelta(microseconds=1),
    ]
)
SPEEDS = st.one_of(
    st.floats(-1e100, 1e100, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 0.1, 12.5, math.nan, math.inf, -math.inf]),
)
NULLS: list[list[None]] = [[], [], [None], [None, None, None]]
"""How many of a column's values are NULL."""


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table of up to 60 trips.

    Its columns have few different values each, and so it has groups and rows that are alike. Which
    of them meet in a row is drawn as one number: hypothesis could not draw thousands of cells.
    """
    size = draw(st.sampled_from(SIZES))
    counts = COUNTS[draw(st.sampled_from(["few", "few", "many", "of any size"]))]
    palettes = {
        "passenger_count": counts,
        "fare_amount": st.one_of(AMOUNTS[size].map(abs), AMOUNTS[size]),
        "tip_amount": AMOUNTS[size],
        "trip_distance": AMOUNTS[size],
        "pickup_location_id": ZONES,
        "pickup_datetime": INSTANTS,
        "speed": SPEEDS,
        "is_shared": st.booleans(),
    }
    values = {name: _palette(draw, palette) for name, palette in palettes.items()}
    rows, chance = draw(st.sampled_from(ROWS)), Random(draw(st.integers(0, 2**32)))  # noqa: S311
    return pa.table(
        {
            name: _array([chance.choice(values[name]) for _ in range(rows)], SCHEMA.field(name))
            for name in SCHEMA.names
        },
        schema=SCHEMA,
    )


def _palette(draw: st.DrawFn, palette: st.SearchStrategy[Any]) -> Sequence[Any]:
    """The values of one column: mostly several, with NULL among them or not, or NULL alone."""
    fewest = draw(st.sampled_from([3, 2, 2, 1]))
    values = draw(st.lists(palette, min_size=fewest, max_size=5))
    return values + draw(st.sampled_from(NULLS)) if draw(st.integers(0, 12)) < 12 else [None]


def _array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_decimal(field.type):
        with localcontext(prec=38):
            values = [one if one is None else Decimal(one).scaleb(-9) for one in values]
    return pa.array(values, field.type)


def written_out(table: pa.Table) -> str:
    """A table as Python that makes it anew."""
    return (
        (
            "import datetime; from decimal import Decimal; from math import inf, nan\n"
            "from tests.faults.exactness.tables import SCHEMA, pa\n"
            f"table = pa.Table.from_pylist({table.to_pylist()!r}, schema=SCHEMA)"
        )
        .replace("<UTC>", "datetime.UTC")
        .replace("tzinfo=UTC", "tzinfo=datetime.UTC")
    )
