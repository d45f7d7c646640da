"""The embedded stack's dagster.yaml: ours is kept up to date, a user's own is left alone."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.events import EngineEventData
from dagster._core.run_coordinator import QueuedRunCoordinator

from sparkpar_assets.embedded.dagster_home import (
    DAGSTER_YAML,
    OURS,
    fail_dead_runs,
    write_dagster_yaml,
)
from sparkpar_assets.embedded.state import State
from sparkpar_assets.project import PROJECT_ROOT


@dg.job
def nothing() -> None:
    """A job whose runs a test has begin as it likes."""


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


def test_runs_of_a_launcher_of_the_users_own_are_left_alone(tmp_path: Path) -> None:
    state = State(tmp_path)
    write_dagster_yaml(state.dagster_home)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with dg.DagsterInstance.from_config(str(state.dagster_home)) as instance:
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
        instance.report_engine_event("Begins", run, EngineEventData.in_process(process.pid))
    file = state.dagster_home / "dagster.yaml"
    ours = file.read_text()
    file.write_text("telemetry: {enabled: false}")
    assert fail_dead_runs(state) == []
    file.write_text(ours)
    assert fail_dead_runs(state) == [run.run_id]


def test_a_click_waits_a_second_at_most_for_the_queue_and_the_limits_still_hold(
    tmp_path: Path,
) -> None:
    write_dagster_yaml(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        assert instance.run_coordinator.dequeue_interval_seconds == 1
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 1
    of_containers = yaml.safe_load((PROJECT_ROOT / "docker" / "dagster.yaml").read_text())
    assert of_containers["run_queue"] == yaml.safe_load(DAGSTER_YAML)["run_queue"]
