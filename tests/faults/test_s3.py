"""S3 is overburdened or slow, refuses or loses what it is sent, while three years are published."""

import signal
from collections.abc import Iterator
from urllib.parse import unquote

import pytest

from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.io_managers.published import HISTORY
from tests.faults.clouds import Clouds, assert_nothing_staged, clouds_behind_proxies, materialize
from tests.faults.proxy import Delay, Fault, Refusal, Request, Reset, Rule, first, one_in
from tests.faults.report import Trial
from tests.faults.runs import (
    YEARS,
    assert_exact,
    assert_published_years_are_whole,
    load_samples,
)
from tests.integration.workbench import FARES, Workbench


def answer(status: int, code: str) -> Refusal:
    """What S3 answers in an error (S3 API reference, "REST error responses")."""
    return Refusal(
        status,
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
        f"<Message>made by a test</Message><RequestId>1</RequestId></Error>",
    )


SLOW_DOWN = answer(503, "SlowDown")

CANCELLED_WITHIN_SECONDS = 15
"""What the platform promises."""


def copies_onto(place: str, fault: Fault) -> Rule:
    """Meets the server-side copies onto a key."""

    def rule(request: Request) -> Fault | None:
        is_copy = "x-amz-copy-source" in request.headers
        return fault if is_copy and place in unquote(request.target) else None

    return rule


@pytest.fixture(scope="module")
def all_clouds(embedded_stack: EmbeddedStack) -> Iterator[Clouds]:
    with clouds_behind_proxies(embedded_stack) as clouds:
        yield clouds


@pytest.fixture
def clouds(all_clouds: Clouds, workbench: Workbench) -> Iterator[Clouds]:
    """The clouds with three years of trips, for one test alone, and well again after it."""
    load_samples(workbench)
    all_clouds.lead(workbench)
    yield all_clouds
    all_clouds.heal()


def assert_published_once(bench: Workbench) -> None:
    """Each year is published once, and Dagster has one materialization of it."""
    assert bench.materialized_years() == [str(year) for year in YEARS]
    assert len(bench.keys(HISTORY)) == len(YEARS)


@pytest.mark.quick
@pytest.mark.fault("S3 answers 503 SlowDown to one request in three")
def test_a_run_succeeds_though_s3_throttles_every_third_request(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.s3.faults.rule = one_in(3, SLOW_DOWN)
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    assert len(clouds.s3.faults.made) > 10
    assert_exact(workbench)
    assert_published_once(workbench)
    assert_nothing_staged(workbench)


@pytest.mark.fault("S3 resets uploads")
def test_a_run_succeeds_though_uploads_are_reset(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    def uploads(request: Request) -> Fault | None:
        is_part = request.method == "PUT" and "partNumber" in request.target
        return Reset() if is_part else None

    clouds.s3.faults.rule = first(4, uploads)
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    assert len(clouds.s3.faults.made) == 4
    assert_exact(workbench)
    assert_published_once(workbench)
    assert_nothing_staged(workbench)


@pytest.mark.quick
@pytest.mark.fault("S3 refuses the final copy of a year (403)")
def test_a_refused_copy_fails_at_once_and_what_was_published_before_it_stays(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.s3.faults.rule = copies_onto(f"/{FARES}/year=2018/data", answer(403, "AccessDenied"))
    trial.begins()
    run = materialize(workbench)
    assert not run.success
    assert "denied access to the bucket" in run.log
    assert "Let the credentials list, read, write and delete under the prefix" in run.log
    assert len(clouds.s3.faults.made) == 1
    assert run.tries_again == 0
    assert assert_published_years_are_whole(workbench) == [2017]
    assert workbench.materialized_years() == ["2017"]
    assert_nothing_staged(workbench)
    clouds.heal()
    assert materialize(workbench).success
    trial.is_over("run fails at once, the next succeeds")
    assert_exact(workbench)


@pytest.mark.quick
@pytest.mark.fault("S3 throttles the final copy of a year, for longer than its client asks")
def test_a_run_goes_on_after_the_years_it_has_published(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.s3.faults.rule = first(6, copies_onto(f"/{FARES}/year=2018/data", SLOW_DOWN))
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds at the second try")
    assert len(clouds.s3.faults.made) == 6
    assert run.tries_again == 1
    assert "answered SlowDown to CopyObject" in run.log
    assert run.log.count("Published s3://") == len(YEARS)
    assert_exact(workbench)
    assert_published_once(workbench)
    assert_nothing_staged(workbench)


@pytest.mark.fault("S3 throttles the copy of a year to the history, for as long as the run tries")
def test_a_year_that_is_published_has_its_event_whatever_comes_after(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.s3.faults.rule = copies_onto(f"/{HISTORY}{FARES}/year=2018/", SLOW_DOWN)
    trial.begins()
    run = materialize(workbench)
    assert not run.success
    assert run.tries_again == 3
    assert assert_published_years_are_whole(workbench) == [2017, 2018]
    assert workbench.materialized_years() == ["2017", "2018"]
    assert_nothing_staged(workbench)
    clouds.heal()
    assert materialize(workbench).success
    trial.is_over("run fails after four tries, the next succeeds")
    assert_exact(workbench)


@pytest.mark.fault("S3 takes a second for each request")
def test_a_run_succeeds_though_s3_is_slow(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.s3.faults.rule = lambda _: Delay(1)
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    assert_exact(workbench)
    assert_published_once(workbench)
    assert_nothing_staged(workbench)


@pytest.mark.fault("a run is cancelled while it waits for S3")
def test_a_run_that_waits_for_the_next_try_can_be_cancelled(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.s3.faults.rule = lambda _: SLOW_DOWN
    run = workbench.popen("--select", FARES, "--partition", "2018")
    workbench.wait_for(run, "This was try 1 of 4: the next follows in")
    trial.begins()
    run.send_signal(signal.SIGINT)
    assert run.wait(CANCELLED_WITHIN_SECONDS) != 0
    trial.is_over("run ends at once")
    assert "This was try 2" not in workbench.output_of(run)
    assert_nothing_staged(workbench)
