"""Python's search for cyclic garbage, kept from looking through what libraries load and never drop.

Loading Dagster, Google's and Amazon's clients and PySpark makes a million objects, and Python goes
through them again and again while their number grows: a fifth of the time that loading takes. As
the process ends it goes through all of them once more: a second (``benchmarks/NOTES.md``).
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS = 50_000
"""New objects, a few megabytes, before Python looks for garbage among them: its own is 700."""


def leave_it_at_the_end() -> None:
    """As this process ends, let Python not look for garbage: the system takes all of it at once."""
    atexit.register(gc.freeze)


@contextmanager
def looked_for_rarely() -> Iterator[None]:
    """Let Python look for garbage less often, within the block."""
    youngest, *older = gc.get_threshold()
    gc.set_threshold(max(youngest, OBJECTS) if youngest else 0, *older)
    try:
        yield
    finally:
        gc.set_threshold(youngest, *older)
