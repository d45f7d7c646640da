"""README.md, README.ko.md and .env.example say what the code does."""

import ast
import json
import re
from pathlib import Path

import dagster as dg
import pytest
from dotenv import dotenv_values
from pydantic_core import PydanticUndefined

from sparkpar_assets.assets import fares, trends
from sparkpar_assets.checks import FARE_CHECKS, TREND_CHECKS
from sparkpar_assets.components.attributes import AggregationAttributes
from sparkpar_assets.embedded.ports import DEFAULT_PORTS
from sparkpar_assets.io_managers.published import HISTORY
from sparkpar_assets.io_managers.staging import STAGING
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.settings import Settings, load_settings, variable_names
from sparkpar_assets.transforms.sql import AGGREGATES, ROW_FUNCTIONS
from tests.unit.readmes import (
    READMES,
    blocks_of,
    commands_of,
    help_of_run_sh,
    readme_of_both,
    table_after,
    text_of,
    without_code_blocks,
)

ENV_EXAMPLE = PROJECT_ROOT / ".env.example"
COMPOSE_SH = PROJECT_ROOT / "docker" / "compose.sh"
LOCKS = ["requirements.lock", "docker/requirements.lock"]
LARGEST_PICTURE = 250_000
"""Bytes: a README is read over slow lines as well."""
ENV_LINE = re.compile(r"^(?:# )?([A-Z][A-Z0-9_]+)=", re.MULTILINE)


def failures_of_compose_sh() -> list[str]:
    """What the containers' commands say when they fail, with … for what differs."""
    said = re.findall(r'\bfail "([^"]*)"', COMPOSE_SH.read_text())
    shown = [re.sub(r"\$\([^()]*\)|\$\{[^{}]*\}|\$\w+", "…", text) for text in said]
    # Where the cause itself is a variable, its words stand elsewhere.
    return [text for text in shown if not re.match("… [A-Z]", text)]


def failures_of_commands() -> list[str]:
    """What the commands on assets and versions say when they fail, with … for what differs."""
    errors = {"SelectionError", "VersionError", "NotComparableError"}
    files = [
        "materialize.py",
        "estimate.py",
        "versions.py",
        "comparison.py",
        "io_managers/history.py",
    ]
    calls = [
        node
        for file in files
        for node in ast.walk(ast.parse((PROJECT_ROOT / "sparkpar_assets" / file).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in errors
    ]
    assert all(isinstance(call.args[0], ast.JoinedStr | ast.Constant) for call in calls)
    return [
        "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…"
            for part in getattr(call.args[0], "values", [call.args[0]])
        )
        for call in calls
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


def test_both_languages_show_the_same_pictures_each_with_words_for_who_cannot_see_it() -> None:
    english, korean = (re.findall(r"!\[(.*)\]\((.*)\)", text_of(readme)) for readme in READMES)
    assert [file for _, file in english] == [file for _, file in korean]
    assert all(len(words) > 20 for words, _ in english + korean)
    shown = {PROJECT_ROOT / file for _, file in english}
    assert shown == set((PROJECT_ROOT / "docs" / "images").iterdir())
    assert [file.name for file in shown if file.stat().st_size > LARGEST_PICTURE] == []


def test_both_languages_show_the_same_commands_in_the_same_order() -> None:
    english, korean = map(commands_of, READMES)
    assert english == korean


@readme_of_both
def test_every_command_of_run_sh_is_in_its_help(readme: str) -> None:
    line = r"^ {2}((?:embedded )?[a-z]+)(?:, ([a-z]+))?"
    lines = re.findall(line, help_of_run_sh(), re.MULTILINE)
    known = {name for names in lines for name in names if name}
    used = set(re.findall(r"\./run\.sh ((?:embedded )?[a-z]+)", text_of(readme)))
    assert used - known == set()
    assert {"demo", "test", "ui", "embedded up", "embedded down", "up", "down"} <= used


@readme_of_both
def test_the_lifecycle_rules_expire_nothing_but_staging_and_history(readme: str) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", text_of(readme), re.MULTILINE | re.DOTALL)
    (rules,) = (json.loads(block)["Rules"] for block in blocks if '"Rules"' in block)
    root = f"{Settings().s3_root}"
    expiring = {rule["Filter"]["Prefix"] for rule in rules if "Expiration" in rule}
    assert expiring == {root + STAGING, root + HISTORY}
    others = [rule for rule in rules if "Expiration" not in rule]
    assert [rule["Filter"]["Prefix"] for rule in others] == [root]
    assert set(others[0]) == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}


def test_the_sentences_to_look_for_are_those_that_the_code_says() -> None:
    english, korean = ([row[0] for row in table_after("sentences", name)] for name in READMES)
    assert english == korean
    said = [
        *literals(PROJECT_ROOT / "sparkpar_assets"),
        (PROJECT_ROOT / "setup.sh").read_text(),
        COMPOSE_SH.read_text(),
    ]
    parts = {part.strip() for sentence in english for part in sentence.split("…")}
    assert sorted(part for part in parts if not any(part in text for text in said)) == []


def test_every_failure_of_the_commands_is_among_the_sentences() -> None:
    sentences = [row[0] for row in table_after("sentences", "README.md")]
    known = [".*".join(map(re.escape, sentence.split("…"))) for sentence in sentences]
    said = [*failures_of_compose_sh(), *failures_of_commands()]
    assert len(said) > 40
    assert [text for text in said if not any(re.match(one, text) for one in known)] == []


@readme_of_both
def test_the_commands_of_the_lock_files_are_those_in_their_heads(readme: str) -> None:
    heads = [(PROJECT_ROOT / lock).read_text().splitlines()[1].lstrip("# ") for lock in LOCKS]
    shown = [command for command in commands_of(readme) if " pip compile " in command]
    assert shown == [f".venv/bin/{head}" for head in heads]


@readme_of_both
def test_commands_name_assets_and_files_that_there_are(readme: str) -> None:
    assets = {"fare_by_passenger_count", "fare_trends"}
    commands = "\n".join(commands_of(readme))
    selected = re.findall(
        r"(?:--(?:select|assets)|\./run\.sh (?:materialize|estimate|versions|diff|rollback)) (\S+)",
        commands,
    )
    assert {asset for selection in selected for asset in selection.split(",")} <= assets
    files = re.findall(r"(?:^|\s)(?:\./)?([\w.]+\.(?:sh|yaml)|\.ci/run)", commands)
    missing = [name for name in files if not (PROJECT_ROOT / name).exists()]
    assert missing == []


@readme_of_both
def test_the_keys_of_an_analysis_are_those_that_it_may_have(readme: str) -> None:
    rows = [(row[0], row[1].strip("`")) for row in table_after("analysis keys", readme)]
    assert rows == [
        (name, shown_value(field.default))
        for name, field in AggregationAttributes.model_fields.items()
    ]


def shown_value(default: object) -> str:
    if isinstance(default, list):
        return f"[{', '.join(default)}]"
    return "—" if default in (None, PydanticUndefined) else str(default)


@readme_of_both
def test_the_functions_of_an_analysis_are_those_that_are_allowed(readme: str) -> None:
    _operators, *rows, aggregates = table_after("functions", readme)
    listed = [re.findall(r"\w+", row[1]) for row in (*rows, aggregates)]
    allowed = [sample.partition("(")[0] for sample in ROW_FUNCTIONS]
    assert sorted(name for names in listed[:-1] for name in names) == sorted(set(allowed))
    assert set(listed[-1]) == {sample.partition("(")[0] for sample in AGGREGATES}


def test_both_languages_show_the_same_analyses() -> None:
    for language in ("yaml", "python"):
        english, korean = (blocks_of(readme, language) for readme in READMES)
        assert english == korean != []
