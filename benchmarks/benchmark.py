"""Lets all contenders work in turn, compares what they publish, and notes how long it took."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.answers import Answer, answer_of
from benchmarks.contenders import CONTENDERS, Arena, Contender
from benchmarks.goals import LARGE, LIST_DEFS
from benchmarks.machine import load, machine
from benchmarks.measurements import Measurement
from benchmarks.report import Report
from benchmarks.workloads import SAMPLE, Workload, load_tables
from sparkpar_assets.embedded.errors import EmbeddedError
from sparkpar_assets.embedded.testing import EmbeddedStack
from tests.integration.workbench import Workbench, new_workbench

RUNS_BEFORE, LONG_RUNS_BEFORE = 5, 3
"""Runs of a warm driver that are not timed: until then they get faster, since Java compiles what it
runs most. One of millions of rows tells it more than one of a real year."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        command: How it was asked for, to be shown with the results.
        output: The folder of the results.
        rounds: How often each contender works, on one real year and where nothing else is said.
        sizes: As in a ``Workload``.
        years: How many of the real years there are in one run.
        workers: How many of Spark's workers the platform may use.
        contenders: Those that take part, where they can.
        rounds_of_years: The rounds on several real years in one run; None as with one.
        rounds_of_rows: The rounds on synthetic years; None as with a real one.
    """

    command: str
    output: Path
    rounds: int = 5
    sizes: Sequence[str] = (SAMPLE, "2m", "10m")
    years: Sequence[int] = (1, 5)
    workers: Sequence[int] = (2,)
    contenders: Sequence[Contender] = CONTENDERS
    rounds_of_years: int | None = None
    rounds_of_rows: int | None = None

    def rounds_for(self, workload: Workload) -> int:
        """How often each contender does a workload."""
        if workload.rows:
            return self.rounds_of_rows or self.rounds
        return (self.rounds_of_years if workload.years > 1 else None) or self.rounds

    def workloads(self, size: str) -> list[Workload]:
        """The real trips by years, synthetic ones in one year.

        The large ones are always read by one worker too, which the second one is held to.
        """
        counts = self.years if size == SAMPLE else (1,)
        wanted = {*self.workers, 1} if size == LARGE else {*self.workers}
        return [
            Workload(size, years, workers)
            for years in counts
            for workers in sorted(wanted, reverse=True)
        ]


def benchmark(stack: EmbeddedStack, plan: Plan) -> Report:
    """Measure all that is planned, and write the results after each size.

    Raises:
        EmbeddedError: A contender fails, or its result is not the right one.
    """
    report = Report(
        command=plan.command,
        titles={contender.name: contender.title for contender in plan.contenders},
        facts=machine(stack.stack.config.java_home),
        date=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        loads=[load()],
    )
    workers = _workers(stack)
    for size in plan.sizes:
        print(f"==> Loading {size}", flush=True)
        with new_workbench(stack, f"bench_{size}") as bench:
            arena = Arena(bench, workers, RUNS_BEFORE if size == SAMPLE else LONG_RUNS_BEFORE)
            _measure(arena, plan, plan.workloads(size), report)
        report.loads.append(load())
        report.write(plan.output)
    return report


def _measure(arena: Arena, plan: Plan, workloads: Sequence[Workload], report: Report) -> None:
    """Let all contenders do all workloads of a size, round by round."""
    size = workloads[0].size
    files = load_tables(arena.bench, size, max(workload.years for workload in workloads))
    answers = {year: answer_of(file) for year, file in files.items()}
    contenders = list(_present(arena, plan, report))
    for number in range(max(plan.rounds_for(workload) for workload in workloads)):
        for workload in workloads:
            rounds = plan.rounds_for(workload)
            if number >= rounds:
                continue
            print(f"==> Round {number + 1} of {rounds}: {workload}", flush=True)
            for contender in _in_turn(contenders, number, workload):
                measured = contender.measure(arena, workload)
                _compare(arena, contender, workload, answers)
                report.measurements.add(contender.name, workload, measured)
                print(f"    {measured.seconds:8.2f} s  {contender.name}", flush=True)
        if size == SAMPLE:
            report.measurements.add(LIST_DEFS, Workload(SAMPLE), _list_defs(arena.bench))


def _present(arena: Arena, plan: Plan, report: Report) -> Iterator[Contender]:
    for contender in plan.contenders:
        if why := contender.why_absent(arena):
            report.absent[contender.name] = why
            print(f"    without {contender.name}: {why}", flush=True)
        else:
            yield contender


def _in_turn(
    contenders: Sequence[Contender], number: int, workload: Workload
) -> Iterator[Contender]:
    """The contenders of a round: who is first finds other caches than who comes last."""
    first = number % len(contenders)
    for contender in (*contenders[first:], *contenders[:first]):
        if contender.uses_workers or workload.workers == Workload.workers:
            yield contender


def _compare(
    arena: Arena, contender: Contender, workload: Workload, answers: Mapping[int, Answer]
) -> None:
    """Hold what was published to the right result.

    Raises:
        EmbeddedError: It has another group, count, sum or mean.
    """
    for year in workload.all_years if contender.publishes else ():
        if different := answers[year].difference(contender.published(arena, year)):
            raise EmbeddedError(
                f"The result of {contender.name} for {workload} is wrong in {year}. {different}",
                "No time counts: mend the contender first.",
            )


def _list_defs(bench: Workbench) -> Measurement:
    started = time.monotonic()
    done = bench.run(*bench.command(*LIST_DEFS.split()))
    if done.returncode != 0:
        raise EmbeddedError(f"{LIST_DEFS} failed: {done.stderr}", "Mend what it says.")
    return Measurement(time.monotonic() - started)


def _workers(stack: EmbeddedStack) -> list[int]:
    """Process ids of Spark's workers, whose children are the executors."""
    return [
        status.pid
        for status in stack.stack.status()
        if status.pid and status.server.name.startswith("spark-worker")
    ]
