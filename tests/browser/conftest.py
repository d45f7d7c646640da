"""A browser, and Dagster's web interface as ``./run.sh ui`` starts it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, expect, sync_playwright

from sparkpar_assets.embedded import samples
from sparkpar_assets.embedded.server import http_status
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.project import PROJECT_ROOT
from tests.browser.web_interface import VIEWPORT, WebInterface
from tests.integration.workbench import FARES, wait_until

CHROMIUM_VARIABLE = "CHROMIUM"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = PROJECT_ROOT / "docs" / "images"
PATIENCE_MS = 60_000
"""More than a page takes here, even where other work has the machine."""
STOPPED_WITHIN_SECONDS = 60
FAILED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="retake the READMEs' pictures")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test's fixtures know whether it failed."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def chromium() -> str:
    """The system's Chromium: Playwright's own would be a download past the lock file."""
    chosen = os.environ.get(CHROMIUM_VARIABLE)
    found = next(filter(None, map(shutil.which, [chosen] if chosen else CHROMIUMS)), None)
    if found is None:
        reason = (
            f"no Chromium here ({chosen or ', '.join(CHROMIUMS)}): install it (Debian: apt-get "
            "install chromium fonts-dejavu-core; without any font it crashes), or name a Chromium "
            f"or Chrome by {CHROMIUM_VARIABLE}"
        )
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, without a window."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(
            executable_path=chromium,
            chromium_sandbox=os.geteuid() != 0,  # it refuses to run as root
            # Where there is no GPU, its emulation takes a core from the runs that are watched.
            args=["--disable-gpu"],
        )


@pytest.fixture(scope="session")
def trips(browser: Browser, embedded_stack: EmbeddedStack) -> EmbeddedStack:  # noqa: ARG001 — a missing browser is told before the stack is started
    """The stack with the sample trips, of which one year is published."""
    samples.load_samples(embedded_stack.stack.config)
    command = [sys.executable, "-m", "dagster", "asset", "materialize"]
    command += ["-m", "sparkpar_assets.definitions", "--select", FARES, "--partition", "2017"]
    subprocess.run(command, cwd=PROJECT_ROOT, env=embedded_stack.env, check=True)
    return embedded_stack


@pytest.fixture(scope="session")
def dagster_url(trips: EmbeddedStack) -> Iterator[str]:
    """Where Dagster's web interface is; its daemon runs as well."""
    command = [sys.executable, "-m", "sparkpar_assets.embedded.ui"]
    # Schedules and sensors are off, whatever the user's own environment says.
    env = trips.env | {"SPARKPAR_AUTOMATION": "off"}
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=env, start_new_session=True)
    try:
        wait_until(
            lambda: (
                process.poll() is not None or http_status(trips.ports["dagster"], "/server_info")
            ),
            "Dagster's web interface",
        )
        assert process.poll() is None
        yield trips.stack.config.url("dagster")
    finally:
        process.terminate()
        process.wait(STOPPED_WITHIN_SECONDS)


@pytest.fixture(scope="session")
def evidence(embedded_stack: EmbeddedStack) -> Path:
    """The folder of what a failed test saw; empty when the session begins."""
    folder = embedded_stack.state / "browser"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


@pytest.fixture
def ui(
    browser: Browser, dagster_url: str, evidence: Path, request: pytest.FixtureRequest
) -> Iterator[WebInterface]:
    """Dagster's web interface, as one who has never seen it opens it."""
    context = browser.new_context(viewport=VIEWPORT, locale="en-US", timezone_id="UTC")
    context.set_default_timeout(PATIENCE_MS)
    pictures = PICTURES if request.config.getoption("--screenshots") else None
    with recorded(context, evidence / request.node.name, request.node):
        yield WebInterface(context.new_page(), dagster_url, pictures)


@contextmanager
def recorded(context: BrowserContext, folder: Path, test: pytest.Item) -> Iterator[None]:
    """Keep what the browser showed, if the test fails, and say where."""
    context.tracing.start(snapshots=True)  # a film would take as much of the machine as the runs
    yield
    if test.stash.get(FAILED, False):
        for page in context.pages:
            page.screenshot(path=folder / "page.png", full_page=True)
        context.tracing.stop(path=folder / "trace.zip")
        print(f"What the browser showed: {folder}; playwright show-trace trace.zip replays it")  # noqa: T201
    context.close()
