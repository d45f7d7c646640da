"""What the READMEs say of the containers is what Compose does."""

import re
from typing import Any

import yaml
from dotenv import dotenv_values

from sparkpar_assets.embedded.ports import DEFAULT_PORTS
from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.settings import variable_names
from tests.unit.readmes import (
    commands_of,
    help_of_run_sh,
    readme_of_both,
    section,
    table_after,
    text_of,
)

COMPOSE_FILE = PROJECT_ROOT / "docker-compose.yml"
COMPOSE_SH = PROJECT_ROOT / "docker" / "compose.sh"
LOCKS = ["requirements.lock", "docker/requirements.lock"]


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


def pins_of(lock: str) -> dict[str, set[str]]:
    """The hashes of each name==version."""
    text = (PROJECT_ROOT / lock).read_text()
    entries = re.findall(r"^([a-z0-9][^\s;]*==[^\s;]+)((?:.*\\\n)*.*)$", text, re.MULTILINE)
    return {pin: set(re.findall(r"--hash=(\S+)", rest)) for pin, rest in entries}


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


def test_the_image_has_no_package_that_this_machine_has_in_another_version() -> None:
    ours, of_image = map(pins_of, LOCKS)
    assert len(of_image) > 50
    assert all(of_image.values())
    assert {pin: hashes for pin, hashes in of_image.items() if ours.get(pin) != hashes} == {}
