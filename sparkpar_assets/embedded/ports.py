"""Which port each server listens on, and who has it already."""

import json
import os
import socket
from collections.abc import Mapping

import psutil

from sparkpar_assets.embedded import processes
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.state import State

HOST = "127.0.0.1"
PORTS_VARIABLE = "SPARKPAR_PORTS"

DEFAULT_PORTS = {
    "spark-master": 7077,
    "spark-master-ui": 8080,
    "spark-worker-1-ui": 8081,
    "spark-worker-2-ui": 8082,
    "spark-history": 18080,
    "bigquery": 9050,
    "bigquery-storage": 9060,
    "token-endpoint": 9070,
    "s3": 9000,
    "dagster": 3000,
}

REMEDY = (
    f"Stop what uses it, or choose other ports: {PORTS_VARIABLE}=free takes free ones, "
    f"{PORTS_VARIABLE}=NAME=PORT,… sets single ones ({', '.join(DEFAULT_PORTS)})."
)


def choose_ports(state: State, environ: Mapping[str, str] | None = None) -> dict[str, int]:
    """The ports of a stack: as ``SPARKPAR_PORTS`` says, else as they were, else the defaults.

    Args:
        state: The stack's state; its ports file is not written.
        environ: The environment; that of this process by default.

    Returns:
        The port of each name in ``DEFAULT_PORTS``.

    Raises:
        EmbeddedError: ``SPARKPAR_PORTS`` is neither ``free``, ``default`` nor a list.
    """
    environ = os.environ if environ is None else environ
    wish = environ.get(PORTS_VARIABLE, "").strip()
    if wish == "default":
        return dict(DEFAULT_PORTS)
    if wish == "free":
        return _free_of_others(state)
    return {**DEFAULT_PORTS, **load_ports(state), **_parse(wish)}


def _free_of_others(state: State) -> dict[str, int]:
    """The ports of last time, and in the place of each that others use now a free one."""
    fresh = dict(zip(DEFAULT_PORTS, _free_ports(), strict=True))
    ours = {process.pid for _, process in processes.of_stack(state)}
    kept = {
        name: port
        for name, port in load_ports(state).items()
        if not is_taken(port) or ((owner := _listener(port)) and owner.pid in ours)
    }
    return fresh | kept


def load_ports(state: State) -> dict[str, int]:
    """The ports that the stack was last started on; none if it never was."""
    if not state.ports_file.exists():
        return {}
    ports: dict[str, int] = json.loads(state.ports_file.read_text())
    return ports


def save_ports(state: State, ports: dict[str, int]) -> None:
    """Keep the chosen ports for the commands to come."""
    new = state.ports_file.with_suffix(".new")
    new.write_text(json.dumps(ports, indent=2))
    new.replace(state.ports_file)


def check_free(ports: Mapping[str, int]) -> None:
    """Raise an ``EmbeddedError`` that names every port that is taken, and by whom."""
    taken = [
        f"Port {port} ({name}) is taken{_owner(port)}."
        for name, port in ports.items()
        if is_taken(port)
    ]
    if taken:
        raise EmbeddedError(" ".join(taken), REMEDY)


def is_taken(port: int) -> bool:
    """Whether something listens on the port of this machine.

    Both ways are needed: macOS lets one bind 127.0.0.1 while another listens on all addresses,
    and a server whose backlog is full refuses a connection.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _owner(port: int) -> str:
    """Who listens on a port, as the end of a sentence; nothing where the system won't say."""
    process = _listener(port)
    return f" by {process.info['name']} (process {process.pid})" if process else ""


def _listener(port: int) -> psutil.Process | None:
    """The process that listens on a port, where the system says so."""
    for process in psutil.process_iter(["name"]):
        try:
            listens = any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for connection in process.net_connections(kind="tcp")
            )
        except psutil.Error:
            continue
        if listens:
            return process
    return None


def _free_ports() -> list[int]:
    """A free port for each name; all are held while they are chosen, so that none comes twice."""
    sockets = [socket.socket() for _ in DEFAULT_PORTS]
    try:
        for probe in sockets:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


def _parse(wish: str) -> dict[str, int]:
    ports = {}
    for part in filter(None, wish.split(",")):
        name, _, port = part.strip().partition("=")
        if name not in DEFAULT_PORTS or not port.isdigit() or not 0 < int(port) < 65536:
            raise EmbeddedError(
                f"{PORTS_VARIABLE} has '{part}', which is not NAME=PORT.",
                f"Write free, default, or a list of these names: {', '.join(DEFAULT_PORTS)}.",
            )
        ports[name] = int(port)
    return ports
