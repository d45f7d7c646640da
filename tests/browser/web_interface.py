"""Dagster's web interface, used by what a person sees on its pages."""

import re
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import FloatRect, Locator, Page, ViewportSize, expect

from sparkpar_assets.partitions import TAXI_YEARS
from tests.integration.workbench import wait_until

VIEWPORT: ViewportSize = {"width": 1600, "height": 860}
"""Wide enough for all columns of a preview."""
RUN_MS = 180_000
"""More than any run takes here, even where other work has the machine."""
CENTRED_MS = 1_000
"""How long the graph takes to glide to where it is asked for, amply."""
ENDED = re.compile(r"^(Success|Succeeded|Failure|Failed|Canceled|Completed)$")
NODES = "foreignObject:has([class*=AssetNode_assetName])"
ARROW_HEAD = 10
"""How far from its node an arrow may end, in units of the drawing, whose nodes are 60 apart."""

Box = tuple[float, float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True)
class WebInterface:
    """One tab of a browser.

    Attributes:
        page: The tab.
        url: Where the web interface is.
        pictures: The folder that pictures go to; without one, none is taken.
    """

    page: Page
    url: str
    pictures: Path | None

    def open(self, path: str) -> None:
        """Open a page."""
        self.page.goto(self.url + path)

    def open_year(self, asset: str, year: int) -> None:
        """Open an asset, and the partition of a year in it."""
        self.open(f"/assets/{asset}")
        self.page.get_by_role("tab", name="Partitions").click()
        self.page.get_by_title(str(year), exact=True).click()
        expect(self.page).to_have_url(re.compile(f"partition={year}"))

    def materialize(self, asset: str, *years: int) -> None:
        """Press Materialize in an asset's page, choose years in the bar, launch; see it succeed.

        Args:
            asset: The asset.
            years: None of an asset without partitions; one; or the first and the last of several.
        """
        self.open(f"/assets/{asset}")
        self.page.get_by_role("button", name="Materialize").click()
        if years:
            self._choose(years)
            launch = "Launch 1 run" if len(years) == 1 else "Launch backfill"
            self.page.get_by_role("dialog").get_by_role("button", name=launch).click()
        self.follow_launch()

    def follow_launch(self) -> None:
        """Open what was just launched from the message that says so, and see it succeed."""
        self.page.get_by_text("View", exact=True).click()
        self.page.wait_for_url("**/runs/**")
        self.see_success()

    def see_success(self) -> None:
        """Wait on the page of a run or backfill until it has ended, which has to be well."""
        status = self.page.locator(".BaseTag").filter(has_text=ENDED)
        expect(status).to_be_visible(timeout=RUN_MS)
        expect(status).to_have_text(re.compile("^Succe"))

    def metadata(self, key: str) -> Locator:
        """The row of a key in the table of metadata that is shown."""
        name = self.page.get_by_role("cell", name=key, exact=True)
        return self.page.get_by_role("row").filter(has=name)

    def table(self, key: str) -> list[dict[str, str]]:
        """The rows of a table in the metadata that is shown."""
        table = self.metadata(key).get_by_role("table")
        names, *rows = table.evaluate(
            "table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText.trim()))"
        )
        return [dict(zip(names, row, strict=True)) for row in rows]

    def open_lineage(self) -> None:
        """Open the graph of all assets, with the group open: it is shut where there are others."""
        self.open("/asset-groups?expanded=global@global:taxi_fares")

    def node(self, asset: str) -> Locator:
        """An asset in the graph that is shown."""
        return self.page.locator("[class*=AssetNode_assetNodeBox]").filter(
            has=self.page.get_by_text(asset, exact=True)
        )

    def see_whole_graph(self, *assets: str) -> None:
        """See each of these assets in the graph, which a double click beside them centres.

        The graph is drawn anew when its room or its contents change, and then forgets the click.
        """
        x, y = VIEWPORT["width"] / 2, 400

        def is_seen() -> bool:
            self.page.mouse.dblclick(x, y)
            self.page.wait_for_timeout(CENTRED_MS)
            # What is far outside is not drawn at all.
            boxes = [node.bounding_box() for asset in assets for node in self.node(asset).all()]
            return len(boxes) == len(assets) and all(map(self._is_in_view, boxes))

        wait_until(is_seen, f"a graph with {', '.join(assets)} in view")

    def arrows(self) -> set[tuple[str, str]]:
        """The arrows of the graph that is shown, by the assets at which they begin and end."""
        nodes: list[tuple[str, Box]] = self.page.locator(NODES).evaluate_all(
            """nodes => nodes.map(node => [
                node.querySelector("[class*=AssetNode_assetName]").textContent,
                ["x", "y", "width", "height"].map(side => Number(node.getAttribute(side))),
            ])"""
        )
        lines: list[tuple[Point, Point]] = self.page.locator("path[marker-end]").evaluate_all(
            """lines => lines.map(line => [0, line.getTotalLength()].map(at => {
                const point = line.getPointAtLength(at);
                return [point.x, point.y];
            }))"""
        )
        return {
            (start, end)
            for first, last in lines
            for start, begins in nodes
            for end, ends in nodes
            if _touches(first, begins) and _touches(last, ends)
        }

    def fit(self, height: int) -> None:
        """Give a page the navigation's room, and as much height as it needs."""
        self.page.set_viewport_size({**VIEWPORT, "height": height})
        self.page.get_by_text("Hide navigation").click()

    def picture(self, name: str) -> None:
        """Take a picture of what is shown for the READMEs, if any are to be taken."""
        if self.pictures:
            self.page.mouse.move(0, 0)  # nothing is lit up by it
            self.page.screenshot(path=self.pictures / f"{name}.png", animations="disabled")

    def _is_in_view(self, box: FloatRect | None) -> bool:
        size = self.page.viewport_size
        assert size
        return (
            box is not None
            and box["x"] >= 0
            and box["y"] >= 0
            and box["x"] + box["width"] <= size["width"]
            and box["y"] + box["height"] <= size["height"]
        )

    def _choose(self, years: tuple[int, ...]) -> None:
        """Choose years in the bar of the dialog: by a click, or drawn over with the mouse."""
        dialog = self.page.get_by_role("dialog")
        bar = dialog.locator("[class*=PartitionStatusBar_partitionSpansContainer]")
        box = bar.bounding_box()
        assert box
        keys = TAXI_YEARS.get_partition_keys()
        width = box["width"] / len(keys)
        middles = [box["x"] + width * (keys.index(str(year)) + 0.5) for year in years]
        y = box["y"] + box["height"] / 2
        self.page.mouse.move(middles[0], y)
        self.page.mouse.down()
        self.page.mouse.move(middles[-1], y, steps=5)
        self.page.mouse.up()
        chosen = f"[{years[0]}...{years[-1]}]" if len(years) > 1 else str(years[0])
        expect(dialog.get_by_role("textbox")).to_have_value(chosen)


def _touches(point: Point, box: Box) -> bool:
    x, y, width, height = box
    return (
        x - ARROW_HEAD <= point[0] <= x + width + ARROW_HEAD
        and y - ARROW_HEAD <= point[1] <= y + height + ARROW_HEAD
    )
