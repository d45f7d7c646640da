"""A warning before a key has been in use for too long."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from sparkpar_assets.assets.trips import yellow_taxi_trips
from sparkpar_assets.resources.environment import RunEnvironment
from sparkpar_assets.resources.key_age import key_age
from sparkpar_assets.settings import Settings


@dg.asset_check(
    asset=yellow_taxi_trips,
    description="The service account's key is not older than MAX_KEY_AGE_DAYS (a warning).",
)
def key_is_young(environment: RunEnvironment) -> dg.AssetCheckResult:
    """Warn of a service account's key that should be replaced."""
    return judge_key(environment.settings, datetime.now(UTC))


def judge_key(settings: Settings, now: datetime) -> dg.AssetCheckResult:
    """The outcome of the check at one moment."""
    file = settings.google_credentials_file
    try:
        age = key_age(Path(file)) if file else None
    except (OSError, ValueError) as error:
        return _outcome(f"{file} cannot be read ({type(error).__name__}).", passed=False)
    if age is None:
        return _outcome("No service account's key is in use.", passed=True)
    days, most = age.days(now), settings.max_key_age_days
    since = "The key was made" if age.is_exact else "The key's file was written"
    said = f"{since} {days} days ago"
    if days <= most:
        return _outcome(f"{said}; it may be {most} days old.", passed=True, days=days)
    remedy = "Make a new key for the account, replace the file, and delete the old key."
    return _outcome(f"{said}, and MAX_KEY_AGE_DAYS is {most}. {remedy}", passed=False, days=days)


def _outcome(description: str, *, passed: bool, days: int | None = None) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata={} if days is None else {"days": days},
    )
