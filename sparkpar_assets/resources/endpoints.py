"""Which servers may be spoken to without TLS: those that no stranger is in between of."""

import ipaddress
import re
from urllib.parse import urlsplit

import dagster as dg

from sparkpar_assets.settings import Settings

INTERNAL_NAME = re.compile(r"[a-z_][a-z0-9_-]*", re.IGNORECASE)
"""A host name without a dot, which only a network of containers or the machine itself knows."""


def check_endpoints(settings: Settings) -> None:
    """Refuse addresses of other machines to which keys and data would go unencrypted.

    Raises:
        dg.Failure: A setting names one, or what is no URL of a server.
    """
    urls = {
        "AWS_ENDPOINT_URL_S3": settings.s3_endpoint,
        "BIGQUERY_EMULATOR_HOST": settings.bigquery_http_endpoint,
    }
    for variable, url in urls.items():
        if url:
            check_url(url, variable, settings)


def check_url(url: str, what: str, settings: Settings) -> None:
    """Refuse one address.

    Args:
        url: The address; it is not shown, since some are secrets.
        what: Whose it is, to begin a sentence with.
        settings: Say whether plain HTTP is allowed.

    Raises:
        dg.Failure: It is plain HTTP to another machine, no URL of a server, or holds a password.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        has_user, _ = "@" in parts.netloc, parts.port
    except ValueError:
        is_url, has_user = False, False
    if not is_url or re.search(r"[\s\x00-\x1f\\]", url):
        problem = "is no URL of a server. Write it as https://HOST or https://HOST:PORT."
    elif has_user:
        problem = "has a user in front of its host. Leave that out: keys have settings of their own"
        problem += ", which are not logged."
    elif parts.scheme == "http" and not (
        settings.allow_plaintext_endpoints or _is_near(str(parts.hostname))
    ):
        problem = (
            "is plain http:// to another machine: who is in between could read and change all that "
            "is sent, keys too. Write https://, or set ALLOW_PLAINTEXT_ENDPOINTS=1 where the "
            "network is yours alone."
        )
    else:
        return
    raise dg.Failure(f"{what} {problem}", allow_retries=False)


def _is_near(host: str) -> bool:
    """Whether the host is this machine, or one that its own network of containers names."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return INTERNAL_NAME.fullmatch(host) is not None
