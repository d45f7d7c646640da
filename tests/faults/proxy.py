"""Proxies between the platform and its servers, which make the faults of networks and servers."""

import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

import grpc

from sparkpar_assets.embedded.credentials import (
    ca_file,
    server_certificate_file,
    server_key_file,
)
from sparkpar_assets.embedded.state import State

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
"""Headers that are about one connection alone (RFC 9110, section 7.6.1), and the length."""

ANY_LENGTH = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True)
class Request:
    """A request, as the proxy has it before the server.

    Attributes:
        method: HTTP's, or the name of gRPC's.
        target: Path and query; empty with gRPC.
        headers: By name, in lower case; gRPC's metadata.
    """

    method: str
    target: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Refusal:
    """An answer in the server's place.

    Attributes:
        status: The HTTP status.
        body: The answer's body.
        kind: Its content type.
    """

    status: int
    body: str
    kind: str = "application/xml"


@dataclass(frozen=True)
class Delay:
    """The server gets the request so many seconds later."""

    seconds: float


class Reset:
    """The connection is reset in the middle of the request's body; the server has none of it."""


Fault: TypeAlias = Refusal | Delay | Reset | grpc.StatusCode
Rule = Callable[[Request], "Fault | None"]
Listener = Callable[[str, bytes, bytes], None]
"""Is told a call's name, its question and an answer to it: of a stream, one after the other."""


@dataclass
class Faults:
    """What a proxy does to requests, and what it has done.

    Attributes:
        rule: The fault of a request; None where it goes through. A test sets it.
        made: The requests that met a fault.
    """

    rule: Rule = lambda _: None
    made: list[Request] = field(default_factory=list)

    def of(self, request: Request) -> Fault | None:
        """What is to be done to a request."""
        fault = self.rule(request)
        if fault is not None:
            self.made.append(request)
        return fault

    def end(self) -> None:
        """Let everything through from now on, and forget what was done."""
        self.rule = lambda _: None
        self.made = []


def first(times: int, rule: Rule) -> Rule:
    """A rule that has an end: it makes so many faults."""
    left = [None] * times
    lock = threading.Lock()

    def limited(request: Request) -> Fault | None:
        with lock:
            fault = rule(request) if left else None
            if fault is not None:
                left.pop()
            return fault

    return limited


def one_in(number: int, fault: Fault) -> Rule:
    """A rule that meets every so many-th request."""
    requests = iter(range(number, 1_000_000_000))
    return lambda _: fault if next(requests) % number == 0 else None


class _Handler(http.server.BaseHTTPRequestHandler):
    """Passes one connection's requests on."""

    protocol_version = "HTTP/1.1"
    server: "_HttpServer"

    def do_GET(self) -> None:
        """Pass a request on, or make its fault."""
        length = int(self.headers.get("Content-Length") or 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        fault = self.server.faults.of(Request(self.command, self.path, headers))
        if isinstance(fault, Reset):
            self.rfile.read(length // 2)
            reset(self.connection)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if isinstance(fault, Refusal):
            self._answer(fault.status, {"Content-Type": fault.kind}, fault.body.encode())
            return
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        self._pass_on(body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_GET  # noqa: N815  # http.server's names

    def _pass_on(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(self.server.upstream)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # Host too: signatures cover it
            if name.lower() not in {"expect", "connection"}:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        kept = {
            name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP
        }
        if self.command == "HEAD" and (length := answer.getheader("Content-Length")):
            kept["Content-Length"] = length
        self._answer(answer.status, kept, answer.read())
        connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD" and status not in {204, 304}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's
        """Say nothing."""


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.faults = faults

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


@dataclass(frozen=True)
class HttpProxy:
    """A proxy for REST and S3.

    Attributes:
        url: Where it listens.
        faults: What it does to requests.
    """

    url: str
    faults: Faults


@contextmanager
def http_proxy(upstream: str) -> Iterator[HttpProxy]:
    """Serve on a free port.

    Args:
        upstream: The server's URL.
    """
    faults = Faults()
    server = _HttpServer(urlsplit(upstream).netloc, faults)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield HttpProxy(f"http://127.0.0.1:{server.server_port}", faults)
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class TcpProxy:
    """A proxy that knows nothing of what it passes on, such as TLS.

    Attributes:
        endpoint: Where it listens, host:port.
        reset_after: How many bytes the server says before a connection is reset.
        resets: How many connections are still to be reset.
        made: How many were.
    """

    endpoint: str = ""
    reset_after: int = 0
    resets: int = 0
    made: int = 0

    def pump(self, source: socket.socket, target: socket.socket, *, from_server: bool) -> None:
        """Pass on what comes, until one side ends or the connection is to be reset."""
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if from_server and self.resets and passed > self.reset_after:
                    self.resets -= 1
                    self.made += 1
                    reset(target)
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def tcp_proxy(upstream: tuple[str, int]) -> Iterator[TcpProxy]:
    """Serve on a free port.

    Args:
        upstream: The server's host and port. It may be gone for a while: then connections end.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        proxy = TcpProxy(f"localhost:{server.getsockname()[1]}")

        def accept() -> None:
            with suppress(OSError):  # the server is closed in the end
                while True:
                    client, _ = server.accept()
                    threading.Thread(target=connect, args=(client,), daemon=True).start()

        def connect(client: socket.socket) -> None:
            try:
                remote = socket.create_connection(upstream)
            except OSError:
                reset(client)
                return
            threading.Thread(
                target=proxy.pump,
                args=(client, remote),
                kwargs={"from_server": False},
                daemon=True,
            ).start()
            proxy.pump(remote, client, from_server=True)

        threading.Thread(target=accept, daemon=True).start()
        yield proxy


def reset(connection: socket.socket) -> None:
    """End a TCP connection by a reset (RST), as a crashed machine or a firewall does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
    connection.close()


@dataclass
class GrpcProxy:
    """A server of the Storage Read API that passes calls on to the emulator, or refuses them.

    Attributes:
        endpoint: Where it listens, host:port.
        faults: What it does to calls.
        listener: Hears what is passed on. A test sets it.
    """

    channel: grpc.Channel
    endpoint: str = ""
    faults: Faults = field(default_factory=Faults)
    listener: Listener = lambda _call, _question, _answer: None

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The handler of a call; the messages stay bytes."""
        request = Request(call.method.rpartition("/")[2], "", dict(call.invocation_metadata))
        passed = [
            item
            for item in call.invocation_metadata
            if not item[0].startswith("grpc-") and item[0] != "user-agent"
        ]

        def refuse(context: grpc.ServicerContext) -> None:
            fault = self.faults.of(request)
            if isinstance(fault, Delay):
                time.sleep(fault.seconds)
            elif isinstance(fault, grpc.StatusCode):
                context.abort(fault, "made by a test")

        def unary(message: bytes, context: grpc.ServicerContext) -> bytes:
            refuse(context)
            try:
                answer: bytes = self.channel.unary_unary(call.method)(message, metadata=passed)
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())
            self.listener(request.method, message, answer)
            return answer

        def stream(message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            refuse(context)
            try:
                for answer in self.channel.unary_stream(call.method)(message, metadata=passed):
                    self.listener(request.method, message, answer)
                    yield answer
            except grpc.RpcError as error:
                context.abort(error.code(), error.details())

        if request.method == "ReadRows":
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, proxy: GrpcProxy) -> None:
        self.proxy = proxy

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self.proxy.service(handler_call_details)


@contextmanager
def grpc_proxy(state: State, upstream: int) -> Iterator[GrpcProxy]:
    """Serve on a free port, over TLS with the certificate of an embedded stack.

    Args:
        state: The stack's state.
        upstream: The port of its Storage Read API.
    """
    authority = grpc.ssl_channel_credentials(ca_file(state).read_bytes())
    files = (server_key_file(state), server_certificate_file(state))
    identity = grpc.ssl_server_credentials([tuple(file.read_bytes() for file in files)])
    server = grpc.server(ThreadPoolExecutor(max_workers=16), options=ANY_LENGTH)
    with grpc.secure_channel(f"localhost:{upstream}", authority, ANY_LENGTH) as channel:
        proxy = GrpcProxy(channel)
        server.add_generic_rpc_handlers([_Calls(proxy)])
        proxy.endpoint = f"localhost:{server.add_secure_port('127.0.0.1:0', identity)}"
        server.start()
        try:
            yield proxy
        finally:
            server.stop(grace=None).wait()
