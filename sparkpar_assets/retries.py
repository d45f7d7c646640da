"""Which failures are worth another try, in one place, and how such tries are spaced.

Dagster's own ``RetryPolicy`` of an op is not used: it tries again whatever is raised, a run that
was cancelled too, and a step that has published some of its years would begin anew and log them
twice. Here the same step goes on, with what it has already published.
"""

import re
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

import dagster as dg

if TYPE_CHECKING:
    from logging import Logger

T = TypeVar("T")

POLICY = dg.RetryPolicy(
    max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
)
"""Tries again after about 5, 15 and 35 seconds: a restarted server is back by then. The clients of
Google, AWS and S3A have asked several times each before one of these tries fails."""

HTTP_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
"""Timeouts, throttling and failures of the server: those that botocore's standard mode and Google's
clients retry."""
AWS_TRANSIENT = frozenset({"InternalError", "RequestTimeout", "SlowDown", "Throttling"})
"""S3 API reference, "Error responses"; some come with the status 400, or in an answer of 200."""
GOOGLE_TRANSIENT = frozenset({"backendError", "internalError", "rateLimitExceeded"})
"""BigQuery documentation, "Error messages": to be tried again, though one has the status 403."""

JAVA_PERMANENT = re.compile(
    r"Status Code: 4(?!08|29)\d\d|PERMISSION_DENIED: |UNAUTHENTICATED: |INVALID_ARGUMENT: "
    r"|OutOfMemoryError|exited with code (?:52|137)|No space left on device"
    r"|CertificateException|PKIX path"
    r"|SparkContext was shut down|Master removed our application"
)
JAVA_TRANSIENT = re.compile(
    # S3A, by the message of AmazonServiceException
    r"[^\n]*Status Code: (?:408|429|5\d\d)[^\n]*"
    # The Storage Read API, by the status of gRPC; a session that a restarted server has forgotten
    r"|(?:UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|ABORTED|INTERNAL): [^\n]*"
    r"|NOT_FOUND: [^\n]*(?i:session|stream)[^\n]*"
    # BigQuery's REST interface, by the message of GoogleJsonResponseException
    r"|GoogleJsonResponseException: (?:408|429|5\d\d)[^\n]*"
    r"|(?:java\.net\.(?:Connect|NoRouteToHost|Socket|SocketTimeout|UnknownHost)Exception"
    r"|org\.apache\.http\.(?:ConnectionClosed|NoHttpResponse|conn\.\w+)Exception)[^\n]*"
    # Spark has tried a task four times by then, and the workers may be coming back
    r"|(?:ExecutorLostFailure|FetchFailed)[^\n]*"
)
"""In the stack trace that py4j passes on."""


class Cause(IntEnum):
    """Why something failed; of several in a chain of errors the lowest counts."""

    PERMANENT = 1
    """It will fail again, or nobody knows: permissions, schema, settings, a refused cost."""
    UNREACHABLE = 2
    """Nothing listens at the address: an outage, or a wrong setting."""
    TRANSIENT = 3
    """The server, or the way to it, is overburdened or broken for now."""


def retrying(
    action: Callable[[], T],
    log: "Logger",
    *,
    under_way: bool,
    policy: dg.RetryPolicy = POLICY,
) -> T:
    """Do something; where it fails for a transient cause, wait and do it again.

    Args:
        action: Does it, and can be done again.
        log: The run's log, which says of each failure what it was.
        under_way: Whether the servers have answered this run already. If not, one that nobody can
            reach is taken for a wrong setting.
        policy: How often, and after which waits.

    Raises:
        dg.Failure: It failed for a transient cause each time.
        Exception: It failed for another cause, just as it was raised.
    """
    attempts = policy.max_retries + 1
    for attempt in range(1, attempts):
        try:
            return action()
        except Exception as error:
            if not _is_worth_a_try(error, under_way=under_way):
                raise
            seconds = policy.calculate_delay(attempt)
            log.warning(
                f"{sentence_of(error)} This was try {attempt} of {attempts}: "
                f"the next follows in {seconds:.0f} s."
            )
        time.sleep(seconds)  # a run that is cancelled ends here too: Dagster interrupts it
    try:
        return action()
    except Exception as error:
        if isinstance(error, dg.Failure) or not _is_worth_a_try(error, under_way=under_way):
            raise
        raise dg.Failure(
            f"{sentence_of(error)} It was tried {attempts} times. "
            "Run it again when the server is well.",
            allow_retries=False,
        ) from error


def cause_of(error: BaseException) -> Cause:
    """Why something failed, by the error and those that led to it."""
    known = [cause for one in _chain(error) if (cause := _cause_of_one(one)) is not None]
    return min(known, default=Cause.PERMANENT)


def sentence_of(error: BaseException) -> str:
    """What to say of a transient failure, in a sentence, without a stack trace."""
    from py4j.protocol import Py4JJavaError

    if isinstance(error, dg.Failure):
        return str(error.description)
    text = str(error).strip()
    found = JAVA_TRANSIENT.search(text) if isinstance(error, Py4JJavaError) else None
    if found:
        return f"Spark failed with {found[0].strip().removesuffix('.')}."
    first_line, *_ = text.splitlines() or [""]
    return f"{type(error).__name__}: {first_line.removesuffix('.')}."


def _is_worth_a_try(error: Exception, *, under_way: bool) -> bool:
    return cause_of(error) >= (Cause.UNREACHABLE if under_way else Cause.TRANSIENT)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it, also where ``from None`` hides them from the user."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _cause_of_one(error: BaseException) -> Cause | None:
    """What one error says by itself; None if nothing."""
    from py4j.protocol import Py4JJavaError

    if isinstance(error, Py4JJavaError):
        return _of_java(str(error))
    if isinstance(error, dg.RetryRequested):
        return Cause.PERMANENT  # Dagster begins the step again.
    if isinstance(error, dg.Failure):
        return None if error.allow_retries else Cause.PERMANENT
    return _of_aws(error) or _of_google(error) or _of_http(error)


def _of_java(text: str) -> Cause:
    if JAVA_PERMANENT.search(text):
        return Cause.PERMANENT
    return Cause.TRANSIENT if JAVA_TRANSIENT.search(text) else Cause.PERMANENT


def _of_aws(error: BaseException) -> Cause | None:
    from botocore import exceptions as aws

    match error:
        case aws.ClientError():
            code = error.response["Error"].get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            transient = code in AWS_TRANSIENT or status in HTTP_TRANSIENT
            return Cause.TRANSIENT if transient else Cause.PERMANENT
        case aws.EndpointConnectionError() | aws.ConnectTimeoutError():
            return Cause.UNREACHABLE
        case aws.SSLError():
            return _of_tls(error)
        case aws.ConnectionError() | aws.HTTPClientError() | aws.IncompleteReadError():
            return Cause.TRANSIENT
    return Cause.PERMANENT if isinstance(error, aws.BotoCoreError) else None


def _of_google(error: BaseException) -> Cause | None:
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError, TransportError

    match error:
        case api.GoogleAPICallError() if "failed to connect to all addresses" in str(error):
            return Cause.UNREACHABLE  # gRPC's words, with the status UNAVAILABLE
        case api.TooManyRequests() | api.Aborted() | api.ServerError():
            return Cause.TRANSIENT
        case api.GoogleAPICallError():
            reasons = {one.get("reason") for one in error.errors if isinstance(one, dict)}
            return Cause.TRANSIENT if reasons & GOOGLE_TRANSIENT else Cause.PERMANENT
        case TransportError():
            return None  # what it was is in the error before
        case GoogleAuthError():
            return Cause.TRANSIENT if error.retryable else Cause.PERMANENT
    return None


def _of_http(error: BaseException) -> Cause | None:
    import requests
    import urllib3.exceptions

    match error:
        case urllib3.exceptions.NewConnectionError() | requests.ConnectTimeout():
            return Cause.UNREACHABLE
        case requests.exceptions.SSLError():
            return _of_tls(error)
        case requests.Timeout() | requests.ConnectionError():
            return Cause.TRANSIENT
        case requests.exceptions.ChunkedEncodingError():
            return Cause.TRANSIENT
    return None


def _of_tls(error: BaseException) -> Cause:
    """A connection that broke, or a certificate that will not do the next time either."""
    return Cause.PERMANENT if "CERTIFICATE" in str(error).upper() else Cause.TRANSIENT
