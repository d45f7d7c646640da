"""Peak memory of the processes that do a contender's work, by what they are."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress

import psutil

INTERVAL_SECONDS = 0.25
RUN, DRIVER, EXECUTOR = "run", "driver", "executor"
ROLES = (RUN, DRIVER, EXECUTOR)
"""The Python process, Spark's driver and the largest of its executors."""
SERVERS = ("dagster-webserver", "dagster-daemon", "grpc")
"""What tells Dagster's servers by their command line; the last one is the code server's."""


class MemorySampler:
    """Looks at the resident memory of processes again and again while its block lasts.

    Attributes:
        peaks: The most that one process of each role had, in bytes. Pages that processes share,
            of Java's class archive for one, count in each of them.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        """Watch processes and all that they start.

        Args:
            roots: Their ids: the contender's own process, Spark's workers, a warm driver.
        """
        self.peaks: dict[str, int] = {}
        self._roots = list(roots)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def __enter__(self) -> "MemorySampler":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def watch(self, root: int) -> None:
        """Watch another process, which was started in the block."""
        self._roots.append(root)

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            for process in _families(self._roots):
                with suppress(psutil.Error):
                    if role := role_of(process.cmdline()):
                        found = process.memory_info().rss
                        self.peaks[role] = max(found, self.peaks.get(role, 0))


def role_of(command: list[str]) -> str | None:
    """What a process is, by its command line; None for a server of the stack, or a shell."""
    if not command:
        return None
    name = command[0].rpartition("/")[2]
    if name == "java":
        if any(part.endswith("CoarseGrainedExecutorBackend") for part in command):
            return EXECUTOR
        is_driver = any(part.endswith("SparkSubmit") for part in command)
        return DRIVER if is_driver else None
    is_server = any(part.rpartition("/")[2] in SERVERS for part in command)
    return RUN if name.startswith("python") and not is_server else None


def _families(roots: Iterable[int]) -> Iterator[psutil.Process]:
    for root in list(roots):
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(root)
            yield from (process, *process.children(recursive=True))
