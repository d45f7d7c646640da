"""BigQuery is killed, overburdened or slow, or breaks off, while a run reads three years."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from google.auth import jwt

from sparkpar_assets.embedded.credentials import service_account_file
from sparkpar_assets.embedded.testing import EmbeddedStack
from sparkpar_assets.embedded.token_endpoint import PATH, TokenHandler, TokenServer
from sparkpar_assets.resources.private_files import write_private
from tests.faults.clouds import Clouds, assert_nothing_staged, clouds_behind_proxies, materialize
from tests.faults.proxy import Delay, Fault, Refusal, Request, Rule, first, one_in
from tests.faults.report import Trial
from tests.faults.runs import YEARS, assert_exact, load_samples
from tests.integration.warm_spark import end_warm_session
from tests.integration.workbench import Workbench

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
JAVA = "grpc-java"
"""In the name that the connector's client gives itself; the platform's own is ``grpc-python``."""
MARGIN_SECONDS = 225
"""Google's clients fetch another token so long before one expires."""


def answer(status: int, reason: str) -> Refusal:
    """What BigQuery's REST interface answers in an error."""
    error = {"code": status, "message": "made by a test", "errors": [{"reason": reason}]}
    return Refusal(status, json.dumps({"error": error}), "application/json")


def calls(method: str, fault: Fault, client: str = "") -> Rule:
    """Meets the calls of a method of the Storage Read API, of one language's client or of any."""

    def rule(request: Request) -> Fault | None:
        is_such = request.method == method and client in request.headers["user-agent"]
        return fault if is_such else None

    return rule


@pytest.fixture(scope="module")
def all_clouds(embedded_stack: EmbeddedStack) -> Iterator[Clouds]:
    with clouds_behind_proxies(embedded_stack) as clouds:
        yield clouds


@pytest.fixture
def clouds(
    all_clouds: Clouds, workbench: Workbench, embedded_stack: EmbeddedStack
) -> Iterator[Clouds]:
    """The clouds with three years of trips, for one test alone, and well again after it."""
    load_samples(workbench)
    all_clouds.lead(workbench)
    yield all_clouds
    all_clouds.heal()
    embedded_stack.stack.up(say=lambda _: None)


def assert_all_is_well(bench: Workbench) -> None:
    """Every year is exact, published once and told to Dagster once, and nothing else is left."""
    assert_exact(bench)
    assert bench.materialized_years() == [str(year) for year in YEARS]
    assert_nothing_staged(bench)


@pytest.mark.fault("BigQuery's REST interface answers 503 or 429 to one request in four")
def test_a_run_succeeds_though_metadata_are_throttled(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    faults = itertools.cycle([answer(503, "backendError"), answer(429, "rateLimitExceeded")])
    turn = one_in(4, Delay(0))
    clouds.rest.faults.rule = lambda request: next(faults) if turn(request) else None
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    assert len(clouds.rest.faults.made) > 1
    assert_all_is_well(workbench)


@pytest.mark.fault("BigQuery's Storage Read API answers UNAVAILABLE to one call in three")
def test_a_run_succeeds_though_the_storage_read_api_is_unavailable_now_and_then(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.storage.faults.rule = one_in(3, UNAVAILABLE)
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    assert len(clouds.storage.faults.made) > 1
    assert_all_is_well(workbench)


@pytest.mark.quick
@pytest.mark.fault("BigQuery's Storage Read API answers RESOURCE_EXHAUSTED to the read")
def test_a_read_that_is_throttled_is_tried_again_with_a_sentence(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.storage.faults.rule = first(1, calls("CreateReadSession", EXHAUSTED, JAVA))
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds at the second try")
    assert len(clouds.storage.faults.made) == 1
    assert run.tries_again == 1
    assert "RESOURCE_EXHAUSTED: made by a test. This was try 1 of 4" in run.log
    assert_all_is_well(workbench)


@pytest.mark.fault("BigQuery refuses the read (PERMISSION_DENIED)")
def test_a_read_that_is_refused_is_not_tried_again(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    denied = grpc.StatusCode.PERMISSION_DENIED
    clouds.storage.faults.rule = calls("CreateReadSession", denied, JAVA)
    trial.begins()
    run = materialize(workbench)
    assert not run.success
    assert "BigQuery refused the account while Spark read." in run.log
    trial.is_over("run fails at once")
    assert run.tries_again == 0
    assert workbench.materialized_years() == []
    assert_nothing_staged(workbench)


@pytest.mark.quick
@pytest.mark.fault("BigQuery's streams are reset midway")
def test_a_run_succeeds_though_streams_are_reset_midway(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.lead(workbench, BIGQUERY_STORAGE_GRPC_ENDPOINT=clouds.wire.endpoint)
    clouds.wire.reset_after, clouds.wire.resets = 200_000, 3
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    assert clouds.wire.made == 3
    assert_all_is_well(workbench)


@pytest.mark.fault("BigQuery's server is killed during the read and restarted")
def test_a_run_succeeds_though_the_server_is_killed_while_it_reads(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    stack = workbench.stack.stack
    (pid,) = (one.pid for one in stack.status() if one.server.name == "bigquery")
    once = threading.Lock()  # several streams are read at a time
    restart = threading.Thread(target=stack.up, kwargs={"say": lambda _: None})

    def kill(request: Request) -> None:
        if request.method == "ReadRows" and once.acquire(blocking=False):
            trial.begins()
            server = psutil.Process(pid)
            server.kill()
            server.wait()
            restart.start()

    clouds.storage.faults.rule = kill
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    restart.join()
    assert_all_is_well(workbench)


@pytest.mark.fault("BigQuery does not answer a request for longer than the client waits")
def test_a_request_that_times_out_is_made_again(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.rest.faults.rule = first(1, lambda _: Delay(70))
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    assert_all_is_well(workbench)


@pytest.mark.fault("BigQuery takes three seconds for each request")
def test_a_run_succeeds_though_bigquery_is_slow(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    clouds.rest.faults.rule = clouds.storage.faults.rule = lambda _: Delay(3)
    trial.begins()
    run = materialize(workbench)
    assert run.success, run.log[-5000:]
    trial.is_over("run succeeds")
    assert_all_is_well(workbench)


class ShortTokens(TokenServer):
    """Gives tokens that live for some seconds, and knows until when each is good.

    Attributes:
        seconds: Of their lives.
        good_until: When each ends, by the monotonic clock.
    """

    def __init__(self, key_file: Path, seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), key_file)
        self.RequestHandlerClass = ShortTokenHandler
        self.seconds = seconds
        self.good_until: dict[str, float] = {}

    def refuse_expired(self, request: Request) -> bool:
        """Whether the request's token is not good any more, or never was."""
        token = request.headers["authorization"].removeprefix("Bearer ")
        if token.count(".") == 2:  # which the connector signs itself, to read: nobody gives it
            return float(jwt.decode(token, verify=False)["exp"]) < time.time()  # type: ignore[no-untyped-call]
        return self.good_until.get(token, 0) < time.monotonic()


class ShortTokenHandler(TokenHandler):
    """Answers as the stack's own endpoint, with shorter lives."""

    server: ShortTokens

    def _answer(self, status: int, content: dict[str, object]) -> None:
        if token := content.get("access_token"):
            self.server.good_until[str(token)] = time.monotonic() + self.server.seconds
            content["expires_in"] = MARGIN_SECONDS + int(self.server.seconds)
        super()._answer(status, content)


@contextmanager
def short_tokens(bench: Workbench, seconds: float) -> Iterator[ShortTokens]:
    """A token endpoint for the runs of a workbench."""
    key = service_account_file(bench.stack.stack.state)
    with ShortTokens(key, seconds) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = {"token_uri": f"http://127.0.0.1:{server.server_port}{PATH}"}
        mine = bench.folder / "key.json"
        write_private(mine, json.dumps(json.loads(key.read_text()) | uri))
        bench.configure(GOOGLE_APPLICATION_CREDENTIALS=str(mine))
        yield server
        server.shutdown()


@pytest.mark.fault("the token expires during the read")
def test_a_run_that_outlives_its_token_fetches_another(
    clouds: Clouds, workbench: Workbench, trial: Trial
) -> None:
    end_warm_session()  # the connector keeps its clients, and with them the tokens of another key
    with short_tokens(workbench, seconds=10) as tokens:
        used: set[str] = set()

        def call(request: Request) -> Fault | None:
            return grpc.StatusCode.UNAUTHENTICATED if tokens.refuse_expired(request) else Delay(3)

        def metadata(request: Request) -> Fault | None:
            used.add(request.headers["authorization"])
            return answer(401, "authError") if tokens.refuse_expired(request) else None

        clouds.storage.faults.rule, clouds.rest.faults.rule = call, metadata
        trial.begins()
        run = materialize(workbench)
        assert run.success, run.log[-5000:]
        trial.is_over("run succeeds")
    assert len(used) > 1
    assert clouds.rest.faults.made == []
    assert_all_is_well(workbench)
