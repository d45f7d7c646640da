"""The gaps of bqemulator that our launcher closes. When one of these fails, it closed its own."""

import inspect

import pyarrow as pa
from bqemulator.grpc_api import server
from bqemulator.streaming import read_session

from sparkpar_assets.embedded.bigquery_launcher import serialize_schema

SCHEMA = pa.schema([("fare", pa.decimal128(38, 9))])
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def test_bqemulator_still_ends_the_schema_with_an_end_of_stream_marker() -> None:
    theirs = read_session._serialise_arrow_schema(SCHEMA)
    assert theirs.endswith(END_OF_STREAM)
    assert theirs == serialize_schema(SCHEMA) + END_OF_STREAM


def test_bqemulator_still_offers_no_tls() -> None:
    source = inspect.getsource(server)
    assert "add_insecure_port" in source
    assert "add_secure_port" not in source


def test_bqemulator_still_keeps_every_read_session() -> None:
    assert type(read_session._SESSIONS) is dict
    assert "_SESSIONS.pop" not in inspect.getsource(read_session)
