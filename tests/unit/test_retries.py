"""Which causes are tried again: by the libraries' own exceptions, raised as they raise them."""

import logging
import socket
import threading
from collections.abc import Callable

import boto3
import dagster as dg
import pytest
import requests
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    SSLError,
)
from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request

from sparkpar_assets.retries import JAVA_PERMANENT, JAVA_TRANSIENT, Cause, cause_of, retrying

URL = "http://127.0.0.1:1"
"""Nothing listens there."""
AT_ONCE = dg.RetryPolicy(max_retries=3)
LOG = logging.getLogger("run")


def aws_error(status: int, code: str) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": ""},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        "CopyObject",
    )


def google_error(status: int, reason: str = "") -> google_errors.GoogleAPICallError:
    errors = [{"reason": reason}] if reason else []
    return google_errors.from_http_status(status, "", errors=errors)  # type: ignore[no-untyped-call,no-any-return]


CAUSES: list[tuple[BaseException, Cause]] = [
    (aws_error(503, "SlowDown"), Cause.TRANSIENT),
    (aws_error(200, "InternalError"), Cause.TRANSIENT),
    (aws_error(400, "RequestTimeout"), Cause.TRANSIENT),
    (aws_error(429, "TooManyRequests"), Cause.TRANSIENT),
    (aws_error(403, "AccessDenied"), Cause.PERMANENT),
    (aws_error(404, "NoSuchBucket"), Cause.PERMANENT),
    (aws_error(400, "ExpiredToken"), Cause.PERMANENT),
    (aws_error(412, "PreconditionFailed"), Cause.PERMANENT),
    (ReadTimeoutError(endpoint_url=URL), Cause.TRANSIENT),
    (ConnectionClosedError(endpoint_url=URL), Cause.TRANSIENT),
    (IncompleteReadError(actual_bytes=1, expected_bytes=2), Cause.TRANSIENT),
    (EndpointConnectionError(endpoint_url=URL), Cause.UNREACHABLE),
    (SSLError(endpoint_url=URL, error=Exception("CERTIFICATE_VERIFY_FAILED")), Cause.PERMANENT),
    (SSLError(endpoint_url=URL, error=Exception("EOF occurred in violation")), Cause.TRANSIENT),
    (NoCredentialsError(), Cause.PERMANENT),
    (BotoCoreError(), Cause.PERMANENT),
    (google_error(429), Cause.TRANSIENT),
    (google_error(500), Cause.TRANSIENT),
    (google_error(503), Cause.TRANSIENT),
    (google_error(403, "rateLimitExceeded"), Cause.TRANSIENT),
    (google_error(403, "quotaExceeded"), Cause.PERMANENT),
    (google_error(403, "accessDenied"), Cause.PERMANENT),
    (google_error(401), Cause.PERMANENT),
    (google_error(404), Cause.PERMANENT),
    (google_error(400), Cause.PERMANENT),
    (google_errors.ResourceExhausted("quota"), Cause.TRANSIENT),  # type: ignore[no-untyped-call]
    (google_errors.DeadlineExceeded("slow"), Cause.TRANSIENT),  # type: ignore[no-untyped-call]
    (
        google_errors.ServiceUnavailable("failed to connect to all addresses; last error: …"),  # type: ignore[no-untyped-call]
        Cause.UNREACHABLE,
    ),
    (RefreshError("invalid_grant"), Cause.PERMANENT),  # type: ignore[no-untyped-call]
    (RefreshError("internal_failure", retryable=True), Cause.TRANSIENT),  # type: ignore[no-untyped-call]
    (requests.ReadTimeout(), Cause.TRANSIENT),
    (requests.ConnectTimeout(), Cause.UNREACHABLE),
    (requests.ConnectionError("Connection aborted"), Cause.TRANSIENT),
    (requests.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED"), Cause.PERMANENT),
    (dg.RetryRequested(), Cause.PERMANENT),
    (dg.Failure("The bucket does not exist.", allow_retries=False), Cause.PERMANENT),
    (dg.Failure("Whatever."), Cause.PERMANENT),
    (KeyError("a mistake of ours"), Cause.PERMANENT),
    (ConnectionResetError(), Cause.PERMANENT),  # of py4j's gateway: those of servers are wrapped
]


@pytest.mark.parametrize(("error", "cause"), CAUSES, ids=lambda value: repr(value)[:50])
def test_each_exception_has_its_cause(error: BaseException, cause: Cause) -> None:
    assert cause_of(error) is cause


JAVA: list[tuple[str, bool]] = [
    (
        "AmazonS3Exception: Slow Down (Service: Amazon S3; Status Code: 503; Error Code: SlowDown",
        True,
    ),
    ("AmazonS3Exception: Denied (Service: Amazon S3; Status Code: 403; Error Code: x", False),
    ("io.grpc.StatusRuntimeException: UNAVAILABLE: io exception", True),
    ("io.grpc.StatusRuntimeException: RESOURCE_EXHAUSTED: quota", True),
    ("io.grpc.StatusRuntimeException: NOT_FOUND: Read session not found: projects/p", True),
    ("io.grpc.StatusRuntimeException: NOT_FOUND: Table p.d.t was not found", False),
    ("io.grpc.StatusRuntimeException: PERMISSION_DENIED: no", False),
    ("GoogleJsonResponseException: 503 Service Unavailable", True),
    ("GoogleJsonResponseException: 404 Not Found", False),
    ("java.net.SocketException: Connection reset", True),
    ("java.net.SocketTimeoutException: Read timed out", True),
    ("org.apache.http.NoHttpResponseException: localhost:9000 failed to respond", True),
    ("javax.net.ssl.SSLHandshakeException: PKIX path building failed", False),
    ("ExecutorLostFailure (executor 3 exited caused by … Worker shutting down", True),
    ("ExecutorLostFailure (executor 3 exited … Command exited with code 52", False),
    ("java.lang.OutOfMemoryError: Java heap space", False),
    ("java.io.IOException: No space left on device", False),
    ("org.apache.spark.SparkException: [DIVIDE_BY_ZERO]", False),
]


@pytest.mark.parametrize(("line", "transient"), JAVA)
def test_a_stack_trace_of_java_tells_its_cause_by_a_line(line: str, transient: bool) -> None:
    trace = f"An error occurred while calling o1.parquet.\n: Job aborted\n{line}\n\tat java.base"
    found = JAVA_TRANSIENT.search(trace) and not JAVA_PERMANENT.search(trace)
    assert bool(found) is transient


def ask_s3(url: str) -> None:
    boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="k", aws_secret_access_key="s"
    ).head_bucket(Bucket="b")


def ask_for_a_token(url: str) -> None:
    Request()(url)


def ask_bigquery(url: str) -> None:
    def get() -> None:
        requests.get(url, timeout=5)

    Retry(lambda _: True, initial=0.1, timeout=0.5)(get)()


ASK = [ask_s3, ask_for_a_token, ask_bigquery]


@pytest.mark.parametrize("ask", ASK)
def test_a_port_at_which_nothing_listens_is_told_from_a_connection_that_breaks(
    ask: Callable[[str], None],
) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011  # each client has its own
        ask(URL)
    assert cause_of(refused.value) is Cause.UNREACHABLE
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        with pytest.raises(Exception) as broken:  # noqa: PT011
            ask(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert cause_of(broken.value) is Cause.TRANSIENT


def hang_up(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        connection.close()


def failing(*errors: Exception) -> Callable[[], str]:
    """Raises one after the other, then gives a result."""
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return action


def test_what_is_transient_is_tried_four_times_and_each_failure_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    slow = aws_error(503, "SlowDown")
    with caplog.at_level(logging.WARNING):
        assert retrying(failing(*[slow] * 3), LOG, under_way=True, policy=AT_ONCE) == "done"
    assert caplog.text.count("SlowDown") == 3
    assert "This was try 3 of 4: the next follows in 0 s." in caplog.text
    with pytest.raises(dg.Failure) as failed:
        retrying(failing(*[slow] * 4), LOG, under_way=True, policy=AT_ONCE)
    assert "SlowDown" in str(failed.value.description)
    assert "It was tried 4 times." in str(failed.value.description)


@pytest.mark.parametrize("error", [error for error, cause in CAUSES if cause is Cause.PERMANENT])
def test_what_is_permanent_is_raised_at_once_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        retrying(failing(error), LOG, under_way=True, policy=AT_ONCE)
    assert raised.value is error


def test_a_server_out_of_reach_is_a_wrong_setting_until_it_has_answered() -> None:
    error = EndpointConnectionError(endpoint_url=URL)
    with pytest.raises(EndpointConnectionError):
        retrying(failing(error), LOG, under_way=False, policy=AT_ONCE)
    assert retrying(failing(error), LOG, under_way=True, policy=AT_ONCE) == "done"


def test_the_cause_of_a_failure_with_a_remedy_is_what_led_to_it() -> None:
    def explained() -> None:
        try:
            raise aws_error(503, "SlowDown")
        except ClientError:
            raise dg.Failure("S3 answered SlowDown. Run it again.") from None

    with pytest.raises(dg.Failure) as failed:
        explained()
    assert cause_of(failed.value) is Cause.TRANSIENT
