"""Each promise names a test that there is, and each test of a fault is in the promises."""

import ast
import re
from pathlib import Path

import pytest

from sparkpar_assets.project import PROJECT_ROOT

DOCUMENTS = sorted((PROJECT_ROOT / "docs").glob("reliability*.md"))
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def names_in(path: str) -> set[str]:
    """The names of the tests of a file."""
    tree = ast.parse((PROJECT_ROOT / path).read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_every_promise_names_a_test_that_there_is(document: Path) -> None:
    named = NAMED.findall(document.read_text())
    assert named
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []


def test_every_test_of_a_fault_of_processes_is_named_by_a_promise() -> None:
    named = {path for file in DOCUMENTS for path, _ in NAMED.findall(file.read_text())}
    text = "\n".join(file.read_text() for file in DOCUMENTS)
    files = [file for file in named if file.startswith("tests/faults/")]
    missing = [name for file in files for name in names_in(file) if f"::{name}`" not in text]
    assert files
    assert missing == []
