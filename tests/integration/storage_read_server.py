"""A server of the Storage Read API that gives estimates as BigQuery does, and records requests.

The emulator gives none, and cannot refuse.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from google.cloud.bigquery_storage_v1 import types

from sparkpar_assets.embedded.credentials import server_certificate_file, server_key_file
from sparkpar_assets.embedded.state import State

METHOD = "google.cloud.bigquery.storage.v1.BigQueryRead"


@dataclass
class StorageReadServer:
    """What the server answers, and what it was asked.

    Attributes:
        rows: The estimate of the rows.
        scanned: The estimate of the bytes.
        streams: Names of the session's streams; none where there is nothing to read.
        refusal: The status and the text that every request is refused with; None for none.
        requests: The requests for a read session, in the order of their coming.
        endpoint: Where it listens, host:port.
    """

    rows: int = 0
    scanned: int = 0
    streams: list[str] = field(default_factory=lambda: ["sessions/one/streams/0"])
    refusal: tuple[grpc.StatusCode, str] | None = None
    requests: list[types.CreateReadSessionRequest] = field(default_factory=list)
    endpoint: str = ""

    def create_read_session(
        self, request: types.CreateReadSessionRequest, context: grpc.ServicerContext
    ) -> types.ReadSession:
        """Answer one request."""
        self.requests.append(request)
        if self.refusal:
            context.abort(*self.refusal)
        return types.ReadSession(
            streams=[types.ReadStream(name=name) for name in self.streams],
            estimated_row_count=self.rows,
            estimated_total_bytes_scanned=self.scanned,
        )


@contextmanager
def storage_read_server(state: State, **answer: int) -> Iterator[StorageReadServer]:
    """Serve on a free port, over TLS with the certificate of an embedded stack.

    Args:
        state: The stack's state.
        answer: ``rows`` and ``scanned`` of the answer.
    """
    served = StorageReadServer(**answer)  # type: ignore[arg-type]  # the names are those above
    handler = grpc.unary_unary_rpc_method_handler(
        served.create_read_session,
        request_deserializer=types.CreateReadSessionRequest.deserialize,
        response_serializer=types.ReadSession.serialize,
    )
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(METHOD, {"CreateReadSession": handler})]
    )
    files = (server_key_file(state), server_certificate_file(state))
    credentials = grpc.ssl_server_credentials([tuple(file.read_bytes() for file in files)])
    served.endpoint = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield served
    finally:
        server.stop(grace=None).wait()
