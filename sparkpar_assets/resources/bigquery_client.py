"""Google's clients of BigQuery's two interfaces, REST and Storage Read, and what they fail with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from sparkpar_assets.resources.endpoints import check_url
from sparkpar_assets.resources.grpc_loading import load_grpc
from sparkpar_assets.resources.private_files import check_private
from sparkpar_assets.retries import Cause, cause_of
from sparkpar_assets.settings import Settings

if TYPE_CHECKING:
    from google.cloud.bigquery import Client
    from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient

REQUEST_SECONDS = 60
SHORT_LIVED = "external_account"
"""The type of a file that says where a short-lived token is, and holds none itself."""
RETRY_SECONDS = 15
"""Google's clients would go on for ten minutes where nothing listens."""


@contextmanager
def rest_client(settings: Settings) -> Iterator["Client"]:
    """The client of BigQuery's REST interface.

    Raises:
        dg.Failure: BigQuery refuses the credentials or a request, or does not answer.
    """
    load_grpc()
    from dagster_gcp import BigQueryResource

    with (
        _explained_errors(settings, settings.bigquery_http_endpoint, "BIGQUERY_EMULATOR_HOST"),
        BigQueryResource(project=settings.gcp_project).get_client() as client,
    ):
        yield client


@contextmanager
def read_client(settings: Settings) -> Iterator[tuple["BigQueryReadClient", str]]:
    """The client of the Storage Read API, which speaks gRPC over TLS; and the project that pays.

    Raises:
        dg.Failure: As with ``rest_client``, or the trust store cannot be read.
    """
    load_grpc()
    import google.auth
    import grpc
    from google.auth.transport.requests import Request
    from google.cloud.bigquery_storage_v1.services.big_query_read import BigQueryReadClient
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
        BigQueryReadGrpcTransport as Transport,
    )

    endpoint = settings.bigquery_storage_endpoint
    with _explained_errors(settings, endpoint, "BIGQUERY_STORAGE_GRPC_ENDPOINT"):
        credentials, project = google.auth.default(scopes=Transport.AUTH_SCOPES)
        # Here, since gRPC would call a rejected key an unavailable server, and try again.
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
        transport = Transport(
            host=endpoint or Transport.DEFAULT_HOST,
            credentials=credentials,
            ssl_channel_credentials=grpc.ssl_channel_credentials(
                settings.trust_store and _certificates(Path(settings.trust_store))
            ),
        )
        with BigQueryReadClient(transport=transport) as client:
            yield client, settings.gcp_project or project or ""


@contextmanager
def _explained_errors(settings: Settings, endpoint: str | None, variable: str) -> Iterator[None]:
    """What Google's clients raise, as failures that say what to do.

    Args:
        settings: Say which credentials are used.
        endpoint: The server, None for Google's.
        variable: The setting that names it.
    """
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    key_file = settings.google_credentials_file
    if key_file:
        _check_key_file(Path(key_file), settings)
    whose = f"The key file {key_file}" if key_file else "The application default credentials"
    try:
        yield
    except (GoogleAPICallError, RetryError, GoogleAuthError, OSError, ValueError) as error:
        if refusal := _why_refused(error, whose):
            raise dg.Failure(refusal, allow_retries=False) from None
        raise dg.Failure(
            f"BigQuery at {endpoint or 'Google'} does not answer as it should: "
            f"{first_line(error)} Check the network and {variable}, and run it again.",
        ) from None


def _why_refused(error: Exception, whose: str) -> str | None:
    """What is wrong with the credentials, and how to mend it; None if it is something else."""
    from google.api_core.exceptions import Forbidden, Unauthorized
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

    if cause_of(error) is not Cause.PERMANENT:
        return None
    match error:
        case DefaultCredentialsError():
            return (
                f"{whose} cannot be used: {first_line(error)} Set GOOGLE_APPLICATION_CREDENTIALS "
                "to a service account's key file, or run gcloud auth application-default login."
            )
        case GoogleAuthError() | Unauthorized() | ValueError():
            return (
                f"{whose} was rejected: {first_line(error)} "
                "Make a new key for the account, or correct GOOGLE_APPLICATION_CREDENTIALS."
            )
        case Forbidden():
            return (
                f"BigQuery denied access: {first_line(error)} Give the account the roles BigQuery "
                "Read Session User on the project and BigQuery Data Viewer on the dataset."
            )
    return None


def _check_key_file(path: Path, settings: Settings) -> None:
    import json

    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        problem = "does not exist"
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({error.__class__.__name__})"
    except json.JSONDecodeError:
        problem = "is not JSON"
    else:
        if isinstance(content, dict) and "type" in content:
            if content["type"] != SHORT_LIVED:
                check_private(path)
            if token_uri := content.get("token_uri"):
                check_url(str(token_uri), f"The token_uri of the key file {path}", settings)
            return
        problem = "is no key of Google's: it has no field type"
    raise dg.Failure(
        f"The key file {path} {problem}. "
        "Set GOOGLE_APPLICATION_CREDENTIALS to the JSON key file of a service account.",
        allow_retries=False,
    )


def _certificates(trust_store: Path) -> bytes:
    """The certificates of a trust store such as Java uses, as PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

    try:
        found = pkcs12.load_pkcs12(trust_store.read_bytes(), None).additional_certs
    except (OSError, ValueError) as error:
        raise dg.Failure(
            f"The trust store {trust_store} cannot be read: {first_line(error)} "
            "Set TLS_TRUST_STORE to a PKCS #12 file without a password, or unset it.",
            allow_retries=False,
        ) from None
    return b"".join(one.certificate.public_bytes(Encoding.PEM) for one in found)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, as a sentence."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return line if line.endswith(".") else f"{line}."
