"""Secrets stay in files and environments: not in command lines, logs, events, pages or objects."""

import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

from sparkpar_assets.embedded.spark_master import master_state
from sparkpar_assets.resources.private_files import write_private
from tests.integration.versions import fares, trips_table
from tests.integration.workbench import FARES, Workbench, wait_until

SAMPLE_SECONDS = 0.05
MARK = "sparkpar-marker"
"""Stands in every secret that a test makes up."""
EVERYTHING = """
query Everything {
  runsOrError { ... on Runs { results {
    runId status runConfigYaml tags { key value }
    eventConnection { events {
      ... on MessageEvent { message eventType }
      ... on ExecutionStepFailureEvent { error { message stack } failureMetadata { description } }
      ... on RunFailureEvent { error { message stack } }
    } }
  } } }
  assetNodes { assetKey { path } description metadataEntries { label description }
    assetMaterializations { metadataEntries { label ... on TextMetadataEntry { text }
      ... on UrlMetadataEntry { url } ... on PathMetadataEntry { path } } } }
  instance { info }
}
"""


class CommandLines(threading.Thread):
    """Collects the command line of every process on the machine until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Look every few hundredths of a second: Spark's launchers live for half a second."""
        while not self.stopped.wait(SAMPLE_SECONDS):
            for process in psutil.process_iter():
                try:
                    self.seen.add("\0".join(process.cmdline()))
                except psutil.Error:
                    continue


@contextmanager
def sampled_command_lines() -> Iterator[set[str]]:
    """The command lines of all processes that run while the block does."""
    sampler = CommandLines()
    sampler.start()
    try:
        yield sampler.seen
    finally:
        sampler.stopped.set()
        sampler.join()


@pytest.fixture
def given_tokens(workbench: Workbench) -> Iterator[list[str]]:
    """The access tokens that Google's clients are given, by way of an endpoint in between."""
    tokens: list[str] = []
    key_file = workbench.settings.google_credentials_file
    assert key_file is not None
    key = json.loads(Path(key_file).read_text())

    class Relay(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {"Content-Type": self.headers["Content-Type"]}
            answer = requests.post(key["token_uri"], body, headers=headers, timeout=30)
            if answer.ok:
                tokens.append(answer.json()["access_token"])
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ours = workbench.folder / "service_account.json"
    relayed = {"token_uri": f"http://127.0.0.1:{server.server_port}/token"}
    write_private(ours, json.dumps(key | relayed))
    workbench.configure(GOOGLE_APPLICATION_CREDENTIALS=str(ours))
    yield tokens
    server.shutdown()
    server.server_close()


def secrets_of(bench: Workbench, tokens: list[str]) -> dict[str, list[str]]:
    """What must not be seen, by name: whole, or in the lines that a private key has."""
    settings = bench.settings
    keys = (settings.aws_access_key_id, settings.aws_secret_access_key)
    access, secret = (key.get_secret_value() for key in keys if key is not None)
    private_key = json.loads(Path(str(settings.google_credentials_file)).read_text())["private_key"]
    lines = [line for line in private_key.splitlines() if line and "PRIVATE KEY" not in line]
    cluster_secret = Path(str(settings.spark_auth_secret_file)).read_text()
    return {
        "Spark cluster's secret": [cluster_secret],
        "AWS access key": [access],
        "AWS secret key": [secret],
        "Google private key": lines,
        "Google access token": tokens,
    }


def leaks(secrets: dict[str, list[str]], content: bytes) -> list[str]:
    """Names of the secrets that stand in some bytes."""
    return [
        name
        for name, values in secrets.items()
        if any(value.encode() in content for value in values)
    ]


def test_no_secret_of_a_run_is_seen_in_command_lines_logs_or_events(
    workbench: Workbench, given_tokens: list[str]
) -> None:
    workbench.load_trips(2018, trips_table(3))
    with sampled_command_lines() as command_lines:
        run = workbench.materialize("--select", FARES, "--partition", "2018")
    assert run.returncode == 0, run.stderr[-5000:]
    assert workbench.published(2018).to_pylist() == fares(3)
    assert given_tokens

    secrets = secrets_of(workbench, given_tokens)
    with workbench.instance() as instance:
        (run_id,) = [record.run_id for record in instance.get_runs()]
    for what in (
        f"{FARES} {run_id}",
        "CoarseGrainedExecutorBackend",
        "dagster\0asset\0materialize",
    ):
        assert any(what in line for line in command_lines), f"{what} was not sampled"
    assert not leaks(secrets, "\n".join(command_lines).encode())

    state = workbench.stack.stack.state
    written = {
        "the run's output": [run.stdout.encode(), run.stderr.encode()],
        "Dagster's instance": _contents(workbench.dagster_home),
        "Spark's event logs": _contents(state.event_logs),
        "executors' logs": _contents(*state.data.glob("spark-worker-*")),
        "servers' logs": _contents(state.logs),
        "temporary files": _contents(workbench.temporary),
    }
    assert any(run_id.encode() in content for content in written["Spark's event logs"])
    assert any(run_id.encode() in content for content in written["Dagster's instance"])
    assert not {
        f"{name} in {where}"
        for where, contents in written.items()
        for content in contents
        for name in leaks(secrets, content)
    }


@pytest.mark.slow
def test_no_secret_is_seen_in_a_page_an_answer_or_a_published_object(
    workbench: Workbench, given_tokens: list[str]
) -> None:
    workbench.load_trips(2018, trips_table(3))
    secrets = secrets_of(workbench, given_tokens)
    workbench.configure(ALERT_WEBHOOK_URL=f"http://127.0.0.1:1/{MARK}-webhook")
    said = [_failed_run(workbench, **values) for values in _wrong_secrets(workbench)]
    for words in ("SignatureDoesNotMatch", "NotImplemented", "another secret", "wrong_key.json"):
        assert any(words in text for text in said), words

    run = workbench.popen("--select", FARES, "--partition", "2018")
    pages = _pages_of_running_application(workbench)
    assert run.wait(timeout=120) == 0, workbench.output_of(run)
    pages |= _pages_of_dagster(workbench)
    keys = workbench.keys()
    objects = {key: workbench.content(key) for key in keys}
    assert objects
    logs = _contents(workbench.dagster_home, workbench.stack.stack.state.logs)
    files = {f"file {number}": content for number, content in enumerate(logs)}
    secrets["planted marker"] = [MARK]
    output = "".join([*said, workbench.output_of(run)]).encode()
    seen = {**pages, **objects, **files, "output": output}
    assert not {
        f"{name} in {where}" for where, text in seen.items() for name in leaks(secrets, text)
    }


def _wrong_secrets(bench: Workbench) -> Iterator[dict[str, str]]:
    """Settings with which a run fails, each with a made-up secret."""
    yield {"AWS_SECRET_ACCESS_KEY": f"{MARK}-secret"}
    yield {"AWS_SESSION_TOKEN": f"{MARK}-token"}
    secret = bench.folder / "cluster_secret"
    write_private(secret, f"{MARK}-cluster")
    yield {"SPARK_AUTH_SECRET_FILE": str(secret)}
    file = bench.folder / "wrong_key.json"
    key = json.loads(Path(str(bench.settings.google_credentials_file)).read_text())
    wrong = {"private_key": f"-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n"}
    write_private(file, json.dumps(key | wrong))
    yield {"GOOGLE_APPLICATION_CREDENTIALS": str(file)}


def _failed_run(bench: Workbench, **values: str) -> str:
    """What a run with these settings prints; the settings are as they were, afterwards."""
    before = bench.settings.as_environment()
    bench.configure(**values)
    done = bench.materialize("--select", FARES, "--partition", "2018")
    bench.configure(**{name: before[name] or "" for name in values})
    assert done.returncode != 0
    return done.stdout + done.stderr


def _pages_of_running_application(bench: Workbench) -> dict[str, bytes]:
    """What Spark's web interfaces show of the run, by address."""
    ports, url = bench.stack.ports, bench.stack.stack.config.url
    wait_until(lambda: list(master_state(ports["spark-master-ui"])["activeapps"]), "the run")
    (application,) = master_state(ports["spark-master-ui"])["activeapps"]
    page = f"{url('spark-master-ui')}/app/?appId={application['id']}"
    found = re.search(r'href="(http://127\.0\.0\.1:\d+)"[^>]*>Application Detail', _get(page))
    assert found is not None
    # While Spark starts, each of the pages says that and nothing else.
    wait_until(lambda: "redacted" in _get(f"{found[1]}/environment/"), "the run's own pages")
    api = f"{found[1]}/api/v1/applications/{application['id']}"
    addresses = [page, f"{found[1]}/environment/", f"{found[1]}/executors/"]
    addresses += [f"{api}/environment", f"{api}/allexecutors", f"{api}/jobs"]
    for name in ("spark-master-ui", "spark-worker-1-ui", "spark-worker-2-ui", "spark-history"):
        addresses += [url(name), f"{url(name)}/json/"]
    pages = {address: _get(address).encode() for address in addresses}
    assert b"spark.authenticate.secret" in pages[f"{api}/environment"]
    return pages


def _pages_of_dagster(bench: Workbench) -> dict[str, bytes]:
    """What Dagster's web interface answers of all runs and assets."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    workspace = ("-w", "workspace.local.yaml", "-p", str(port))
    process = bench.start(*bench.command("dagster-webserver", *workspace))
    wait_until(
        lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0 or process.poll() is not None,
        "Dagster's web interface",
    )
    address = f"http://127.0.0.1:{port}"
    answer = requests.post(f"{address}/graphql", json={"query": EVERYTHING}, timeout=60)
    assert len(answer.json()["data"]["runsOrError"]["results"]) == 5
    assert "SignatureDoesNotMatch" in answer.text
    return {"GraphQL": answer.content, "page": _get(address).encode()}


def _get(address: str) -> str:
    return requests.get(address, timeout=30).text


def _contents(*folders: Path) -> list[bytes]:
    """Every file below some folders, but for jars that Spark may have put there."""
    files = (file for folder in folders for file in folder.rglob("*"))
    return [file.read_bytes() for file in files if file.is_file() and file.suffix != ".jar"]
