"""What was done to the platform, and how it came through: a table at the end of the tests."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field


@dataclass
class Trial:
    """One fault, made once.

    Attributes:
        fault: What was done, as the table names it.
        passed: Whether all that the test asks for held.
        outcome: What happened then, in a few words.
        seconds: From the fault to the moment when everything was right again.
    """

    fault: str
    passed: bool = False
    outcome: str = ""
    seconds: float | None = None
    _began: float = field(default_factory=time.monotonic)

    def begins(self) -> None:
        """The fault is made now."""
        self._began = time.monotonic()

    def is_over(self, outcome: str) -> None:
        """Everything is right again.

        Args:
            outcome: What the user sees of it: ``run succeeds``, ``run fails, the next succeeds``.
        """
        self.outcome = outcome
        self.seconds = time.monotonic() - self._began

    def as_sent(self) -> dict[str, str | bool | float | None]:
        """The arguments of the same trial in another process."""
        return {name: value for name, value in asdict(self).items() if not name.startswith("_")}


def table(trials: Iterable[Trial]) -> str:
    """The trials as a Markdown table, one row for each fault, in the order of the tests."""
    by_fault: dict[str, list[Trial]] = {}
    for trial in trials:
        by_fault.setdefault(trial.fault, []).append(trial)
    lines = ["| fault | tried | held | outcome | seconds to recover |", "|---|---|---|---|---|"]
    for fault, tried in by_fault.items():
        held = sum(trial.passed for trial in tried)
        outcomes = "; ".join(dict.fromkeys(trial.outcome for trial in tried if trial.outcome))
        lines.append(f"| {fault} | {len(tried)} | {held} | {outcomes} | {_seconds(tried)} |")
    return "\n".join(lines)


def _seconds(trials: Iterable[Trial]) -> str:
    """The median, and the longest where there are several."""
    taken = [trial.seconds for trial in trials if trial.seconds is not None]
    if not taken:
        return "—"
    median = f"{statistics.median(taken):.0f}"
    return median if len(taken) == 1 else f"{median} (at most {max(taken):.0f})"
