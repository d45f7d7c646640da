"""Telling a chat, by its webhook, that a run has failed."""

from collections.abc import Mapping, Sequence

import dagster as dg
from pydantic import SecretStr

from sparkpar_assets.pending import PARTITION, RANGE_END, RANGE_START
from sparkpar_assets.resources.endpoints import check_url
from sparkpar_assets.settings import Settings

SECONDS = 5
"""To connect, and as long for the answer to begin. Several runs may have failed at once, and
Dagster gives a sensor 60 s."""


def describe_failure(
    run: dg.DagsterRun,
    failure: dg.DagsterEvent,
    step_failures: Sequence[dg.DagsterEvent],
    ui_url: str | None,
) -> dict[str, str | None]:
    """What to post of a failed run.

    Args:
        run: The run.
        failure: The event with which it failed.
        step_failures: Those of its steps.
        ui_url: Where Dagster's web interface is; without it there is no link.

    Returns:
        ``text`` with all in one line, as Slack shows it, and the same by part: ``asset``,
        ``partition``, ``cause``, ``run_id``, ``run_url``.
    """
    steps = [str(event.step_key).replace("__", "/") for event in step_failures]
    assets = steps or sorted(key.to_user_string() for key in run.asset_selection or ())
    asset = ", ".join(assets) or run.job_name
    partition = _partition(run.tags)
    causes = [_cause(event) for event in step_failures]
    cause = " ".join(filter(None, causes)) or failure.message or "The run failed."
    run_url = f"{ui_url.rstrip('/')}/runs/{run.run_id}" if ui_url else None
    failed = f"{asset} {partition}" if partition else asset
    return {
        "text": f"{failed} failed: {cause} {run_url or f'Run {run.run_id}'}",
        "asset": asset,
        "partition": partition,
        "cause": cause,
        "run_id": run.run_id,
        "run_url": run_url,
    }


def post_alert(url: SecretStr, alert: Mapping[str, str | None], settings: Settings) -> str | None:
    """Post an alert to a webhook, once.

    Args:
        url: The webhook.
        alert: What is posted, as JSON.
        settings: Say whether plain HTTP is allowed.

    Returns:
        None, or what went wrong. The URL is a secret, and so are the messages of the errors, which
        hold it: neither is in the sentence.
    """
    import requests

    try:
        # Here, and not where settings are read: no run shall fail for its alert.
        check_url(url.get_secret_value(), "The webhook of ALERT_WEBHOOK_URL", settings)
    except dg.Failure as refused:
        return refused.description
    try:
        # Streamed and not read: an answer without end is none of our concern.
        with requests.post(
            url.get_secret_value(), json=alert, timeout=SECONDS, stream=True, allow_redirects=False
        ) as answer:
            problem = None if answer.ok else f"answered {answer.status_code}"
    except (requests.RequestException, ValueError) as error:
        problem = f"could not be reached ({type(error).__name__})"
    return problem and f"The webhook of ALERT_WEBHOOK_URL {problem}. Check it."


def _partition(tags: Mapping[str, str]) -> str | None:
    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    if first and last and first != last:
        return f"{first}...{last}"
    return first or tags.get(PARTITION)


def _cause(event: dg.DagsterEvent) -> str:
    """The sentence that the asset failed with; of any other error its first line."""
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    error = failure.error
    while error and error.cause:
        error = error.cause
    return error.message.strip().partition("\n")[0] if error else ""
