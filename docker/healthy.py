#!/opt/venv/bin/python -I
"""Tells Docker whether a container serves: exit code 0, or 1 with the reason in one line.

healthy http PORT PATH [STATUS ...]   a GET answers with one of these (200)
healthy worker                        the master counts on this worker
healthy code-server PORT              the gRPC health service says SERVING
healthy daemon                        every one of Dagster's daemons has a recent heartbeat
"""

import http.client
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

TIMEOUT_SECONDS = 5
MASTER = ("spark-master", 8080)


def get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read()


def check_http(port: str, path: str, *wanted: str) -> str:
    """Ask a server of this container."""
    status, _ = get("127.0.0.1", int(port), path)
    return "" if str(status) in (wanted or ("200",)) else f"{path} answers {status}"


def check_worker() -> str:
    """Ask the master: a worker that only runs, and is not registered, gets no executor."""
    _, body = get(*MASTER, "/json/")
    name = socket.gethostname()
    workers = json.loads(body)["workers"]
    if any(w["host"] == name and w["state"] == "ALIVE" for w in workers):
        return ""
    return f"the master has no living worker {name}"


def check_code_server(port: str) -> str:
    """Call gRPC's health service; its messages are two bytes, and need no generated code."""
    import grpc

    service = bytes([0x0A, len(SERVICE)]) + SERVICE
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = channel.unary_unary("/grpc.health.v1.Health/Check")(
            service, timeout=TIMEOUT_SECONDS
        )
    return "" if answer == b"\x08\x01" else f"the code server answers {answer!r}"


def check_daemon() -> str:
    """Read the heartbeats where the daemon writes them.

    Dagster's own check loads all of Dagster for it: seconds of a processor, every time.
    """
    import psycopg2

    password = Path("/run/secrets/postgres_password").read_text()
    database = {"host": "postgres", "dbname": "dagster", "user": "dagster"}
    connection = psycopg2.connect(**database, password=password, connect_timeout=TIMEOUT_SECONDS)
    with connection, connection.cursor() as cursor:
        cursor.execute(HEARTBEATS)
        beating = {name for (name,) in cursor.fetchall()}
    silent = sorted(set(DAEMONS) - beating)
    return f"no heartbeat of {', '.join(silent)} in the last five minutes" if silent else ""


SERVICE = b"DagsterApi"
HEARTBEATS = """
SELECT daemon_type FROM daemon_heartbeats
WHERE timestamp > now() AT TIME ZONE 'utc' - interval '5 minutes'
"""
DAEMONS = (
    "ASSET",
    "BACKFILL",
    "EVENT_LOG_CONSUMER",
    "FRESHNESS_DAEMON",
    "MONITORING",
    "QUEUED_RUN_COORDINATOR",
    "SCHEDULER",
    "SENSOR",
)
CHECKS: dict[str, Callable[..., str]] = {
    "http": check_http,
    "worker": check_worker,
    "code-server": check_code_server,
    "daemon": check_daemon,
}


def main() -> None:
    """Run one check."""
    try:
        problem = CHECKS[sys.argv[1]](*sys.argv[2:])
    except Exception as error:  # noqa: BLE001  # whatever it is, the container does not serve
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
    if problem:
        sys.exit(problem)


main()
