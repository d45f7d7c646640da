"""The folder of a run's temporary files, which somebody removes however the run ends."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

SCRATCH_PREFIX = "sparkpar-"
SCRATCH_LOCK = "lock"


def hold_scratch(scratch: Path) -> int:
    """Lock a run's folder of temporary files, until the run ends in whatever way.

    Returns:
        The file descriptor to close when the folder is gone.
    """
    new = scratch / f"{SCRATCH_LOCK}.new"
    lock = os.open(new, os.O_WRONLY | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    new.rename(scratch / SCRATCH_LOCK)  # nobody finds a lock that is not held yet
    return lock


def remove_dead_scratch() -> None:
    """Remove the temporary files of this user's runs that were killed: nobody holds their locks."""
    for file in Path(tempfile.gettempdir()).glob(f"{SCRATCH_PREFIX}*/{SCRATCH_LOCK}"):
        with suppress(OSError), file.open("r+") as lock:  # another run may be faster
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(file.parent, ignore_errors=True)
