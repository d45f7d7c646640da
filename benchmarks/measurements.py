"""What was measured, and its medians and ratios."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.workloads import Workload


@dataclass(frozen=True)
class Measurement:
    """One contender's work, done once, with the right result.

    Attributes:
        seconds: From the command, or the click, until it had ended.
        memory: Peak resident bytes by role (``memory.ROLES``).
        phases: Where the seconds went, by name, where the contender tells.
    """

    seconds: float
    memory: Mapping[str, int] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Measurements:
    """All measurements: by contender and workload a list, one a round."""

    of: dict[tuple[str, Workload], list[Measurement]] = field(default_factory=dict)

    def add(self, contender: str, workload: Workload, measured: Measurement) -> None:
        """Note one round."""
        self.of.setdefault((contender, workload), []).append(measured)

    def contenders(self, workload: Workload) -> list[str]:
        """The contenders that did a workload, in order."""
        return [contender for contender, done in self.of if done == workload]

    def workloads(self) -> list[Workload]:
        """The workloads that were done, in order."""
        return list(dict.fromkeys(workload for _, workload in self.of))

    def seconds(self, contender: str, workload: Workload) -> list[float]:
        """The seconds of each round; nothing where it was not measured."""
        return [one.seconds for one in self.of.get((contender, workload), [])]

    def seconds_before(
        self, contender: str, workload: Workload, phases: Sequence[str]
    ) -> list[float]:
        """The seconds of each round without those of its last phases."""
        return [
            one.seconds - sum(one.phases.get(phase, 0.0) for phase in phases)
            for one in self.of.get((contender, workload), [])
        ]

    def phase(self, contender: str, workload: Workload, phase: str) -> list[float]:
        """The seconds that a phase took, in each round that tells."""
        rounds = self.of.get((contender, workload), [])
        return [one.phases[phase] for one in rounds if phase in one.phases]

    def median_phases(self, contender: str, workload: Workload) -> dict[str, float]:
        """The median of each phase, in their order."""
        names = [name for one in self.of.get((contender, workload), []) for name in one.phases]
        return {
            name: statistics.median(self.phase(contender, workload, name))
            for name in dict.fromkeys(names)
        }

    def memory(self, contender: str, workload: Workload, role: str) -> int | None:
        """The largest peak of a role in all rounds, in bytes; None where there was none."""
        rounds = self.of.get((contender, workload), [])
        return max((one.memory[role] for one in rounds if role in one.memory), default=None)


def ratio(numerators: list[float], denominators: list[float]) -> float | None:
    """The median of the ratios of each round: what slows a whole round down cancels out.

    Returns:
        None where one of the two was not measured.
    """
    pairs = zip(numerators, denominators, strict=False)
    return statistics.median([one / other for one, other in pairs] or [0]) or None
