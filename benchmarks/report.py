"""The results as Markdown and as a plot."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.goals import LIST_DEFS, Goal, goals
from benchmarks.measurements import Measurements, ratio
from benchmarks.memory import ROLES
from benchmarks.workloads import Workload

REASONS = "## Reasons"
"""The heading of what is written by hand: the section is kept as it is."""
MEGABYTE = 1024**2
PLOT = "results.png"


@dataclass
class Report:
    """What there is to tell of one run of the benchmark.

    Attributes:
        command: As it was typed.
        titles: The contenders' titles, by name.
        facts: The machine, by what it is.
        date: When it began.
        loads: How busy the machine was, at the beginning and after each size.
        measurements: All of them.
        absent: Why a contender did not take part, by its name.
    """

    command: str
    titles: Mapping[str, str]
    facts: Mapping[str, str]
    date: str
    loads: list[str]
    measurements: Measurements = field(default_factory=Measurements)
    absent: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``RESULTS.md`` and the plot; what is written there by hand stays."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "RESULTS.md"
        reasons = reasons_of(file.read_text() if file.exists() else "")
        file.write_text(f"{self.text()}\n{REASONS}\n{reasons}")
        plot(self.measurements, self.titles, folder / PLOT)

    def text(self) -> str:
        """All but the reasons, as Markdown."""
        parts = ["# Results", "", f"`{self.command}`, {self.date}", ""]
        parts += [
            "Written by this command, but for the reasons at its end. Each time is the median"
        ]
        parts += [
            "(least to most) of the rounds; every result was compared with the one that DuckDB"
        ]
        parts += ["and Python's decimals compute before its time was taken.", ""]
        parts += ["## Goals", "", goals_table(goals(self.measurements)), ""]
        for workload in self.measurements.workloads():
            parts += [f"## {str(workload).capitalize()}", "", self._times(workload), ""]
            parts += [self._phases(workload), ""]
        parts += [f"![Seconds of each contender]({PLOT})", ""]
        if self.absent:
            parts += ["Did not take part:", ""]
            parts += [f"- {self.titles[name]}: {why}" for name, why in self.absent.items()] + [""]
        parts += ["## Machine", "", "| | |", "|---|---|"]
        parts += [f"| {name} | {value} |" for name, value in self.facts.items()]
        parts += [f"| load (1, 5, 15 minutes), {when} | {load} |" for when, load in self._loads()]
        return "\n".join([*parts, ""])

    def _loads(self) -> list[tuple[str, str]]:
        return [(f"look {number}", load) for number, load in enumerate(self.loads, 1)]

    def _times(self, workload: Workload) -> str:
        done = self.measurements
        lines = ["| contender | seconds | against *script* | peak MB: run | driver | executor |"]
        lines += ["|---|--:|--:|--:|--:|--:|"]
        for name in done.contenders(workload):
            seconds = done.seconds(name, workload)
            against = ratio(seconds, done.seconds("script", workload))
            peaks = (done.memory(name, workload, role) for role in ROLES)
            cells = [
                self.titles.get(name, f"`{name}`"),
                spread(seconds),
                "" if against is None or name == LIST_DEFS else f"{against:.2f}",
                *("" if peak is None else f"{peak / MEGABYTE:,.0f}" for peak in peaks),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    def _phases(self, workload: Workload) -> str:
        """Where the platform's seconds go, contender by contender."""
        done = self.measurements
        names = [name for name in done.contenders(workload) if done.median_phases(name, workload)]
        if not names:
            return ""
        columns = [done.median_phases(name, workload) for name in names]
        lines = [f"| phase, median seconds | {' | '.join(self.titles[name] for name in names)} |"]
        lines += [f"|---|{'--:|' * len(names)}"]
        for phase in columns[0]:
            lines += [f"| {phase} | {' | '.join(f'{one[phase]:.2f}' for one in columns)} |"]
        return "\n".join(lines)


def goals_table(found: Sequence[Goal]) -> str:
    """The goals, each met, missed or not measured."""
    said = {True: "met", False: "**missed**", None: "—"}
    lines = ["| what | goal | measured | |", "|---|---|---|---|"]
    lines += [
        f"| {one.what} | {one.goal} | {one.found or 'not measured'} | {said[one.met]} |"
        for one in found
    ]
    return "\n".join(lines)


def spread(seconds: Sequence[float]) -> str:
    """Median, and the least and the most where there are several: ``3.21 (3.10 to 3.40)``."""
    median = f"{statistics.median(seconds):.2f}"
    return median if len(seconds) == 1 else f"{median} ({min(seconds):.2f} to {max(seconds):.2f})"


def reasons_of(text: str) -> str:
    """What follows the heading of the part that is written by hand."""
    _, heading, reasons = text.partition(f"{REASONS}\n")
    return reasons if heading else "\nNone were written yet.\n"


def plot(of: Measurements, titles: Mapping[str, str], file: Path) -> None:
    """Draw each contender's median seconds, with least and most, one panel a workload."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    workloads = of.workloads()
    figure = Figure(figsize=(8, 0.8 + 2.6 * len(workloads)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(workloads), squeeze=False)[:, 0]
    for panel, workload in zip(panels, workloads, strict=True):
        names = [name for name in of.contenders(workload) if name in titles][::-1]
        seconds = [of.seconds(name, workload) for name in names]
        medians = [statistics.median(one) for one in seconds]
        below = [middle - min(one) for middle, one in zip(medians, seconds, strict=True)]
        above = [max(one) - middle for middle, one in zip(medians, seconds, strict=True)]
        bars = panel.barh(
            [titles[name].replace("*", "").replace("`", "") for name in names],
            medians,
            xerr=[below, above],
            color="#4c72b0",
            ecolor="#222222",
        )
        panel.bar_label(bars, [f"{one:.1f} s" for one in medians], padding=4)
        panel.set_title(str(workload), loc="left")
        panel.margins(x=0.15)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=90, metadata={"Software": None})
