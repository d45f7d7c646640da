"""README.md, README.ko.md and .env.example say what the code does."""

import ast
import re
import subprocess
from pathlib import Path

import dagster as dg
import pytest
from dotenv import dotenv_values

from sparkpar_assets.assets import fares, trends
from sparkpar_assets.checks import FARE_CHECKS, TREND_CHECKS
from sparkpar_assets.embedded.ports import DEFAULT_PORTS
from sparkpar_assets.settings import PROJECT_ROOT, Settings, load_settings, variable_names

ENV_EXAMPLE = PROJECT_ROOT / ".env.example"
READMES = ["README.md", "README.ko.md"]
ENV_LINE = re.compile(r"^(?:# )?([A-Z][A-Z0-9_]+)=", re.MULTILINE)

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


def table_after(mark: str, readme: str) -> list[list[str]]:
    """The cells of the table that follows a comment, without its heading."""
    lines = text_of(readme).split(f"<!-- {mark} -->\n")[1].splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split(" | ")] for line in table[2:]
    ]


def shown_default(name: str) -> str:
    default = next(f.default for f in Settings.model_fields.values() if f.alias == name)
    if default in (None, ""):
        return "—"
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    return shown.removeprefix(f"{PROJECT_ROOT}/")


def anchor(heading: str) -> str:
    """The fragment that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def literals(folder: Path) -> list[str]:
    """Every text in the sources; of an f-string, the parts between its values."""
    nodes = [n for file in folder.rglob("*.py") for n in ast.walk(ast.parse(file.read_text()))]
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def test_the_example_of_the_environment_has_each_variable_exactly_once() -> None:
    assert sorted(ENV_LINE.findall(ENV_EXAMPLE.read_text())) == sorted(variable_names())


def test_the_example_of_the_environment_loads_as_it_is() -> None:
    settings = load_settings({k: v for k, v in dotenv_values(ENV_EXAMPLE).items() if v})
    given = {"google_credentials_file", "spark_master"}
    assert settings.model_fields_set == given
    assert settings.spark_master == Settings().spark_master


def test_the_example_of_the_environment_loads_with_every_comment_taken_away(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(re.sub(r"^# ([A-Z][A-Z0-9_]+=)", r"\1", ENV_EXAMPLE.read_text(), flags=re.M))
    values = {name: value for name, value in dotenv_values(file).items() if value}
    shown = load_settings(values).as_environment()
    assert {name for name in variable_names() if shown[name] is None} <= {
        "GCP_PROJECT_ID",
        "S3_BUCKET",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_DEFAULT_REGION",
    }


def test_the_example_of_the_environment_shows_the_defaults() -> None:
    """Unless the comment above says that it is an example."""
    for paragraph in ENV_EXAMPLE.read_text().split("\n\n"):
        if "xample" in paragraph:
            continue
        for name, value in re.findall(r"^# ([A-Z][A-Z0-9_]+)=(.*)$", paragraph, re.MULTILINE):
            assert value == shown_default(name), name


@readme_of_both
def test_the_settings_table_has_each_variable_with_its_default(readme: str) -> None:
    rows = [(row[0], row[1]) for row in table_after("settings", readme)]
    assert rows == [(name, shown_default(name)) for name in variable_names()]


@readme_of_both
@pytest.mark.parametrize(
    ("asset", "schema"),
    [("fare_by_passenger_count", fares.SCHEMA), ("fare_trends", trends.SCHEMA)],
)
def test_the_columns_are_those_that_the_assets_declare(
    readme: str, asset: str, schema: dg.TableSchema
) -> None:
    rows = [(row[0], row[1]) for row in table_after(f"columns {asset}", readme)]
    assert rows == [(column.name, column.type) for column in schema.columns]


@readme_of_both
def test_the_checks_and_ports_are_those_of_the_code(readme: str) -> None:
    text = text_of(readme)
    assert [name for name in [*FARE_CHECKS, *TREND_CHECKS] if f"| `{name}` |" not in text] == []
    ports = re.findall(r"^\| `([\w-]+)` \| (\d+) \|", text, re.MULTILINE)
    assert {name: int(port) for name, port in ports} == DEFAULT_PORTS


@readme_of_both
def test_every_link_within_the_repository_leads_somewhere(readme: str) -> None:
    text = without_code_blocks(text_of(readme))
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    anchors = {anchor(h) for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    broken = [
        link
        for link in links
        if not (link[1:] in anchors if link[0] == "#" else (PROJECT_ROOT / link).is_file())
    ]
    assert links
    assert broken == []


def test_both_languages_show_the_same_commands_in_the_same_order() -> None:
    english, korean = map(commands_of, READMES)
    assert english == korean


@readme_of_both
def test_every_command_of_run_sh_is_in_its_help(readme: str) -> None:
    shown = subprocess.run(
        ["/bin/bash", PROJECT_ROOT / "run.sh", "help"], capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"^ {2}((?:embedded )?[a-z]+)", shown, re.MULTILINE))
    used = set(re.findall(r"\./run\.sh ((?:embedded )?[a-z]+)", text_of(readme)))
    assert used - known == set()
    assert {"demo", "test", "ui", "embedded up", "embedded down"} <= used


def test_the_sentences_to_look_for_are_those_that_the_code_says() -> None:
    english, korean = ([row[0] for row in table_after("sentences", name)] for name in READMES)
    assert english == korean
    said = [*literals(PROJECT_ROOT / "sparkpar_assets"), (PROJECT_ROOT / "setup.sh").read_text()]
    parts = {part.strip() for sentence in english for part in sentence.split("…")}
    assert sorted(part for part in parts if not any(part in text for text in said)) == []


@readme_of_both
def test_the_lock_files_command_is_the_one_in_its_head(readme: str) -> None:
    head = (PROJECT_ROOT / "requirements.lock").read_text().splitlines()[1].lstrip("# ")
    assert f".venv/bin/{head}" in commands_of(readme)


@readme_of_both
def test_commands_name_assets_and_files_that_there_are(readme: str) -> None:
    assets = {"fare_by_passenger_count", "fare_trends"}
    commands = "\n".join(commands_of(readme))
    selected = re.findall(r"--(?:select|assets) (\S+)", commands)
    assert {asset for selection in selected for asset in selection.split(",")} <= assets
    files = re.findall(r"(?:^|\s)(?:\./)?([\w.]+\.(?:sh|yaml)|\.ci/run)", commands)
    missing = [name for name in files if not (PROJECT_ROOT / name).exists()]
    assert missing == []
