"""The token endpoint answers the stack's key as Google would, and no other."""

import json
from pathlib import Path

import google.auth.transport.requests
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import RefreshError
from google.oauth2 import service_account

from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.embedded.token_endpoint import GRANT_TYPE

SCOPES = ["https://www.googleapis.com/auth/bigquery"]


@pytest.fixture
def key(embedded_stack: EmbeddedStack) -> dict[str, str]:
    file = embedded_stack.settings.google_credentials_file
    assert file is not None
    content: dict[str, str] = json.loads(Path(file).read_text())
    return content


def fetch_token(key: dict[str, str]) -> str:
    credentials = service_account.Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        key, scopes=SCOPES
    )
    credentials.refresh(google.auth.transport.requests.Request())
    return str(credentials.token)


def test_the_stacks_own_key_gets_a_token(key: dict[str, str]) -> None:
    assert len(fetch_token(key)) > 20
    assert fetch_token(key) != fetch_token(key)


def test_a_foreign_key_is_refused(key: dict[str, str]) -> None:
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(RefreshError, match=r"invalid_grant: Invalid JWT Signature\."):
        fetch_token(key | {"private_key": foreign.decode()})


def test_another_accounts_name_is_refused(key: dict[str, str]) -> None:
    with pytest.raises(RefreshError, match="invalid_grant"):
        fetch_token(key | {"client_email": "another@example.com"})


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": GRANT_TYPE, "assertion": "no.jwt.at-all"}, "invalid_grant"),
        ({"grant_type": GRANT_TYPE}, "invalid_grant"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({}, "unsupported_grant_type"),
    ],
)
def test_what_is_no_assertion_is_refused(
    key: dict[str, str], form: dict[str, str], error: str
) -> None:
    answer = requests.post(key["token_uri"], data=form, timeout=10)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
