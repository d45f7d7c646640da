"""Which addresses may be spoken to, and which would send keys and data unencrypted."""

import string

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkpar_assets.resources.endpoints import check_endpoints, check_url
from sparkpar_assets.resources.environment import read_settings
from sparkpar_assets.settings import load_settings

NAMES = ("AWS_ENDPOINT_URL_S3", "BIGQUERY_EMULATOR_HOST")
NEAR = [
    "http://127.0.0.1:9000",
    "http://127.8.9.10",
    "http://[::1]:9000",
    "http://localhost:9050/",
    "http://s3:9000",
    "http://token-endpoint:9070/token",
]
FAR = [
    "http://s3.example.com",
    "http://10.0.0.7:9000",
    "http://192.168.1.2",
    "http://[fe80::1]:9000",
    "http://2130706433:9000",
    "http://0x7f000001",
    "http://127.0.0.1.example.com",
    "http://localhost.",
    "HTTP://S3.EXAMPLE.COM",
]
NO_URLS = [
    "s3.example.com",
    "ftp://s3",
    "https://",
    "file:///etc/passwd",
    "https://a b",
    "http://s3\n",
]
NO_URLS += ["https://s3:port", "https://[::1", "javascript:alert(1)", "https://s3\\@example.com"]


def refusal(url: str, **others: str) -> str:
    with pytest.raises(dg.Failure) as refused:
        check_url(url, "The address", load_settings(others))
    return str(refused.value.description)


@pytest.mark.parametrize("url", [*NEAR, "https://s3.example.com", "https://10.0.0.7:9000"])
def test_tls_and_what_is_near_are_let_through(url: str) -> None:
    check_endpoints(load_settings(dict.fromkeys(NAMES, url)))


@pytest.mark.parametrize("url", FAR)
def test_plain_http_to_another_machine_is_refused_unless_it_is_allowed(url: str) -> None:
    said = refusal(url)
    assert said.startswith("The address is plain http:// to another machine: ")
    assert "ALLOW_PLAINTEXT_ENDPOINTS=1" in said
    check_url(url, "The address", load_settings({"ALLOW_PLAINTEXT_ENDPOINTS": "1"}))


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    assert "is no URL of a server" in refusal(url, ALLOW_PLAINTEXT_ENDPOINTS="1")


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    said = refusal("https://someone:hush@s3.example.com")
    assert "has a user in front of its host" in said
    assert "hush" not in said


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_is_looked_at_whenever_settings_are_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARKPAR_ENV_FILE", raising=False)
    monkeypatch.setenv(name, "http://hush.example.com/T0/B0")
    with pytest.raises(dg.Failure) as refused:
        read_settings()
    said = str(refused.value.description)
    assert said.startswith(f"{name} is plain http:// to another machine")
    assert "hush" not in said


@given(st.text(string.printable, max_size=40))
def test_whatever_stands_there_is_let_through_or_refused_in_a_sentence(text: str) -> None:
    said = ""
    try:
        check_url(text, "The address", load_settings({}))
    except dg.Failure as refused:
        said = str(refused.description)
    if said:
        assert said.startswith(("The address is ", "The address has a user"))
        assert said.endswith(".")
    else:
        assert text.lower().startswith(("http://", "https://"))


@given(st.ip_addresses())
def test_of_all_addresses_in_numbers_only_this_machines_own_are_near(address: object) -> None:
    host = f"[{address}]" if ":" in str(address) else str(address)
    if str(address) == "::1" or str(address).startswith("127."):
        check_url(f"http://{host}", "The address", load_settings({}))
    else:
        assert "is plain http://" in refusal(f"http://{host}")
