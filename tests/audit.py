"""Lists the known vulnerabilities of what is pinned, and fails on those that nobody has judged.

``python -m tests.audit``: pip-audit looks up every package of both lock files. What it finds has to
stand in ``docs/security.md``, with a judgement. Where its services cannot be reached, it says so.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparkpar_assets.project import PROJECT_ROOT

LOCKS = ("requirements.lock", "docker/requirements.lock")
JUDGED_IN = PROJECT_ROOT / "docs" / "security.md"
IDENTIFIER = re.compile(r"\b(?:CVE|GHSA|PYSEC|MAL)-[\w-]+\w")
SECONDS = 900


@dataclass(frozen=True)
class Audit:
    """What is known of the packages of a lock file.

    Attributes:
        looked_up: How many packages were looked up.
        unknown: Those that could not be.
        findings: Each vulnerability's names, by package and version.
    """

    looked_up: int
    unknown: Sequence[str]
    findings: Mapping[str, Sequence[set[str]]]

    @classmethod
    def of_report(cls, report: Mapping[str, Any]) -> "Audit":
        """The audit of a report of pip-audit's in JSON."""
        packages = report["dependencies"]
        found = {
            f"{one['name']} {one['version']}": [
                {vulnerability["id"], *vulnerability.get("aliases", ())}
                for vulnerability in one["vulns"]
            ]
            for one in packages
            if one.get("vulns")
        }
        unknown = [one["name"] for one in packages if "skip_reason" in one]
        return cls(len(packages) - len(unknown), unknown, found)

    def unjudged(self, judged: set[str]) -> list[str]:
        """The findings none of whose names is among those that were judged."""
        return [
            f"{package}: {', '.join(sorted(names))}"
            for package, vulnerabilities in self.findings.items()
            for names in vulnerabilities
            if not names & judged
        ]


def audit(lock: Path) -> Audit:
    """Look up the packages of a lock file.

    Raises:
        RuntimeError: pip-audit itself failed.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--no-deps"]
    command += ["--disable-pip", "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    try:
        return Audit.of_report(json.loads(done.stdout))
    except ValueError as error:
        raise RuntimeError(f"pip-audit failed: {done.stderr.strip()[-500:]}") from error


def judged() -> set[str]:
    """The names of the vulnerabilities that ``docs/security.md`` judges."""
    return set(IDENTIFIER.findall(JUDGED_IN.read_text()))


def main() -> None:
    """Audit both lock files; the exit code is 1 if a finding is not judged."""
    known, unjudged = judged(), list[str]()
    for lock in LOCKS:
        found = audit(PROJECT_ROOT / lock)
        print(f"{lock}: {found.looked_up} packages looked up, {len(found.findings)} with findings")  # noqa: T201
        if not found.looked_up:
            print("    Nothing could be looked up: the services do not answer here.")  # noqa: T201
        elif found.unknown:
            print(f"    Not known to the services: {', '.join(found.unknown)}")  # noqa: T201
        unjudged += found.unjudged(known)
    if unjudged:
        sys.exit("Not judged in docs/security.md: " + "; ".join(unjudged))


if __name__ == "__main__":
    main()
