"""What the demo shows of a run."""

import pytest

from sparkpar_assets.embedded.demo import first_error, readable

RUN = "__ASSET_JOB - 9c046eca-4c1b-47f1-b03e-60e80f2e1c34"
START = "2026-11-23 02:49:28 +0000 - dagster"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (
            f"{START} - INFO - {RUN} - fare_by_passenger_count - Published s3://b/k",
            "Published s3://b/k",
        ),
        (f"{START} - ERROR - {RUN} - fare_trends - It failed - badly\n", "It failed - badly"),
        (f"{START} - DEBUG - {RUN} - 7664 - RUN_START - Started execution of run.", None),
        (
            f"{START} - DEBUG - {RUN} - 7664 - fare_trends - ASSET_CHECK_EVALUATION - "
            "Asset check 'a' on 'b' did not pass. Description: 'c - d'",
            "Asset check 'a' on 'b' did not pass. Description: 'c - d'",
        ),
        ("26/11/23 02:48:55 WARN NativeCodeLoader: Unable to load", None),
        ("", None),
    ],
)
def test_only_what_a_reader_can_use_is_shown(line: str, shown: str | None) -> None:
    assert readable(line) == shown


def test_of_a_failed_run_the_first_errors_own_words_are_shown_without_its_stack_trace() -> None:
    error = f"{START} - ERROR - {RUN} - 1 - fare_trends - STEP_FAILURE - It failed.\n"
    cause = "dagster._core.definitions.events.Failure: No table. Make one.\n"
    lines = ["before\n", error, "\n", cause, "\n", "Stack Trace:\n", "  File x\n", error, cause]
    assert first_error(lines) == (error + "\n" + cause).rstrip()


def test_of_a_run_that_ended_without_an_error_in_its_log_the_end_is_shown() -> None:
    assert first_error([f"{n}\n" for n in range(50)]).splitlines()[0] == "10"
