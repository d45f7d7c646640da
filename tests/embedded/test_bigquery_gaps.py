"""The gaps of bqemulator that our launcher closes. When one of these fails, it closed its own."""

import asyncio
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from bqemulator.api.routes import jobs
from bqemulator.config import Settings
from bqemulator.grpc_api import read_servicer, server
from bqemulator.storage.engine import DuckDBEngine
from bqemulator.streaming import read_session
from google.cloud.bigquery_storage_v1 import types

from sparkpar_assets.embedded.bigquery_launcher import (
    install_spatial,
    separate_threads,
    serialize_schema,
    without_estimate,
)
from sparkpar_assets.embedded.bigquery_sessions import (
    LARGE_ROWS,
    LateCopies,
    LateRows,
    RecentSessions,
)

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


def test_of_sessions_that_take_more_than_their_share_those_go_that_were_used_longest_ago() -> None:
    rows = pa.table({"fare": pa.array(range(100), pa.int64())})  # 800 bytes
    sessions = RecentSessions(most_bytes=2000)

    def begin(name: str) -> None:
        sessions[name] = read_session.ReadSessionState(name, rows, b"")

    for name in ("first", "second"):
        begin(name)
    assert sessions.get("first")  # is read from
    begin("third")
    assert list(sessions) == ["first", "third"]
    begin("fourth")
    assert list(sessions) == ["third", "fourth"]
    only = RecentSessions(most_bytes=1)
    only["large"] = sessions["fourth"]
    assert list(only) == ["large"]


def test_bqemulator_still_makes_no_table_of_a_query_that_names_one() -> None:
    source = inspect.getsource(jobs._execute_query_or_failed_meta)
    assert "WRITE_TRUNCATE's wire shape happens to equal the SELECT projection" in source


def test_bqemulator_still_gives_the_size_of_its_own_copy_as_an_estimate() -> None:
    rows = pa.table({"fare": [1, 2, 3]})
    parts = {
        "state": read_session.create_read_session("project", "table", rows),
        "read_session": types.ReadSession(),
        "session_format": read_session.FORMAT_ARROW,
        "wire_format": types.DataFormat.ARROW,
        "arrow_table": rows,
    }
    theirs = read_servicer._build_read_session_response(**parts)
    assert theirs.estimated_total_bytes_scanned == rows.nbytes
    ours = without_estimate(**parts)
    assert ours.estimated_total_bytes_scanned == 0
    assert ours.streams == theirs.streams


@pytest.fixture
def engine() -> Iterator[DuckDBEngine]:
    """The emulator's connection to DuckDB, as its server starts it, with one table."""
    install_spatial()
    engine = DuckDBEngine(Settings())
    asyncio.run(engine.start())
    try:
        engine.execute("CREATE TABLE trips AS SELECT * FROM range(41)")
        yield engine
    finally:
        asyncio.run(engine.stop())


def count_while_a_thread_looks(engine: DuckDBEngine) -> tuple[object, list[object]]:
    """What a count gets that a request in a thread interrupts, and what that one gets."""
    looked: list[object] = []
    counting = engine.execute("SELECT count(*) FROM trips")
    look = threading.Thread(
        target=lambda: looked.append(
            engine.execute("SELECT current_setting('TimeZone'), max(range) FROM trips").fetchone()
        )
    )
    look.start()
    look.join()
    return counting.fetchone(), looked


def test_bqemulator_still_lets_a_look_at_its_health_take_the_rows_of_others(
    engine: DuckDBEngine,
) -> None:
    count, _ = count_while_a_thread_looks(engine)
    assert count is None  # which is taken for an empty table


def test_a_request_in_a_thread_takes_no_rows_of_others(
    engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DuckDBEngine, "connection", DuckDBEngine.connection)  # put back after it
    separate_threads()
    for _ in range(2):
        assert count_while_a_thread_looks(engine) == ((41,), [("UTC", 40)])


def test_bqemulator_still_copies_the_rows_before_it_answers() -> None:
    source = inspect.getsource(read_servicer.BigQueryReadHandler._handle_create_read_session)
    assert source.index("engine.fetch_arrow(") < source.index("state = create_read_session(")


LARGE = f"""
    SELECT i::BIGINT AS number, i::DECIMAL(38, 9) AS fare, i::VARCHAR AS name,
        '{{"at": 1}}'::JSON AS place, i % 2 = 0 AS even
    FROM range({LARGE_ROWS + 7}) AS rows(i)"""
QUERY = "SELECT * FROM large WHERE number > 2"
"""All but three rows of it."""


def begin_large(engine: DuckDBEngine, query: str = QUERY) -> tuple[pa.Table | LateRows, pa.Table]:
    """What a read session is made of, and what bqemulator would make it of."""
    engine.execute(f"CREATE OR REPLACE TABLE large AS {LARGE}")
    return LateCopies(engine).fetch_arrow(query), engine.fetch_arrow(query)


def test_of_a_large_table_a_session_begins_without_a_copy(engine: DuckDBEngine) -> None:
    late, theirs = begin_large(engine)
    assert isinstance(late, LateRows)
    session = read_session.create_read_session("project", "table", late, 8)
    assert late._table is None
    same = read_session.create_read_session("project", "table", theirs, 8)
    assert [(one.start_row, one.end_row) for one in session.streams] == [
        (one.start_row, one.end_row) for one in same.streams
    ]
    assert session.arrow_schema_bytes == same.arrow_schema_bytes
    assert late.schema.equals(theirs.schema, check_metadata=True)
    assert 0 < late.nbytes <= theirs.nbytes
    for stream in (same.streams[-1], same.streams[0]):
        rows = late.slice(stream.start_row, stream.end_row - stream.start_row)
        assert rows.equals(theirs.slice(stream.start_row, stream.end_row - stream.start_row))
    assert late.nbytes == theirs.nbytes


@pytest.mark.parametrize("change", ["DELETE FROM large", "CREATE OR REPLACE TABLE large(x INT)"])
def test_a_late_copy_is_of_the_moment_at_which_the_session_began(
    engine: DuckDBEngine, change: str
) -> None:
    late, theirs = begin_large(engine)
    engine.execute(change)
    assert late.slice(0, len(theirs)).equals(theirs)


def test_all_streams_of_a_session_share_one_late_copy(
    engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, theirs = begin_large(engine)
    copy, copied = LateRows._query, list[str]()

    def note(rows: LateRows, sql: str) -> pa.Table:
        copied.append(sql)
        return copy(rows, sql)

    monkeypatch.setattr(LateRows, "_query", note)
    starts = range(0, len(theirs), len(theirs) // 8)
    with ThreadPoolExecutor(8) as pool:
        slices = list(pool.map(lambda start: late.slice(start, 10), starts))
    assert slices == [theirs.slice(start, 10) for start in starts]
    assert copied == [QUERY]


@pytest.mark.parametrize(
    ("query", "columns"), [("SELECT * FROM trips", ["range"]), ("SELECT 1 AS x WHERE 1 = 0", ["x"])]
)
def test_of_a_small_table_a_session_has_its_rows_from_the_start(
    engine: DuckDBEngine, query: str, columns: list[str]
) -> None:
    rows, theirs = begin_large(engine, query)
    assert isinstance(rows, pa.Table)
    assert rows.equals(theirs)
    assert rows.schema.equals(theirs.schema, check_metadata=True)
    assert rows.column_names == columns


def test_columns_that_were_not_queried_alone_are_taken_from_the_copy(engine: DuckDBEngine) -> None:
    late, theirs = begin_large(engine)
    assert late.select(late.column_names) is late
    assert (
        late.select(["fare", "number"]).slice(3, 2).equals(theirs.select(["fare", "number"])[3:5])
    )
