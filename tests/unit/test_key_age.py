"""How old a key is, and when that is worth a warning."""

import datetime
import json
import os
from pathlib import Path

import dagster as dg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sparkpar_assets.key_check import judge_key
from sparkpar_assets.resources.key_age import valid_since
from sparkpar_assets.settings import load_settings

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)


def outcome(file: Path, days: int, **settings: str) -> dg.AssetCheckResult:
    """What is said of a key whose file was written so many days ago."""
    written = (NOW - datetime.timedelta(days=days)).timestamp()
    os.utime(file, (written, written))
    values = {"GOOGLE_APPLICATION_CREDENTIALS": str(file)} | settings
    result = judge_key(load_settings(values), NOW)
    assert result.severity is dg.AssetCheckSeverity.WARN
    return result


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"type": "service_account", "private_key": "hush"}))
    return file


@pytest.mark.parametrize(("days", "passed"), [(0, True), (90, True), (91, False)])
def test_a_key_older_than_90_days_is_warned_of(key_file: Path, days: int, passed: bool) -> None:
    result = outcome(key_file, days)
    assert result.passed is passed
    assert str(result.description).startswith(f"The key's file was written {days} days ago")
    assert "hush" not in str(result)


def test_the_user_chooses_the_age(key_file: Path) -> None:
    assert not outcome(key_file, 31, MAX_KEY_AGE_DAYS="30").passed
    assert outcome(key_file, 31, MAX_KEY_AGE_DAYS="31").passed


def test_without_a_key_there_is_nothing_to_warn_of(tmp_path: Path) -> None:
    assert judge_key(load_settings({}), NOW).passed
    file = tmp_path / "federated.json"
    file.write_text(json.dumps({"type": "external_account"}))
    assert outcome(file, 400).passed


def test_a_key_that_cannot_be_read_is_worth_the_warning_too(tmp_path: Path) -> None:
    values = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "none.json")}
    result = judge_key(load_settings(values), NOW)
    assert not result.passed
    assert "cannot be read (FileNotFoundError)" in str(result.description)


def test_the_certificate_that_google_publishes_says_when_the_key_was_made() -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    made = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(made)
        .not_valid_after(made + datetime.timedelta(days=730))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    assert valid_since(pem) == made
    assert valid_since("") is None
