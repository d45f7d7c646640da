"""What a user of the embedded stack can mend."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class EmbeddedError(Exception):
    """One sentence of cause, one of remedy; shown without a traceback."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} {remedy}")
        self.cause = cause
        self.remedy = remedy


@contextmanager
def command_line() -> Iterator[None]:
    """The body of a command: its lines are seen at once, its ``EmbeddedError`` is the last one."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # progress, in a pipe too
    try:
        yield
    except EmbeddedError as error:
        sys.exit(f"Error: {error}")
