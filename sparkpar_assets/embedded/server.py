"""What the stack knows about a server."""

import http.client
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sparkpar_assets.embedded.ports import HOST
from sparkpar_assets.embedded.state import State


@dataclass(frozen=True)
class StackConfig:
    """What all servers of a stack are made from."""

    state: State
    ports: dict[str, int]
    java_home: str
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Names of other hosts by port name; this machine's own address for all that are not there."""
    listens_on: str = HOST

    def url(self, port_name: str) -> str:
        """The HTTP address of a port."""
        return f"http://{self.hosts.get(port_name, HOST)}:{self.ports[port_name]}"


@dataclass(frozen=True)
class Server:
    """One process of the stack: how to start it, and how to tell that it serves."""

    name: str
    command: list[str]
    environment: dict[str, str]
    folder: Path
    address: str
    listens: dict[str, int]
    is_healthy: Callable[[], bool]
    refers_to: dict[str, int] = field(default_factory=dict)
    """Ports of other servers: when one changes, this server has to be started anew."""
    can_start: Callable[[], bool] = lambda: True
    before_start: Callable[[], None] = lambda: None

    @property
    def ports(self) -> dict[str, int]:
        """Every port that the process was told of."""
        return self.listens | self.refers_to


def clean_environment(state: State) -> dict[str, str]:
    """A server's environment: nothing of the user's clouds, Spark, proxies or home folder."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "LANG", "LC_ALL", "USER", "LOGNAME")
        if name in os.environ
    }
    return {**kept, "HOME": str(state.home), "TMPDIR": str(state.temporary)}


def python_command(module: str, *arguments: str) -> list[str]:
    """Run a module of ours with the Python that runs now."""
    return [sys.executable, "-m", module, *arguments]


def http_status(port: int, path: str = "/") -> int:
    """The status of a GET on this machine, 0 where nobody answers; asks no proxy."""
    return http_get(port, path)[0]


def http_get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET on this machine; 0 and nothing where nobody answers."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
