"""When Python looks for garbage."""

import gc
import subprocess
import sys

from sparkpar_assets.garbage import OBJECTS, looked_for_rarely
from sparkpar_assets.project import PROJECT_ROOT

AT_THE_END = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 100_000))
import sparkpar_assets.definitions
atexit.register(lambda: print(gc.get_freeze_count()))
"""
"""What is registered last is called first."""


def test_garbage_is_looked_for_rarely_within_the_block_alone() -> None:
    before = gc.get_threshold()
    with looked_for_rarely():
        assert gc.get_threshold() == (OBJECTS, *before[1:])
    assert gc.get_threshold() == before


def test_where_it_is_not_looked_for_at_all_that_stays_so() -> None:
    before = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with looked_for_rarely():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_a_process_that_has_loaded_the_definitions_does_not_look_for_it_at_its_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_THE_END],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0", "True"]
