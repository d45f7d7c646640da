"""The whole chain on real trips: what ``./run.sh demo`` runs after its set-up."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from sparkpar_assets.embedded import environment, samples
from sparkpar_assets.embedded.class_archive import class_archive
from sparkpar_assets.embedded.errors import EmbeddedError, command_line
from sparkpar_assets.embedded.jars import JARS
from sparkpar_assets.embedded.s3_proxy import BUCKET, s3_client
from sparkpar_assets.embedded.stack import Stack
from sparkpar_assets.io_managers.published import PublishedDataset, read_object
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.settings import Settings, load_settings

FARES = "fare_by_passenger_count"
TRENDS = "fare_trends"

# 2020 is not among the samples: years that are not adjacent need several runs.
RUNS = (
    ("2017, 2018 and 2019", ("--select", FARES, "--partition-range", "2017...2019")),
    ("2021, and the trends", ("--select", f"{FARES},{TRENDS}", "--partition", "2021")),
)

LOG_LINE = re.compile(
    r"^\S+ \S+ \S+ - dagster - (?P<level>\w+) - \S+ - \S{36} - (?:\d+ - )?(?P<message>.*)$"
)
STOP_SECONDS = 60


@dataclass(frozen=True)
class Column:
    """How a column of the fares is shown."""

    name: str
    title: str
    digits: int


COLUMNS = (
    Column("passenger_count", "passengers", 0),
    Column("trips", "trips", 0),
    Column("total_fare", "total fare", 2),
    Column("avg_fare", "avg fare", 2),
    Column("median_fare", "median", 2),
    Column("p95_fare", "p95", 2),
    Column("avg_tip", "avg tip", 2),
    Column("avg_distance", "avg miles", 2),
)


def main() -> None:
    """Run the demo; a Ctrl-C stops the run that is going, and leaves the servers up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with command_line():
            demo()
    except KeyboardInterrupt:
        _end_interrupted()


def demo() -> None:
    """Start the stack, load the trips, materialize the assets, and show what came of it."""
    steps = Steps()
    with steps.step("Starting the embedded stack"):
        stack = Stack.of_environment()
        stack.up()
    with steps.step("Loading the sample trips into BigQuery"):
        samples.load_samples(stack.config)
    for years, arguments in RUNS:
        with (
            steps.step(f"Materializing {years} on the Spark cluster"),
            _environment_of_run(stack, arguments) as values,
        ):
            _materialize(stack, arguments, values)
    settings = load_settings(environment.process_environment(stack.config))
    print(f"\n{fares_table(stack, settings)}\n")
    print(_where(stack, settings))
    print(steps.summary())


class Steps:
    """Says what is being done, and remembers how long it took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Do one step."""
        print(f"==> {what}", flush=True)
        start = time.monotonic()
        yield
        self._seconds[what] = time.monotonic() - start

    def summary(self) -> str:
        """A line for each step, and the sum."""
        lines = [f"{seconds:7.1f} s  {what}" for what, seconds in self._seconds.items()]
        return "\n".join([*lines, f"{sum(self._seconds.values()):7.1f} s  in all"])


@contextmanager
def _environment_of_run(stack: Stack, arguments: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The environment of a run; that of the first demo's last run makes later ones start faster."""
    is_last = arguments == RUNS[-1][1]
    if is_last and not class_archive(stack.config.java_home, JARS).is_recorded:
        print("    (recording Java's classes at its end, once: later runs start in half the time)")
        with environment.recording_environment(stack.config) as values:
            yield values
    else:
        yield environment.process_environment(stack.config)


def _materialize(stack: Stack, arguments: tuple[str, ...], values: dict[str, str]) -> None:
    """Run Dagster's own command, as a user would, and show the useful lines of its log."""
    command = [sys.executable, "-m", "dagster", "asset", "materialize"]
    command += ["-m", "sparkpar_assets.definitions", *arguments]
    log = stack.state.logs / "demo.log"
    shown = " ".join(["dagster", *command[3:]])
    print(f"    $ {shown}", flush=True)
    process = subprocess.Popen(
        command,
        cwd=PROJECT_ROOT,
        env=values,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # a Ctrl-C is for Dagster alone: it stops Spark's JVM in order
    )
    try:
        with log.open("w") as file:
            lines = list(_show(process, file.write))
    except BaseException:
        _interrupt(process)
        raise
    if process.wait() != 0:
        print(first_error(lines))
        raise EmbeddedError(
            f"The run failed as shown; its whole log is {log}.",
            "See ./run.sh embedded status, then run ./run.sh demo again.",
        )


def _show(process: "subprocess.Popen[str]", keep: Callable[[str], object]) -> Iterator[str]:
    """Pass on a run's output, and print what says how far it is."""
    for line in process.stdout or ():
        keep(line)
        if message := readable(line):
            print(f"    {message}", flush=True)
        yield line


def readable(line: str) -> str | None:
    """What a line of Dagster's log tells a reader; nothing for its book-keeping."""
    match = LOG_LINE.match(line.rstrip())
    if not match:
        return None
    message = match["message"].removeprefix(f"{FARES} - ").removeprefix(f"{TRENDS} - ")
    if match["level"] == "DEBUG":
        return message.partition(" - ")[2] if "did not pass" in message else None
    return message.partition("\n")[0]


def first_error(lines: list[str]) -> str:
    """What Dagster says of the first error, without its stack trace; else the log's end."""
    first = next((i for i, line in enumerate(lines) if " - ERROR - " in line), None)
    if first is None:
        return "".join(lines[-40:])
    said = takewhile(lambda line: not line.startswith("Stack Trace"), lines[first:])
    return "".join(said).rstrip()


def _interrupt(process: "subprocess.Popen[str]") -> None:
    """Let Dagster cancel its run, which stops the Spark application; wait for it."""
    print("\n==> Stopping the run", flush=True)
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()


def fares_table(stack: Stack, settings: Settings) -> str:
    """The published fares as text: every year, as it is read back from S3."""
    rows = [(year, row) for year, content in _published(stack, settings) for row in content]
    lines = [["year", *(column.title for column in COLUMNS)]]
    previous = None
    for year, row in rows:
        if previous not in (None, year):
            lines.append([""] * (len(COLUMNS) + 1))
        previous = year
        lines.append([year, *(f"{row[c.name]:,.{c.digits}f}" for c in COLUMNS)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def _published(stack: Stack, settings: Settings) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each published year with its rows. One GET an object: one version, whole."""
    client = s3_client(stack.config)
    fares = PublishedDataset(client, BUCKET, settings.s3_root, FARES, FARES)
    for year in fares.years():
        yield year, read_object(client, BUCKET, fares.key(year)).to_pylist()


def _where(stack: Stack, settings: Settings) -> str:
    folder = Path(stack.state.s3, BUCKET, settings.s3_root)
    return f"""\
The fares      s3://{BUCKET}/{settings.s3_root}{FARES}/
The trends     s3://{BUCKET}/{settings.s3_root}{TRENDS}/
on this disk   {folder}

Dagster's UI   ./run.sh ui
Spark          {stack.config.url("spark-master-ui")}
past runs      {stack.config.url("spark-history")}
this shell     eval "$(./run.sh embedded env)", then any dagster command works on the stack
stop it all    ./run.sh embedded down
"""


def _end_interrupted() -> NoReturn:
    print("\nInterrupted. What is published is whole, and the servers that came up stay up:")
    print("./run.sh demo goes on with them, ./run.sh embedded down stops them.", flush=True)
    sys.exit(130)


if __name__ == "__main__":
    main()
