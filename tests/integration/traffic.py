"""What runs send to BigQuery's Storage Read API and to S3, counted by proxies before them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from google.cloud.bigquery_storage_v1 import types

from tests.faults.clouds import Clouds
from tests.faults.proxy import Fault, Request


@dataclass
class ReadSession:
    """A read session that a client has asked for.

    Attributes:
        table: The table's name, without project and dataset.
        columns: The columns that are asked for.
        restriction: The rows that are asked for, as GoogleSQL; empty for all.
        rows: How many rows of it were served.
        bytes: In how many bytes of Arrow record batches.
    """

    table: str
    columns: tuple[str, ...]
    restriction: str
    rows: int = 0
    bytes: int = 0


@dataclass
class Traffic:
    """What was sent while it was counted.

    Attributes:
        sessions: The read sessions by name, estimates included: of those nothing is read.
        s3: The requests to S3 by operation, as the S3 API reference calls it.
    """

    sessions: dict[str, ReadSession] = field(default_factory=dict)
    s3: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def read(self) -> list[ReadSession]:
        """The sessions that rows were read of, in the order of their tables."""
        read = [session for session in self.sessions.values() if session.rows]
        return sorted(read, key=lambda session: session.table)

    def hear(self, call: str, question: bytes, answer: bytes) -> None:
        """Count an answer of the Storage Read API."""
        with self._lock:
            if call == "CreateReadSession":
                asked = types.CreateReadSessionRequest.deserialize(question).read_session
                self.sessions[types.ReadSession.deserialize(answer).name] = ReadSession(
                    asked.table.rpartition("/")[2],
                    tuple(asked.read_options.selected_fields),
                    asked.read_options.row_restriction,
                )
            elif call == "ReadRows":
                stream = types.ReadRowsRequest.deserialize(question).read_stream
                session = self.sessions[stream.partition("/streams/")[0]]
                rows = types.ReadRowsResponse.deserialize(answer)
                session.rows += rows.row_count
                session.bytes += len(rows.arrow_record_batch.serialized_record_batch)

    def see(self, request: Request) -> Fault | None:
        """Count a request to S3, and let it through."""
        with self._lock:
            self.s3[s3_operation(request)] += 1
        return None


def s3_operation(request: Request) -> str:
    """The name of an S3 operation, by method, query and headers (S3 API reference, "Actions")."""
    parts = urlsplit(request.target)
    query = parse_qs(parts.query, keep_blank_values=True)
    key = unquote(parts.path).lstrip("/").partition("/")[2]
    if request.method == "GET" and not key:
        return "ListMultipartUploads" if "uploads" in query else "ListObjectsV2"
    if request.method == "POST" and "uploadId" not in query:
        return "DeleteObjects" if "delete" in query else "CreateMultipartUpload"
    if request.method == "PUT" and "x-amz-copy-source" in request.headers:
        return "CopyObject"
    of_upload = "uploadId" in query
    return {
        "HEAD": "HeadObject",
        "GET": "GetObject",
        "PUT": "UploadPart" if of_upload else "PutObject",
        "POST": "CompleteMultipartUpload",
        "DELETE": "AbortMultipartUpload" if of_upload else "DeleteObject",
    }[request.method]


@contextmanager
def counted(clouds: Clouds) -> Iterator[Traffic]:
    """Count what goes through the proxies while the block lasts."""
    traffic = Traffic()
    unheard, clouds.storage.listener = clouds.storage.listener, traffic.hear
    clouds.s3.faults.rule = traffic.see
    try:
        yield traffic
    finally:
        clouds.storage.listener = unheard
        clouds.heal()
