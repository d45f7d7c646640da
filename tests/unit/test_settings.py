"""Settings: where they come from, and who wins."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from sparkpar_assets.project import PROJECT_ROOT
from sparkpar_assets.resources.environment import describe_targets
from sparkpar_assets.settings import automation_is_on, load_settings, variable_names


def test_every_setting_has_a_default_so_that_importing_needs_no_variable() -> None:
    assert load_settings({}).spark_master == "local[*]"


def test_an_empty_value_counts_as_not_set() -> None:
    assert load_settings({"AWS_SESSION_TOKEN": "", "SPARK_CORES_MAX": ""}).aws_session_token is None


def test_the_environment_file_wins_over_all_else_also_where_it_is_silent(tmp_path: Path) -> None:
    file = tmp_path / "platform.env"
    file.write_text("S3_BUCKET='a bucket'\nAWS_SESSION_TOKEN=\nS3_PREFIX='$HOME'\n")
    settings = load_settings(
        {
            "SPARKPAR_ENV_FILE": str(file),
            "S3_BUCKET": "production",
            "AWS_SESSION_TOKEN": "token",
            "AWS_PROFILE": "production",
        }
    )
    assert settings.s3_bucket == "a bucket"
    assert settings.s3_prefix == "$HOME"
    assert settings.aws_session_token is None
    assert settings.aws_profile is None


def test_an_environment_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="SPARKPAR_ENV_FILE names no file"):
        load_settings({"SPARKPAR_ENV_FILE": str(tmp_path / "none")})


def test_a_value_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(ValidationError, match="HISTORY_VERSIONS"):
        load_settings({"HISTORY_VERSIONS": "many"})


def test_automation_is_off_unless_it_is_on_and_nothing_else_is_read_for_that(
    tmp_path: Path,
) -> None:
    file = tmp_path / "platform.env"
    file.write_text("SPARKPAR_AUTOMATION=on\nHISTORY_VERSIONS=many\n")
    assert not automation_is_on({})
    assert not automation_is_on({"SPARKPAR_ENV_FILE": str(tmp_path / "none")})
    assert automation_is_on({"SPARKPAR_ENV_FILE": str(file), "SPARKPAR_AUTOMATION": "off"})


def test_automation_that_is_neither_on_nor_off_is_refused_without_showing_the_value() -> None:
    with pytest.raises(ValueError, match="SPARKPAR_AUTOMATION is neither on nor off") as raised:
        automation_is_on({"SPARKPAR_AUTOMATION": "hush"})
    assert "hush" not in str(raised.value)


def test_secrets_do_not_show_in_the_settings_nor_in_the_targets() -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "ALERT_WEBHOOK_URL")
    settings = load_settings(dict.fromkeys(names, "hush"))
    assert "hush" not in repr(settings) + str(settings) + describe_targets(settings)


def test_settings_give_back_the_environment_they_came_from() -> None:
    environ = {"AWS_SECRET_ACCESS_KEY": "hush", "SPARK_CORES_MAX": "2", "S3_BUCKET": "b"}
    values = load_settings(environ).as_environment()
    assert list(values) == variable_names()
    assert {name: value for name, value in values.items() if value is not None} == environ


def test_the_containers_key_path_means_the_projects_secrets_folder_elsewhere() -> None:
    settings = load_settings({"GOOGLE_APPLICATION_CREDENTIALS": "/secrets/service_account.json"})
    assert settings.google_credentials_file == str(
        PROJECT_ROOT / ".secrets" / "service_account.json"
    )


@pytest.mark.parametrize(("prefix", "root"), [("taxi", "taxi/"), ("/a/b/", "a/b/"), ("/", "")])
def test_the_prefix_ends_with_one_slash_or_is_nothing(prefix: str, root: str) -> None:
    assert load_settings({"S3_PREFIX": prefix}).s3_root == root
