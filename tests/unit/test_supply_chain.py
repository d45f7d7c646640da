"""Every wheel and jar is pinned by a hash, and every known vulnerability is judged."""

import re
import tomllib

import pytest

from sparkpar_assets.project import PROJECT_ROOT
from tests.audit import LOCKS, Audit, judged

REPORT = {
    "dependencies": [
        {"name": "good", "version": "1", "vulns": []},
        {
            "name": "bad",
            "version": "2",
            "vulns": [{"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1", "GHSA-aaaa-bbbb-cccc"]}],
        },
        {"name": "unheard", "skip_reason": "Dependency not found"},
    ]
}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_to_one_version_and_its_hashes(lock: str) -> None:
    text = (PROJECT_ROOT / lock).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("#", " "))]
    assert len(lines) > 100
    pinned = re.compile(r"[a-z0-9][\w.\[\],-]*==\S+( ; [^#]*?)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert [line[:80] for line in lines if not pinned.fullmatch(line)] == []


def test_every_jar_is_pinned_to_its_hash() -> None:
    jars = tomllib.loads((PROJECT_ROOT / "jars" / "jars.toml").read_text())["jar"]
    assert len(jars) > 8
    assert [jar for jar in jars if not re.fullmatch("[0-9a-f]{64}", jar.get("sha256", ""))] == []


def test_packages_are_installed_only_with_their_hashes() -> None:
    for name in ("setup.sh", "docker/Dockerfile"):
        text = re.sub(r"\\\n", " ", (PROJECT_ROOT / name).read_text())
        installs = re.findall(r"pip(?:\"? | )(?:install|sync)[^\n&|]*", text)
        # The project itself, from its own folder, is the only one without.
        checked = ("--require-hashes", "--no-deps")
        assert [one for one in installs if not any(option in one for option in checked)] == []
        assert installs


def test_a_finding_counts_by_any_of_its_names_until_it_is_judged() -> None:
    audit = Audit.of_report(REPORT)
    assert (audit.looked_up, audit.unknown) == (2, ["unheard"])
    assert audit.unjudged(set()) == ["bad 2: CVE-2026-1, GHSA-aaaa-bbbb-cccc, PYSEC-2026-1"]
    assert audit.unjudged({"CVE-2026-1"}) == []


def test_the_judged_findings_are_read_from_the_document() -> None:
    assert "CVE-2025-55039" in judged()
