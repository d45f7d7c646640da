"""Reading what the READMEs say."""

import re
import subprocess

import pytest

from sparkpar_assets.project import PROJECT_ROOT

READMES = ["README.md", "README.ko.md"]

readme_of_both = pytest.mark.parametrize("readme", READMES)


def text_of(readme: str) -> str:
    return (PROJECT_ROOT / readme).read_text(encoding="utf-8")


def without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def commands_of(readme: str) -> list[str]:
    """The lines of all shell blocks, without comments."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```$", text_of(readme), re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in "".join(blocks).splitlines()]
    return [line for line in lines if line]


def blocks_of(readme: str, language: str) -> list[str]:
    """All blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(readme), re.MULTILINE | re.DOTALL)


def analysis_in_python() -> str:
    """The READMEs' example of an analysis that is no YAML file."""
    (example,) = (block for block in blocks_of("README.md", "python") if "@dg.asset" in block)
    return example


def table_after(mark: str, readme: str) -> list[list[str]]:
    """The cells of the table that follows a comment, without its heading."""
    lines = text_of(readme).split(f"<!-- {mark} -->\n")[1].splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table[2:]
    ]


def section(heading: str, readme: str) -> str:
    """The section that has this heading in English: both languages have the same order."""
    titles = re.findall(r"^## (.*)$", text_of("README.md"), re.MULTILINE)
    return re.split(r"^## ", text_of(readme), flags=re.MULTILINE)[1 + titles.index(heading)]


def help_of_run_sh() -> str:
    command = ["/bin/bash", str(PROJECT_ROOT / "run.sh"), "help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
