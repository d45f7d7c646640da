"""What reading BigQuery costs: the widths of columns, prices, limits, and how they are written."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

USD_PER_TIB = Decimal("1.1")
"""List price of the BigQuery Storage Read API in US regions, US dollars per TiB (2**40 bytes).

Source: Google's page "BigQuery pricing", section "Data extraction pricing", row "Streaming reads
(BigQuery Storage Read API)". Other regions cost more. Each billing account reads the first 300 TiB
of a month free; that is not subtracted here, since nothing here knows what else an account reads.
"""
RATE_DATE = date(2026, 11, 23)
"""The day for which ``USD_PER_TIB`` was looked up."""

WIDTHS = {
    "BIGNUMERIC": 32,
    "BOOL": 1,
    "DATE": 8,
    "DATETIME": 8,
    "FLOAT64": 8,
    "INT64": 8,
    "INTERVAL": 16,
    "NUMERIC": 16,
    "RANGE": 16,
    "TIME": 8,
    "TIMESTAMP": 8,
}
"""Logical bytes of one value, by type: BigQuery's reference, "Data types", "Data type sizes".

A NULL has none, so that a computed estimate is the most that can be billed for these types.
"""
LENGTH_BYTES = 2
"""What a STRING or BYTES value takes besides its content; from the same table."""
ASSUMED_CONTENT_BYTES = 30
"""Content of a value whose type has no fixed width: an assumption, as no free call tells it. Codes
and names are mostly shorter, so that the estimate errs on the high side."""

BY_BIGQUERY = "estimated by BigQuery"
COMPUTED = "computed from row count and column widths"

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgtp]?)(i?)b|bytes)?", re.IGNORECASE)


@dataclass(frozen=True)
class ReadEstimate:
    """What a read of one table, or of several, is expected to be billed for.

    Attributes:
        rows: Rows that are scanned.
        bytes: Logical bytes of the selected columns that are scanned.
        method: ``BY_BIGQUERY`` or ``COMPUTED``; of several tables perhaps both.
    """

    rows: int
    bytes: int
    method: str

    @property
    def usd(self) -> Decimal:
        """The price at ``USD_PER_TIB``, US dollars, not rounded."""
        return self.bytes * USD_PER_TIB / 2**40

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {size(self.bytes)}, {price(self.usd)}"


@dataclass(frozen=True)
class ReadLimit:
    """The most bytes that an asset may read in one run, and the name of what says so."""

    bytes: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} allows {_exact(self.bytes)}"


def computed(rows: int, types: Iterable[str]) -> ReadEstimate:
    """The estimate where a server gives none: rows by the widths of their columns.

    Args:
        rows: Rows of the table. A filter on them is no help: what it leaves out is scanned, too.
        types: GoogleSQL types of the selected columns.
    """
    width = sum(WIDTHS.get(kind, LENGTH_BYTES + ASSUMED_CONTENT_BYTES) for kind in types)
    return ReadEstimate(rows, rows * width, COMPUTED)


def total(estimates: Iterable[ReadEstimate]) -> ReadEstimate:
    """The sum of one or more estimates."""
    found = list(estimates)
    return ReadEstimate(
        sum(one.rows for one in found),
        sum(one.bytes for one in found),
        " and ".join(dict.fromkeys(one.method for one in found)),
    )


def describe(estimates: Mapping[str, ReadEstimate]) -> str:
    """One line that says what a run is going to read, in all and by year."""
    whole = total(estimates.values())
    parts = ". ".join(f"{year}: {one}" for year, one in estimates.items())
    return f"To read from BigQuery: {whole}; {whole.method}, {rate()}. {parts}."


def rate() -> str:
    """The price by which all others are computed, and its date."""
    return f"at the list price of {RATE_DATE}, {USD_PER_TIB} US dollars per TiB"


def read_limit(setting: int | None, own: int | None, asset: str) -> ReadLimit | None:
    """The lower of two limits, in bytes; None if there is none.

    Args:
        setting: ``MAX_BYTES_READ``.
        own: The asset's ``max_bytes_read``.
        asset: The asset's name.
    """
    limits = [
        ReadLimit(limit, name)
        for limit, name in ((setting, "MAX_BYTES_READ"), (own, f"max_bytes_read of {asset}"))
        if limit is not None
    ]
    return min(limits, key=lambda limit: limit.bytes, default=None)


def why_refused(estimate: ReadEstimate, limit: ReadLimit | None) -> str | None:
    """A sentence of cause and one of remedy if an estimate is above the limit; None if not."""
    if limit is None or estimate.bytes <= limit.bytes:
        return None
    return (
        f"The run would read {_exact(estimate.bytes)} from BigQuery, and {limit}. "
        "Choose fewer years or columns, or raise the limit."
    )


def parse_size(text: str | int) -> int:
    """The bytes that a size such as ``20 GB`` (10**9), ``1.5 TiB`` (2**40) or ``1000`` means.

    Raises:
        ValueError: It is no size, or less than a byte: a sentence of cause, one of remedy.
    """
    found = SIZE.fullmatch(str(text).strip())
    number, prefix, binary = found.groups(default="") if found else ("0", "", "")
    power = " kmgtp".index(prefix.lower() or " ")
    size = int(Decimal(number) * (1024 if binary else 1000) ** power)
    if not size or (binary and not prefix):
        # Without the text: where a setting is wrong, that may be a secret in the wrong place.
        raise ValueError("That is no size above 0. Write it like 20 GB, 1.5 TiB or 1000000.")
    return size


def size(number: int) -> str:
    """Bytes in a unit in which they can be read: 999 bytes, 1.3 GB (10**9)."""
    if number < 1000:
        return f"{number} bytes"
    value = Decimal(number)
    for unit in UNITS[1:]:  # noqa: B007  # the last one that was tried
        value /= 1000
        if value < Decimal("999.95"):
            break
    return f"{value:,.1f} {unit}"


def price(usd: Decimal) -> str:
    """A price of which two digits can be read however small it is: 0.0014 US dollars."""
    digits = 2 if not usd or usd >= 1 else 1 - usd.adjusted()
    return f"{usd:,.{digits}f} US dollars"


def _exact(number: int) -> str:
    return f"{number:,} bytes" + (f" ({size(number)})" if number >= 1000 else "")
