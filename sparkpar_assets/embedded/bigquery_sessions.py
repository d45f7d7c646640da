"""The embedded BigQuery's read sessions: begun in a moment, and not kept for ever."""

import threading
import time

import duckdb
import psutil
import pyarrow as pa
from bqemulator.storage.engine import DuckDBEngine, _annotate_with_duckdb_types
from bqemulator.streaming import read_session

SESSION_SECONDS = 900
LARGE_ROWS = 1_000_000
"""From here on the rows are copied when they are read. A copy of fewer takes a moment."""


class RecentSessions(dict[str, read_session.ReadSessionState]):
    """Read sessions, each with its rows, until nobody has asked for one in a quarter of an hour.

    bqemulator keeps them for ever: a server that stays up would end with all memory taken. So would
    one that is asked for large tables again and again: of sessions that take more than their share,
    those go first that were asked for longest ago.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        """Keep none yet.

        Args:
            most_bytes: What the rows of all may take, but for the newest; half of the machine's
                memory by default.
        """
        super().__init__()
        self._most_bytes = most_bytes or psutil.virtual_memory().total // 2
        self._used: dict[str, float] = {}

    def __setitem__(self, name: str, session: read_session.ReadSessionState) -> None:
        self._used[name] = now = time.monotonic()
        super().__setitem__(name, session)
        taken = sum(kept.table.nbytes for kept in self.values())
        for old, used in sorted(self._used.items(), key=lambda item: item[1])[:-1]:
            if now - used > SESSION_SECONDS or taken > self._most_bytes:
                taken -= self.pop(old).table.nbytes
                del self._used[old]

    def get(self, name: str, default: object = None) -> object:  # type: ignore[override]
        """The session of a name, which is in use then."""
        if name in self._used:
            self._used[name] = time.monotonic()
        return super().get(name, default)


class LateCopies:
    """The engine of bqemulator's handler of reads: gives the rows that a session is made of.

    bqemulator copies them before it answers: ten seconds for 40 million rows of four columns, also
    where the session was begun for its estimate alone. BigQuery answers in a moment.
    """

    def __init__(self, engine: DuckDBEngine) -> None:
        self._engine = engine

    def fetch_arrow(self, sql: str) -> "pa.Table | LateRows":
        """The rows of a query, as they are now."""
        snapshot = self._engine.connection.cursor()
        snapshot.execute("SET TimeZone = 'UTC'")  # as bqemulator's own: BigQuery's
        snapshot.execute("BEGIN TRANSACTION READ ONLY")
        (rows,) = snapshot.execute(f"SELECT count(*) FROM ({sql})").fetchone() or (0,)  # noqa: S608  # its own query
        late = LateRows(snapshot, sql, rows)
        return late.table if rows < LARGE_ROWS else late


class LateRows:
    """A table as far as bqemulator looks at one; its rows are copied when a stream is first read.

    They are those of the moment at which it was made: a transaction of DuckDB is a snapshot.

    Args:
        snapshot: A connection in a transaction, which sees the rows; it is this object's alone.
        sql: The query.
        rows: How many there are.

    Attributes:
        num_rows: How many there are.
        schema: Their schema, which takes no copy.
        column_names: Their columns' names.
    """

    def __init__(self, snapshot: duckdb.DuckDBPyConnection, sql: str, rows: int) -> None:
        self._snapshot = snapshot
        self._sql = sql
        self._lock = threading.Lock()
        self._table: pa.Table | None = None
        self.num_rows = rows
        self.schema: pa.Schema = self._query(f"SELECT * FROM ({sql}) LIMIT 0").schema  # noqa: S608  # bqemulator's query
        self.column_names: list[str] = self.schema.names

    @property
    def table(self) -> pa.Table:
        """The rows; all streams wait for the first one's copy."""
        with self._lock:
            if self._table is None:
                self._table = self._query(self._sql)
                self._snapshot.close()
            return self._table

    @property
    def nbytes(self) -> int:
        """What they take; before the copy, at least: text, say, counts as its offsets."""
        if self._table is not None:
            return int(self._table.nbytes)
        return self.num_rows * sum(_least_width(field.type) for field in self.schema) // 8

    def select(self, names: list[str]) -> "pa.Table | LateRows":
        """Some of the columns; bqemulator asks for those that it has queried."""
        return self if names == self.column_names else self.table.select(names)

    def slice(self, offset: int, length: int) -> pa.Table:
        """The rows of a stream."""
        return self.table.slice(offset, length)

    def _query(self, sql: str) -> pa.Table:
        result = self._snapshot.execute(sql)
        description = result.description
        return _annotate_with_duckdb_types(result.to_arrow_table(), description)


def _least_width(kind: pa.DataType) -> int:
    """Bits that a value takes at least."""
    try:
        return int(kind.bit_width)
    except ValueError:
        return 32  # Arrow's offsets into what has no fixed width
