"""What reading BigQuery costs: the widths of columns, prices, limits, and how they are written."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

USD_PER_TIB_READ = Decimal("1.1")
"""List price of the BigQuery Storage Read API in US regions, US dollars per TiB (2**40 bytes).

Source: Google's page "BigQuery pricing", section "Data extraction pricing", row "Streaming reads
(BigQuery Storage Read API)". Other regions cost more. Each billing account reads the first 300 TiB
of a month free; that is not subtracted here, since nothing here knows what else an account reads.
"""
USD_PER_TIB_QUERIED = Decimal("6.25")
"""List price of a query in US regions, US dollars per TiB: of a view, whose rows a query makes.

Source: the same page, section "On-demand compute pricing"; the first TiB of a month is free.
"""
RATE_DATE = date(2026, 11, 23)
"""The day for which these prices were looked up."""

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
BY_DRY_RUN = "estimated by a dry run of the view's query"

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgtp]?)(i?)b|bytes)?", re.IGNORECASE)


@dataclass(frozen=True)
class ReadEstimate:
    """What a read of one table, or of several, is expected to be billed for.

    Attributes:
        rows: Rows that are scanned; None where that is not known, as with a view.
        bytes: Logical bytes that are scanned.
        usd: Their price, US dollars, not rounded.
        method: ``BY_BIGQUERY``, ``COMPUTED`` or ``BY_DRY_RUN``; of several tables perhaps more.
    """

    rows: int | None
    bytes: int
    usd: Decimal
    method: str

    def __str__(self) -> str:
        rows = "" if self.rows is None else f"{self.rows:,} rows, "
        return f"{rows}{size(self.bytes)}, {price(self.usd)}"


@dataclass(frozen=True)
class ReadLimit:
    """The most bytes that an asset may read in one run, and the name of what says so."""

    bytes: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} allows {_exact(self.bytes)}"


def estimated(rows: int, scanned: int) -> ReadEstimate:
    """The estimate that BigQuery itself gives of rows and bytes that a read will scan."""
    return ReadEstimate(rows, scanned, _usd(scanned, USD_PER_TIB_READ), BY_BIGQUERY)


def computed(rows: int, types: Iterable[str]) -> ReadEstimate:
    """The estimate where a server gives none: rows by the widths of their columns.

    Args:
        rows: Rows of the table. A filter on them is no help: what it leaves out is scanned, too.
        types: GoogleSQL types of the selected columns.
    """
    width = sum(WIDTHS.get(kind, LENGTH_BYTES + ASSUMED_CONTENT_BYTES) for kind in types)
    return ReadEstimate(rows, rows * width, _usd(rows * width, USD_PER_TIB_READ), COMPUTED)


def dry_run(processed: int) -> ReadEstimate:
    """The estimate of a view's query, of which BigQuery tells the bytes it will process."""
    return ReadEstimate(None, processed, _usd(processed, USD_PER_TIB_QUERIED), BY_DRY_RUN)


def total(estimates: Iterable[ReadEstimate]) -> ReadEstimate:
    """The sum of one or more estimates."""
    found = list(estimates)
    rows = [one.rows for one in found if one.rows is not None]
    return ReadEstimate(
        sum(rows) if len(rows) == len(found) else None,
        sum(one.bytes for one in found),
        sum((one.usd for one in found), Decimal(0)),
        " and ".join(dict.fromkeys(one.method for one in found)),
    )


def describe(estimates: Mapping[str, ReadEstimate]) -> str:
    """One line that says what a run is going to read, in all and, of several years, by year."""
    whole = total(estimates.values())
    years = "".join(f" {year}: {one}." for year, one in estimates.items() if len(estimates) > 1)
    return (
        f"To read from BigQuery ({', '.join(estimates)}): {whole}; {whole.method}, {rates(whole)}."
        f"{years}"
    )


def rates(estimate: ReadEstimate) -> str:
    """The prices by which an estimate was reckoned, with their date."""
    parts = [f"{USD_PER_TIB_READ} US dollars per TiB"] if estimate.method != BY_DRY_RUN else []
    if BY_DRY_RUN in estimate.method:
        parts.append(f"{USD_PER_TIB_QUERIED} US dollars per TiB of a view's query")
    return f"at the list price of {RATE_DATE}, {' and '.join(parts)}"


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


def rounded(usd: Decimal) -> Decimal:
    """A price in whole cents; below a dollar, however small it is, with two digits: 0.0014."""
    return round(usd, 2 if not usd or usd >= 1 else 1 - usd.adjusted())


def price(usd: Decimal) -> str:
    """A rounded price with its currency: 0.0014 US dollars."""
    return f"{rounded(usd):,f} US dollars"


def _exact(number: int) -> str:
    return f"{number:,} bytes" + (f" ({size(number)})" if number >= 1000 else "")


def _usd(scanned: int, usd_per_tib: Decimal) -> Decimal:
    return scanned * usd_per_tib / 2**40
