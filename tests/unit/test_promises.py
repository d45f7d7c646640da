"""Each promise of the documents names the test that proves it, and there is such a test."""

import ast
import re
from pathlib import Path

import pytest

from sparkpar_assets.project import PROJECT_ROOT

DOCUMENTS = ["reliability.md", "security.md"]
PROMISES = re.compile(r"^\| promise \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")

of_each_document = pytest.mark.parametrize("name", DOCUMENTS)


def promises(name: str) -> list[tuple[str, str]]:
    """The promises of a document, each with the cell that names its test."""
    tables = PROMISES.findall((PROJECT_ROOT / "docs" / name).read_text())
    rows = [row.strip("|").split(" | ") for table in tables for row in table.splitlines()]
    return [(promise.strip(), test.strip()) for promise, test in rows]


def names_of_tests(file: Path) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse(file.read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


@of_each_document
def test_each_promise_names_one_test(name: str) -> None:
    found = promises(name)
    assert len(found) > 10
    assert [promise for promise, test in found if not TEST.fullmatch(test)] == []


@of_each_document
def test_every_test_that_is_named_is_there(name: str) -> None:
    named = TEST.findall((PROJECT_ROOT / "docs" / name).read_text())
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (PROJECT_ROOT / file).is_file() or test not in names_of_tests(PROJECT_ROOT / file)
    ]
    assert missing == []


@of_each_document
def test_every_link_of_a_document_leads_somewhere(name: str) -> None:
    folder = PROJECT_ROOT / "docs"
    links = re.findall(r"\]\(([^)#]+)\)", (folder / name).read_text())
    assert [link for link in links if "://" not in link and not (folder / link).exists()] == []


def test_every_fault_is_named_by_a_promise() -> None:
    text = "".join((PROJECT_ROOT / "docs" / name).read_text() for name in DOCUMENTS)
    files = {file for file, _ in TEST.findall(text) if file.startswith("tests/faults/")}
    made = [test for file in files for test in names_of_tests(PROJECT_ROOT / file)]
    assert len(made) > 20
    assert [test for test in made if f"::{test}`" not in text] == []
