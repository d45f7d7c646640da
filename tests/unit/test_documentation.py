"""README.md, README.ko.md and .env.example say what the code does."""

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dotenv import dotenv_values

from sparkpar_assets.assets import fares, trends
from sparkpar_assets.checks import FARE_CHECKS, TREND_CHECKS
from sparkpar_assets.embedded.ports import DEFAULT_PORTS
from sparkpar_assets.io_managers.published import HISTORY
from sparkpar_assets.io_managers.staging import STAGING
from sparkpar_assets.settings import PROJECT_ROOT, Settings, load_settings, variable_names

ENV_EXAMPLE = PROJECT_ROOT / ".env.example"
COMPOSE_FILE = PROJECT_ROOT / "docker-compose.yml"
COMPOSE_SH = PROJECT_ROOT / "docker" / "compose.sh"
LOCKS = ["requirements.lock", "docker/requirements.lock"]
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


def section(heading: str, readme: str) -> str:
    """The section that has this heading in English: both languages have the same order."""
    titles = re.findall(r"^## (.*)$", text_of("README.md"), re.MULTILINE)
    return re.split(r"^## ", text_of(readme), flags=re.MULTILINE)[1 + titles.index(heading)]


def help_of_run_sh() -> str:
    command = ["/bin/bash", str(PROJECT_ROOT / "run.sh"), "help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compose_services(more: str = "") -> dict[str, dict[str, Any]]:
    """The services of docker-compose.yml, with its anchors resolved, and those of a text."""
    text = COMPOSE_FILE.read_text()
    services: dict[str, dict[str, Any]] = yaml.safe_load(
        text.replace("\nnetworks:\n", f"\n{more}\nnetworks:\n")
    )["services"]
    return services


def embedded_env() -> dict[str, str | None]:
    return dotenv_values(PROJECT_ROOT / "docker" / "embedded.env")


def published_ports() -> dict[str, int]:
    """The ports on this machine, by the names that SPARKPAR_PORTS knows."""
    ports = [port for service in compose_services().values() for port in service.get("ports", [])]
    pairs = [
        re.fullmatch(r"127\.0\.0\.1:\$\{SPARKPAR_PORT_(\w+):-(\d+)\}:\d+", port) for port in ports
    ]
    return {pair[1].lower().replace("_", "-"): int(pair[2]) for pair in pairs if pair}


def megabytes(limit: str) -> str:
    return f"{int(limit[:-1]) * {'m': 1, 'g': 1024}[limit[-1]]} MB"


def failures_of_compose_sh() -> list[str]:
    """What the containers' commands say when they fail, with … for what differs."""
    said = re.findall(r'\bfail "([^"]*)"', COMPOSE_SH.read_text())
    shown = [re.sub(r"\$\([^()]*\)|\$\{[^{}]*\}|\$\w+", "…", text) for text in said]
    # Where the cause itself is a variable, its words stand elsewhere.
    return [text for text in shown if not re.match("… [A-Z]", text)]


def failures_of_commands() -> list[str]:
    """What the commands on assets and versions say when they fail, with … for what differs."""
    errors = {"SelectionError", "VersionError", "NotComparableError"}
    files = ["materialize.py", "versions.py", "comparison.py", "io_managers/history.py"]
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


def pins_of(lock: str) -> dict[str, set[str]]:
    """The hashes of each name==version."""
    text = (PROJECT_ROOT / lock).read_text()
    entries = re.findall(r"^([a-z0-9][^\s;]*==[^\s;]+)((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return {pin: set(re.findall(r"--hash=(\S+)", rest)) for pin, rest in entries}


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
    line = r"^ {2}((?:embedded )?[a-z]+)(?:, ([a-z]+))?"
    lines = re.findall(line, help_of_run_sh(), re.MULTILINE)
    known = {name for names in lines for name in names if name}
    used = set(re.findall(r"\./run\.sh ((?:embedded )?[a-z]+)", text_of(readme)))
    assert used - known == set()
    assert {"demo", "test", "ui", "embedded up", "embedded down", "up", "down"} <= used


@readme_of_both
def test_the_table_of_commands_on_containers_has_those_of_the_help(readme: str) -> None:
    shown = help_of_run_sh().split("With Docker:\n")[1].split("\n\n")[0]
    lines = re.findall(r"^( +)(\S.*?)(?: {2,}|(?<=\]) )", shown, re.MULTILINE)
    commands = [name if indent == "  " else f"up {name}" for indent, name in lines]
    assert len(commands) == len(shown.splitlines())
    assert [row[0].replace("`", "") for row in table_after("commands", readme)] == commands


@readme_of_both
def test_the_services_and_their_memory_are_those_of_compose(readme: str) -> None:
    expected = {}
    for name, service in compose_services().items():
        limit = re.fullmatch(r"\$\{(\w+):-(\w+)\}", service["mem_limit"])
        variable, default = (limit[1], limit[2]) if limit else ("—", service["mem_limit"])
        embedded = embedded_env().get(variable) or default
        alone = "—" if service.get("profiles") == ["embedded"] else megabytes(default)
        expected[name] = [alone, megabytes(embedded), variable]
    assert {row[0]: row[2:] for row in table_after("services", readme)} == expected


@readme_of_both
def test_the_containers_memory_adds_up_to_what_the_readme_asks_for(readme: str) -> None:
    passing = {name for name, service in compose_services().items() if service["restart"] == "no"}
    rows = [
        row
        for row in table_after("services", readme)
        if row[0] not in passing | {"spark-worker-more"}
    ]
    for column, gigabytes in ((2, 16), (3, 6)):
        sizes = [int(row[column].split()[0]) for row in rows if row[column] != "—"]
        assert (gigabytes - 0.5) * 1024 < sum(sizes) <= gigabytes * 1024
        assert f"{gigabytes} GB" in section("Docker", readme)


@readme_of_both
def test_the_addresses_are_the_ports_that_compose_publishes(readme: str) -> None:
    published = published_ports()
    rows = {row[0]: row[1] for row in table_after("addresses", readme)}
    assert rows == {name: f"<http://127.0.0.1:{port}>" for name, port in published.items()}
    assert published == {name: DEFAULT_PORTS[name] for name in published}
    named = next(
        paragraph
        for paragraph in section("Ports", readme).split("\n\n")
        if "`SPARKPAR_PORTS`" in paragraph
    )
    assert set(re.findall(r"`([\w-]+)`", named)) & set(DEFAULT_PORTS) == set(published)
    chosen = [c for c in commands_of(readme) if c.startswith("SPARKPAR_PORTS=") and " up" in c]
    assert set(re.findall(r"([\w-]+)=\d+", " ".join(chosen))) <= set(published)


def test_the_ports_of_the_commands_are_those_that_compose_publishes() -> None:
    shell = COMPOSE_SH.read_text()
    defaults = re.findall(r'^(?:PORT_DEFAULTS=")?([\w-]+)=(\d+)"?$', shell, re.MULTILINE)
    ports = {name: int(port) for name, port in defaults if name in DEFAULT_PORTS}
    assert ports == published_ports()
    names = re.search(r'^PORT_NAMES="(.*)"$', shell, re.MULTILINE)
    assert names is not None
    assert names[1].split() == list(ports)


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


@readme_of_both
def test_the_sizes_of_the_containers_have_their_defaults(readme: str) -> None:
    defaults = dict(re.findall(r"\$\{(SPARK_\w+):-([^}]*)\}", COMPOSE_FILE.read_text()))
    rows = {row[0]: [row[1], row[2]] for row in table_after("sizes", readme)}
    embedded = embedded_env()
    assert rows == {name: [value, embedded.get(name, value)] for name, value in defaults.items()}


@readme_of_both
def test_the_settings_that_containers_do_not_take_from_env_are_named(readme: str) -> None:
    environment = compose_services()["spark-app"]["environment"]
    taken = {name for name, value in environment.items() if not value or f"${{{name}" in value}
    named = next(
        paragraph
        for paragraph in section("Docker", readme).split("\n\n")
        if "`AWS_PROFILE`" in paragraph
    )
    names = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", named)) & set(variable_names())
    assert names == set(variable_names()) - taken


def test_the_keys_of_aws_are_in_the_environment_of_the_application_alone() -> None:
    services = compose_services().items()
    assert [n for n, s in services if any("AWS_" in key for key in s.get("environment", ()))] == [
        "spark-app"
    ]


@readme_of_both
def test_the_volumes_are_those_of_compose(readme: str) -> None:
    volumes = yaml.safe_load(COMPOSE_FILE.read_text())["volumes"]
    assert [row[0] for row in table_after("volumes", readme)] == list(volumes)


@readme_of_both
def test_the_lines_of_a_third_worker_make_one_like_the_second(readme: str) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text_of(readme), re.MULTILINE | re.DOTALL)
    lines = next(block for block in blocks if "spark-worker-3:" in block)
    services = compose_services(lines)
    third, second = services["spark-worker-3"], services["spark-worker-2"]
    assert third == second | {"hostname": "spark-worker-3", "ports": ["127.0.0.1:8083:8081"]}
    assert 8083 not in DEFAULT_PORTS.values()


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


def test_the_image_has_no_package_that_this_machine_has_in_another_version() -> None:
    ours, of_image = map(pins_of, LOCKS)
    assert len(of_image) > 50
    assert all(of_image.values())
    assert {pin: hashes for pin, hashes in of_image.items() if ours.get(pin) != hashes} == {}


@readme_of_both
def test_commands_name_assets_and_files_that_there_are(readme: str) -> None:
    assets = {"fare_by_passenger_count", "fare_trends"}
    commands = "\n".join(commands_of(readme))
    selected = re.findall(
        r"(?:--(?:select|assets)|\./run\.sh (?:materialize|versions|diff|rollback)) (\S+)", commands
    )
    assert {asset for selection in selected for asset in selection.split(",")} <= assets
    files = re.findall(r"(?:^|\s)(?:\./)?([\w.]+\.(?:sh|yaml)|\.ci/run)", commands)
    missing = [name for name in files if not (PROJECT_ROOT / name).exists()]
    assert missing == []
