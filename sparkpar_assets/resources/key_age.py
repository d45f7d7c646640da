"""How old a service account's key is."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

SECONDS = 5
GOOGLE = "https://www.googleapis.com/"


@dataclass(frozen=True)
class KeyAge:
    """Since when there is a key.

    Attributes:
        since: When it was made, in UTC.
        is_exact: False if that is only when its file was last written: the key may be older.
    """

    since: datetime
    is_exact: bool

    def days(self, now: datetime) -> int:
        """Whole days up to ``now``."""
        return (now - self.since).days


def key_age(path: Path) -> KeyAge | None:
    """When a key was made, as Google says; else when its file was written.

    A key file has no date. Google publishes the certificate of each key of an account, at the
    address that the file names; its validity begins when the key was made. No secret is sent.

    Args:
        path: A key file.

    Returns:
        None for what is no service account's key, and has no age.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON.
    """
    key = json.loads(path.read_text())
    if not isinstance(key, dict) or key.get("type") != "service_account":
        return None
    made = _said_by_google(key)
    if made:
        return KeyAge(made, is_exact=True)
    return KeyAge(datetime.fromtimestamp(path.stat().st_mtime, UTC), is_exact=False)


def _said_by_google(key: dict[str, object]) -> datetime | None:
    import requests

    url = str(key.get("client_x509_cert_url", ""))
    if not url.startswith(GOOGLE):
        return None
    try:
        answer = requests.get(url, timeout=SECONDS, allow_redirects=False)
        certificates = answer.json() if answer.ok else {}
    except (requests.RequestException, ValueError):
        return None
    return valid_since(certificates.get(key.get("private_key_id"), ""))


def valid_since(certificate: str) -> datetime | None:
    """When a certificate's validity begins; None for what is no certificate."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(certificate.encode()).not_valid_before_utc
    except ValueError:
        return None
