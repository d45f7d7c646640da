"""A day with Dagster's web interface, by clicking; figures that it shows are DuckDB's.

The tests share one stack, on which 2017 is published, and go on from each other: run them all.
"""

from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
from playwright.sync_api import expect

from sparkpar_assets.embedded.samples import SAMPLES, table_name
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.metadata import PREVIEW_ROWS
from tests.browser.web_interface import RUN_MS, WebInterface
from tests.expected import expected_exclusions, expected_fares, expected_trends
from tests.integration.workbench import FARES

TRENDS = "fare_trends"
TRIPS = "yellow_taxi_trips"
SENSOR = "changed_taxi_years"


def file_of(year: int) -> Path:
    return SAMPLES / f"tlc_yellow_trips_{year}.parquet"


def preview(ui: WebInterface) -> list[dict[str, Decimal | None]]:
    """The preview that is shown, all of whose cells are numbers or empty."""
    return [
        {name: Decimal(cell) if cell else None for name, cell in row.items()}
        for row in ui.table("preview")
    ]


def published(ui: WebInterface, year: int) -> list[dict[str, Decimal | None]]:
    """What a year's page shows of its published rows."""
    ui.open_year(FARES, year)
    expect(ui.metadata("dagster/uri")).to_contain_text(f"/{FARES}/year={year}/data.parquet")
    return preview(ui)


def test_a_missing_year_is_materialized_by_a_click(ui: WebInterface) -> None:
    ui.open_year(FARES, 2021)
    expect(ui.page.get_by_text("No metadata entries")).to_be_visible()
    ui.materialize(FARES, 2021)
    assert published(ui, 2021) == expected_fares(file_of(2021))
    expect(ui.page.get_by_text("Materialized", exact=True)).to_be_visible()


def test_two_years_are_backfilled_by_drawing_over_them(ui: WebInterface) -> None:
    ui.materialize(FARES, 2018, 2019)
    expect(ui.page.get_by_text("100% completed")).to_be_visible()
    for year in (2018, 2019):
        assert published(ui, year) == expected_fares(file_of(year))


def test_an_asset_shows_its_columns(ui: WebInterface) -> None:
    names = list(expected_fares(file_of(2018))[0])
    ui.open(f"/assets/{FARES}")
    rows = ui.page.get_by_role("table").filter(has_text="Column name").get_by_role("row")
    expect(rows).to_have_count(1 + len(names))
    for name, row in zip(names, rows.all()[1:], strict=True):
        kind = "INT64" if name in ("passenger_count", "trips") else "DECIMAL(38,9)"
        expect(row.get_by_role("cell").nth(0)).to_have_text(name)
        expect(row.get_by_role("cell").nth(1)).to_have_text(kind)


def test_a_year_shows_what_it_was_made_from(ui: WebInterface) -> None:
    file = file_of(2018)
    fares = expected_fares(file)
    assert published(ui, 2018) == fares
    for key, value in {
        "dagster/partition_row_count": len(fares),
        "trips": sum(row["trips"] for row in fares),
        "rows_read": pq.read_metadata(file).num_rows,
        "excluded_trips": sum(expected_exclusions(file).values()),
    }.items():
        shown = ui.metadata(key).get_by_role("cell", name=str(value), exact=True)
        expect(shown).to_be_visible()
    ui.fit(height=1230)
    rows = ui.metadata("preview").get_by_role("table")
    rows.scroll_into_view_if_needed()
    expect(rows).to_be_in_viewport(ratio=1)
    ui.picture("asset")


def test_the_trends_show_their_chart(ui: WebInterface) -> None:
    ui.materialize(TRENDS)
    ui.open(f"/assets/{TRENDS}")
    fares = {year: expected_fares(file_of(year)) for year in (2017, 2018, 2019, 2021)}
    assert preview(ui) == expected_trends(fares)[:PREVIEW_ROWS]
    ui.fit(height=760)
    ui.metadata("mean_fares").get_by_text("[Show Markdown]").click()
    chart = ui.page.get_by_role("dialog").get_by_role("img", name="Mean fare by passenger count")
    expect(chart).to_be_in_viewport(ratio=1)
    assert chart.evaluate("image => image.complete && image.naturalWidth") > 0
    ui.picture("chart")


def test_the_lineage_goes_from_bigquery_to_the_trends(ui: WebInterface) -> None:
    ui.open_lineage()
    ui.node(TRIPS).click()
    ui.page.get_by_role("button", name="Observe selected").click()
    ui.follow_launch()

    ui.open_lineage()
    ui.fit(height=480)
    ui.page.get_by_role("button", name="panel_show_right").click()
    ui.see_whole_graph(TRIPS, FARES, TRENDS)
    arrows = ui.arrows()
    assert {(TRIPS, FARES), (FARES, TRENDS)} <= arrows
    assert (TRIPS, TRENDS) not in arrows
    expect(ui.node(TRIPS)).to_contain_text("Observed")
    expect(ui.node(TRENDS)).to_contain_text("Materialized")
    ui.picture("lineage")


def test_a_changed_table_becomes_a_run_once_the_sensor_is_on(
    ui: WebInterface, trips: EmbeddedStack
) -> None:
    ui.open("/automation")
    ui.page.get_by_role("link", name=SENSOR).click()
    switch = ui.page.get_by_role("row", name="Running")
    expect(switch.get_by_role("checkbox")).not_to_be_checked()
    switch.locator("label").click()
    expect(switch.get_by_role("checkbox")).to_be_checked()
    trips.load(table_name(2021), file_of(2017))
    ui.page.get_by_role("button", name="Runs").click()
    ui.page.locator("a[href^='/runs/']").first.click(timeout=RUN_MS)
    ui.see_success()
    assert published(ui, 2021) == expected_fares(file_of(2017))
