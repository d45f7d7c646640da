"""What the tests of faults need: a stack, a trial to report on, and the table at the end."""

import re
from collections.abc import Generator, Iterator

import pytest

from sparkpar_assets.embedded.testing import EmbeddedStack
from tests.faults.report import Trial, table
from tests.integration.workbench import Workbench, new_workbench

TRIAL = pytest.StashKey[Trial]()
PROPERTY = "trial"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=1, help="how often each fault is made")
    parser.addoption(
        "--examples", type=int, help="search for inexact results in so many random tables"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Faults())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make each fault as often as ``--times`` says."""
    times = metafunc.config.getoption("--times")
    if times > 1 and "trial" in metafunc.fixturenames:
        metafunc.parametrize("_attempt", range(1, times + 1), ids="try{}".format)


@pytest.fixture
def _attempt() -> int:
    return 1


@pytest.fixture
def trial(request: pytest.FixtureRequest, _attempt: int) -> Trial:
    """What the test reports on; the marker ``fault`` names it."""
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "Name the fault: @pytest.mark.fault('a worker is killed')"
    trial = Trial(marker.args[0])
    request.node.stash[TRIAL] = trial
    return trial


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send the trial along with the test's report, which may cross to another process."""
    report = yield
    trial = item.stash.get(TRIAL, None)
    if trial is not None and (report.when == "call" or report.failed):
        trial.passed = report.passed
        report.user_properties.append((PROPERTY, trial.as_sent()))
    return report


class Faults:
    """Collects the trials where pytest reports, and shows their table in the end."""

    def __init__(self) -> None:
        self._trials: dict[str, Trial] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take over a trial; a test whose teardown fails is reported a second time."""
        for name, sent in report.user_properties:
            if name == PROPERTY:
                self._trials[report.nodeid] = Trial(**sent)  # type: ignore[arg-type]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table."""
        if self._trials:
            terminalreporter.section("faults")
            terminalreporter.write_line(table(self._trials.values()))


@pytest.fixture
def workbench(embedded_stack: EmbeddedStack, request: pytest.FixtureRequest) -> Iterator[Workbench]:
    """Tables, an S3 prefix and a Dagster instance for one test alone, all of them empty."""
    name = re.sub(r"\W", "_", request.node.name)[:40]
    with new_workbench(embedded_stack, name) as bench:
        yield bench
