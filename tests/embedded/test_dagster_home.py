"""The embedded stack's dagster.yaml: ours is kept up to date, a user's own is left alone."""

from pathlib import Path

import pytest
import yaml

from sparkpar_assets.embedded.dagster_home import DAGSTER_YAML, OURS, write_dagster_yaml
from sparkpar_assets.project import PROJECT_ROOT

BEFORE = """\
telemetry:
  enabled: false
nux: # the form that asks for an address when the UI is first opened
  enabled: false
"""


@pytest.mark.parametrize(
    "before", [None, BEFORE, f"{OURS}{'0' * 64}\n"], ids=["none", "old", "own"]
)
def test_only_a_file_that_nobody_has_changed_is_brought_up_to_date(
    tmp_path: Path, before: str | None
) -> None:
    file = tmp_path / "dagster.yaml"
    if before is not None:
        file.write_text(before)
    write_dagster_yaml(tmp_path)
    if before == BEFORE or before is None:
        assert file.read_text().endswith(f"\n{DAGSTER_YAML}")
    else:
        assert file.read_text() == before
    changed = file.read_text() + "# mine\n"
    file.write_text(changed)
    write_dagster_yaml(tmp_path)
    assert file.read_text() == changed


def test_our_own_file_of_another_day_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "sparkpar_assets.embedded.dagster_home.DAGSTER_YAML"
    with monkeypatch.context() as another_day:
        another_day.setattr(module, BEFORE + "# as it was then\n")
        write_dagster_yaml(tmp_path)
    write_dagster_yaml(tmp_path)
    assert (tmp_path / "dagster.yaml").read_text().endswith(f"\n{DAGSTER_YAML}")


def test_runs_are_monitored_retried_and_give_back_their_place_here_as_in_the_containers() -> None:
    embedded = yaml.safe_load(DAGSTER_YAML)
    compose = yaml.safe_load((PROJECT_ROOT / "docker" / "dagster.yaml").read_text())
    for part in ("run_monitoring", "run_retries"):
        assert embedded[part] == compose[part]
