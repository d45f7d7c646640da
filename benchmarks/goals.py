"""The goals, as ratios within one run of the benchmark."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.contenders import AFTERWARDS, READING
from benchmarks.measurements import Measurements, ratio
from benchmarks.memory import EXECUTOR
from benchmarks.workloads import SAMPLE, Workload

LARGE = "40m"
LIST_DEFS = "dg list defs"
SHORT_SECONDS = 0.5
"""Phases above it are named."""
SAME_MEMORY = 1.1
"""Two peaks that differ by less are the same: an executor's garbage is collected when it likes."""


@dataclass(frozen=True)
class Goal:
    """A goal, and what was measured.

    Attributes:
        what: What is asked for.
        goal: How much of it.
        found: What was measured; empty where this run did not.
        met: Whether the goal is met; None where it was not measured.
    """

    what: str
    goal: str
    found: str = ""
    met: bool | None = None


def goals(of: Measurements) -> list[Goal]:
    """All goals, in order."""
    year, five = Workload(SAMPLE), Workload(SAMPLE, years=5)
    large, one_worker = Workload(LARGE), Workload(LARGE, workers=1)
    reading = _warm_or_cold(of, large)
    return [
        _at_most(
            "cold, one sample year, against *script*",
            0.45,
            ratio(of.seconds("cold", year), of.seconds("script", year)),
        ),
        _at_most(
            "cold, five years in one run, against five *scripts*",
            0.2,
            ratio(of.seconds("cold", five), of.seconds("script", five)),
        ),
        _at_most(
            "warm, one sample year, from command to published, against *script*",
            0.15,
            ratio(of.seconds_before("warm", year, AFTERWARDS), of.seconds("script", year)),
        ),
        _at_most(
            f"{_warm_or_cold(of, year, '-click')}, one sample year, from the click",
            5,
            _median(of.seconds("warm-click", year) or of.seconds("click", year)),
            " s",
        ),
        _at_most(
            f"read + aggregate of 40 million rows, {reading}, against *limit*",
            3,
            ratio(of.phase(reading, large, READING), of.seconds("limit", large)),
        ),
        *_growth(of),
        _at_least(
            "second worker on a year of 40 million rows, read + aggregate, cold: speed",
            1.7,
            ratio(of.phase("cold", one_worker, READING), of.phase("cold", large, READING)),
        ),
        _at_most(f"`{LIST_DEFS}`", 3, _median(of.seconds(LIST_DEFS, year)), " s"),
        _phases(of, _warm_or_cold(of, year), year),
    ]


def _growth(of: Measurements) -> list[Goal]:
    """Time and memory of the largest synthetic year against the smallest."""
    what = "n times the rows: times the time", "n times the rows: times the executor's memory"
    contender, sizes = "cold", []
    for name in ("warm", "cold"):
        found = [one for one in of.workloads() if one.rows and one.workers == 2 and one.years == 1]
        sizes = sorted(
            (one for one in found if of.seconds(name, one)), key=lambda one: one.rows or 0
        )
        if len(sizes) > 1:
            contender = name
            break
    if len(sizes) < 2:
        return [Goal(what[0], "≤ n"), Goal(what[1], f"≤ {SAME_MEMORY}")]
    small, large = sizes[0], sizes[-1]
    rows = (large.rows or 0) / (small.rows or 1)
    grown = ratio(of.seconds(contender, large), of.seconds(contender, small))
    peaks = [of.memory(contender, size, EXECUTOR) or 0 for size in (small, large)]
    return [
        _at_most(f"{rows:g} times the rows, {contender}: times the time", rows, grown),
        _at_most(
            f"{rows:g} times the rows, {contender}: times the executor's memory",
            SAME_MEMORY,
            peaks[1] / peaks[0] if peaks[0] else None,
        ),
    ]


def _phases(of: Measurements, contender: str, workload: Workload) -> Goal:
    phases = of.median_phases(contender, workload)
    named = [f"{name} {spent:.1f} s" for name, spent in phases.items() if spent > SHORT_SECONDS]
    what = f"Dagster's share of one sample year, {contender}, by phase"
    return Goal(what, f"each over {SHORT_SECONDS} s cut or explained", ", ".join(named))


def _warm_or_cold(of: Measurements, workload: Workload, suffix: str = "") -> str:
    return "warm" if of.seconds(f"warm{suffix}", workload) else "cold"


def _at_most(what: str, limit: float, found: float | None, unit: str = "") -> Goal:
    met = None if found is None else found <= limit
    return Goal(what, f"≤ {limit:g}{unit}", _shown(found, unit), met)


def _at_least(what: str, limit: float, found: float | None) -> Goal:
    met = None if found is None else found >= limit
    return Goal(what, f"≥ {limit:g}", _shown(found, ""), met)


def _shown(found: float | None, unit: str) -> str:
    return "" if found is None else f"{found:.2f}{unit}"


def _median(values: Iterable[float]) -> float | None:
    return statistics.median(list(values) or [0]) or None
