"""The environment that leads the platform to the embedded stack and nowhere else."""

import dataclasses
import json
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from sparkpar_assets.embedded import class_archive, environment
from sparkpar_assets.embedded.credentials import (
    create_certificates,
    s3_keys,
    write_service_account,
)
from sparkpar_assets.embedded.ports import DEFAULT_PORTS
from sparkpar_assets.embedded.server import StackConfig
from sparkpar_assets.embedded.state import State
from sparkpar_assets.settings import load_settings, variable_names

CLOUDS = {
    "GOOGLE_APPLICATION_CREDENTIALS": "/real/key.json",
    "GCP_PROJECT_ID": "real-project",
    "AWS_PROFILE": "real",
    "AWS_SESSION_TOKEN": "real-token",
    "AWS_ENDPOINT_URL": "https://real.example",
    "GOOGLE_CLOUD_PROJECT": "real-project",
    "SPARK_HOME": "/real/spark",
    "PYSPARK_SUBMIT_ARGS": "--master yarn",
    "S3_BUCKET": "real-bucket",
    "HISTORY_VERSIONS": "99",
}


@pytest.fixture
def config(tmp_path: Path) -> StackConfig:
    state = State(tmp_path / "it's a folder")
    state.create()
    config = StackConfig(state, DEFAULT_PORTS, "/opt/java 17")
    create_certificates(state)
    write_service_account(state, "http://127.0.0.1:1/token")
    environment.write_environment(config)
    return config


def evaluated(lines: str, before: dict[str, str]) -> dict[str, str]:
    script = f"{lines}\nenv -0"
    output = subprocess.run(
        ["/bin/bash", "-c", script], env=before, capture_output=True, text=True, check=True
    ).stdout
    return dict(line.split("=", 1) for line in output.split("\0") if line)


def test_a_shell_takes_the_lines_whatever_is_in_the_paths(config: StackConfig) -> None:
    before = CLOUDS | {"PATH": "/usr/bin:/bin"}
    after = evaluated(environment.shell_lines(config, before), before)
    assert load_settings(after) == load_settings(environment.platform_values(config))
    assert after["JAVA_HOME"] == "/opt/java 17"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "SPARK_HOME"} & set(after)
    assert after["PATH"] == "/usr/bin:/bin"


def test_the_environment_file_wins_over_every_cloud_in_a_dotenv(config: StackConfig) -> None:
    exported = environment.stack_values(config)
    assert load_settings(exported | CLOUDS) == load_settings(environment.platform_values(config))


def test_the_environment_file_has_a_line_for_every_variable(config: StackConfig) -> None:
    lines = config.state.environment_file.read_text().splitlines()
    assert sorted(line.partition("=")[0] for line in lines) == sorted(variable_names())


def test_the_user_chooses_automation_alerts_and_the_number_of_runs_also_here(
    config: StackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SPARKPAR_AUTOMATION", "on"), ("SPARK_MAX_APPLICATIONS", "2")):
        monkeypatch.setenv(name, value)
    environment.write_environment(config)
    settings = load_settings(environment.process_environment(config))
    assert settings.automation == "on"
    assert settings.spark_max_applications == 2
    assert settings.dagster_ui_url == "http://127.0.0.1:3000"


def test_runs_share_a_warm_driver_here_unless_the_user_wants_none(
    config: StackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_WARM_DRIVER", "/of/a/real/cluster")
    folder = str(config.state.warm_driver)
    values = environment.platform_values(config)
    assert values["SPARK_WARM_DRIVER"] == folder
    in_containers = dataclasses.replace(config, hosts={"s3": "s3"})
    assert environment.platform_values(in_containers)["SPARK_WARM_DRIVER"] == ""
    monkeypatch.setenv("SPARK_WARM_DRIVER", "")
    assert environment.platform_values(config)["SPARK_WARM_DRIVER"] == ""


def test_the_driver_starts_quickly_and_executors_as_a_run_has_it(config: StackConfig) -> None:
    values = environment.platform_values(config)
    assert "TieredStopAtLevel" in values["SPARK_DRIVER_JAVA_OPTIONS"]
    assert "TieredStopAtLevel" not in values["SPARK_EXECUTOR_JAVA_OPTIONS"]


def test_the_run_that_records_classes_has_a_driver_of_its_own(
    config: StackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARK_WARM_DRIVER")
    monkeypatch.setattr(class_archive, "CACHE", config.state.root / "classes")
    monkeypatch.setattr(class_archive.ClassArchive, "_java", lambda *_: None)  # none is there
    with environment.recording_environment(config) as values:
        assert load_settings(values).spark_warm_driver is None
    assert load_settings(values | {"SPARKPAR_ENV_FILE": str(config.state.environment_file)})


def test_a_child_process_sees_no_other_cloud(config: StackConfig) -> None:
    values = environment.process_environment(config, CLOUDS | {"LANG": "C"})
    assert values["LANG"] == "C"
    assert values["S3_BUCKET"] == "sparkpar"
    assert not [value for value in values.values() if "real" in value]


def test_secrets_are_for_their_owner_alone(config: StackConfig) -> None:
    s3_keys(config.state)
    private = [*config.state.secrets.iterdir(), config.state.environment_file]
    assert len(private) >= 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in private} == {0o600}
    assert stat.S_IMODE(config.state.secrets.stat().st_mode) == 0o700


def test_keys_stay_the_same_from_start_to_start(config: StackConfig) -> None:
    keys, key_file = s3_keys(config.state), config.state.secrets / "service_account.json"
    private_key = json.loads(key_file.read_text())["private_key"]
    write_service_account(config.state, "http://127.0.0.1:2/token")
    assert s3_keys(config.state) == keys
    assert json.loads(key_file.read_text())["private_key"] == private_key


def test_a_proxy_is_not_asked_for_this_machine(
    config: StackConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "intranet.example")
    monkeypatch.delenv("no_proxy", raising=False)
    line = next(
        line for line in environment.shell_lines(config).splitlines() if " no_proxy=" in line
    )
    assert shlex.split(line)[1] == "no_proxy=intranet.example,localhost,127.0.0.1"


def test_dagster_sends_no_telemetry(config: StackConfig) -> None:
    assert "enabled: false" in (config.state.dagster_home / "dagster.yaml").read_text()
