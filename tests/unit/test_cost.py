"""What reading costs: widths, prices, sizes and limits, each against a computation by hand."""

from decimal import Decimal

import pytest
from pydantic import ValidationError

from sparkpar_assets.cost import (
    ASSUMED_CONTENT_BYTES,
    COMPUTED,
    RATE_DATE,
    ReadLimit,
    computed,
    describe,
    dry_run,
    estimated,
    parse_size,
    price,
    read_limit,
    size,
    total,
    why_refused,
)
from sparkpar_assets.settings import load_settings

TIB = 1_099_511_627_776
WRONG_SIZE = r"That is no size above 0\. Write it like 20 GB, 1\.5 TiB or 1000000\."


@pytest.mark.parametrize(
    ("types", "width"),
    [
        (["INT64", "NUMERIC", "NUMERIC", "NUMERIC"], 56),
        (["BOOL"], 1),
        (["DATE", "DATETIME", "TIME", "TIMESTAMP", "FLOAT64"], 40),
        (["BIGNUMERIC", "INTERVAL", "RANGE"], 64),
        (["STRING"], 2 + ASSUMED_CONTENT_BYTES),
        (["BYTES", "GEOGRAPHY", "JSON", "INT64 REPEATED"], 4 * (2 + ASSUMED_CONTENT_BYTES)),
        ([], 0),
    ],
)
def test_the_computed_bytes_are_rows_by_bigquerys_widths_of_the_types(
    types: list[str], width: int
) -> None:
    found = computed(36_000_000, types)
    assert (found.rows, found.bytes, found.method) == (36_000_000, 36_000_000 * width, COMPUTED)


@pytest.mark.parametrize("scanned", [0, 1, 2_016_000_000, TIB, 3 * TIB + 7])
def test_the_price_is_that_of_the_bytes_to_the_last_digit(scanned: int) -> None:
    assert estimated(1, scanned).usd == Decimal(scanned) * Decimal("1.1") / Decimal(TIB)
    assert dry_run(scanned).usd == Decimal(scanned) * Decimal("6.25") / Decimal(TIB)


def test_a_sum_of_estimates_says_each_method_once_and_rows_only_if_all_are_known() -> None:
    first, second, view = computed(1, ["INT64"]), estimated(2, 20), dry_run(3 * TIB)
    assert total([first, first]) == computed(2, ["INT64"])
    both = total([first, second])
    assert (both.rows, both.bytes) == (3, 28)
    assert both.method == "computed from row count and column widths and estimated by BigQuery"
    everything = total([second, view])
    assert everything.rows is None
    assert everything.usd == second.usd + Decimal("18.75")


def test_the_line_in_the_log_has_all_figures_in_all_and_by_year_the_method_and_the_rate() -> None:
    first, second = estimated(112_234_626, 6_285_139_056), estimated(2, 56)
    assert describe({"2018": first, "2019": second}) == (
        "To read from BigQuery (2018, 2019): 112,234,628 rows, 6.3 GB, 0.0063 US dollars; "
        f"estimated by BigQuery, at the list price of {RATE_DATE}, 1.1 US dollars per TiB. "
        "2018: 112,234,626 rows, 6.3 GB, 0.0063 US dollars. "
        "2019: 2 rows, 56 bytes, 0.000000000056 US dollars."
    )
    assert describe({"all": dry_run(TIB)}) == (
        "To read from BigQuery (all): 1.1 TB, 6.25 US dollars; estimated by a dry run of the "
        f"view's query, at the list price of {RATE_DATE}, 6.25 US dollars per TiB of a view's "
        "query."
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20 GB", 20_000_000_000),
        ("1.5 TiB", 1_649_267_441_664),
        ("1000", 1000),
        (1000, 1000),
        (" 7kb ", 7000),
        ("3 KiB", 3072),
        ("2 PB", 2_000_000_000_000_000),
        ("5 bytes", 5),
        ("5 B", 5),
        ("0.7 kB", 700),
    ],
)
def test_a_size_is_read_as_it_is_written(text: str | int, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "GB", "20 GBB", "20 Gbit", "5 iB", "-1", "0", "0.4", "1e9", "1.", "1,000", True]
)
def test_what_is_no_size_is_refused_with_a_cause_and_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=WRONG_SIZE):
        parse_size(text)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1_342_177_280, "1.3 GB"),
        (5 * 10**18, "5,000.0 PB"),
    ],
)
def test_a_size_is_shown_in_a_unit_in_which_it_can_be_read(number: int, shown: str) -> None:
    assert size(number) == shown


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("0", "0.00"),
        ("0.00000731", "0.0000073"),
        ("0.0014", "0.0014"),
        ("0.5", "0.50"),
        ("0.996", "1.00"),
        ("1234.5", "1,234.50"),
    ],
)
def test_of_a_price_two_digits_can_be_read_however_small_it_is(usd: str, shown: str) -> None:
    assert price(Decimal(usd)) == f"{shown} US dollars"


def test_the_lower_limit_counts_and_says_where_it_is_from() -> None:
    assert read_limit(None, None, "zone_tips") is None
    assert read_limit(5, None, "zone_tips") == ReadLimit(5, "MAX_BYTES_READ")
    assert read_limit(5, 9, "zone_tips") == ReadLimit(5, "MAX_BYTES_READ")
    assert read_limit(9, 5, "zone_tips") == ReadLimit(5, "max_bytes_read of zone_tips")
    assert read_limit(None, 5, "zone_tips") == ReadLimit(5, "max_bytes_read of zone_tips")


def test_above_the_limit_and_not_at_it_a_read_is_refused_with_both_numbers() -> None:
    limit = ReadLimit(6_720_000, "MAX_BYTES_READ")
    assert why_refused(estimated(120_000, 6_720_000), limit) is None
    assert why_refused(estimated(120_000, 6_720_001), None) is None
    assert why_refused(estimated(120_000, 6_720_001), limit) == (
        "The run would read 6,720,001 bytes (6.7 MB) from BigQuery, "
        "and MAX_BYTES_READ allows 6,720,000 bytes (6.7 MB). "
        "Choose fewer years or columns, or raise the limit."
    )


def test_the_setting_is_a_size_and_a_wrong_one_says_how_to_write_it() -> None:
    settings = load_settings({"MAX_BYTES_READ": "20 GB"})
    assert settings.max_bytes_read == 20_000_000_000
    assert load_settings({}).max_bytes_read is None
    # As a run hands it on to what it starts.
    again = load_settings({k: v for k, v in settings.as_environment().items() if v})
    assert again == settings
    with pytest.raises(ValidationError, match=WRONG_SIZE):
        load_settings({"MAX_BYTES_READ": "much"})
