"""Dagster's instance of the embedded stack."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from sparkpar_assets import settings
from sparkpar_assets.embedded.state import State

if TYPE_CHECKING:
    import dagster as dg

DAGSTER_YAML = """\
telemetry:
  enabled: false
nux: # the form that asks for an address when the UI is first opened
  enabled: false
concurrency:
  pools:
    granularity: run # a run that waits is not started
    default_limit: 1 # ./run.sh ui sets SPARK_MAX_APPLICATIONS
run_queue:
  dequeue_interval_seconds: 1 # whoever clicks waits for it; Dagster's own is 5

# Runs are processes of this machine. Of one that is gone without a word its daemon finds out.
run_launcher:
  module: sparkpar_assets.run_launcher
  class: LocalRunLauncher
run_monitoring:
  enabled: true
  start_timeout_seconds: 240
  cancel_timeout_seconds: 120
  max_runtime_seconds: 43200
  poll_interval_seconds: 15
  # Else a run that died would keep its place in the pool.
  free_slots_after_run_end_seconds: 60
# Once more, where the run itself was lost. What an asset refused, it would refuse again.
run_retries:
  enabled: true
  max_retries: 1
  retry_on_asset_or_op_failure: false
"""

OURS = "# Written by ./run.sh embedded up, which brings it up to date until you change it. "
"""Followed by the digest of the lines after it: where that fits, nobody has changed them."""

BEFORE_DIGESTS = (
    "1766cc4df0ad8d4cd79ca9faf7329bd06ee3bf29f9a49ef65a2290c195a907d5",
    "18b75c0b52f3bb9dfba4a4817d3a45a911bc9a0554007a5f9bb515e434f022f8",
)
"""Digests of the files that were written when they had no such line yet."""


def write_dagster_yaml(dagster_home: Path) -> None:
    """Write ``dagster.yaml``, or bring ours up to date; a user's own stays as it is."""
    dagster_home.mkdir(parents=True, exist_ok=True)
    file = dagster_home / "dagster.yaml"
    if not file.exists() or _is_ours(file.read_text()):
        file.write_text(f"{OURS}{_digest(DAGSTER_YAML)}\n{DAGSTER_YAML}")


def create_dagster_instance(state: State) -> None:
    """Make the instance's databases: of two commands that find none, one would fail."""
    if (state.dagster_home / "history").exists():
        return
    import dagster as dg

    from sparkpar_assets.spark_pool import limit_applications

    with dg.DagsterInstance.from_config(str(state.dagster_home)) as instance:
        create_databases(instance)
        # Dagster looks for limits before it applies the default: the first runs would have none.
        values = {settings.ENV_FILE_VARIABLE: str(state.environment_file)}
        limit_applications(instance, settings.load_settings(values).spark_max_applications)


def create_databases(instance: "dg.DagsterInstance") -> None:
    """Ask each of an instance's storages something: they make their databases when first asked."""
    instance.get_run_records(limit=1)
    instance.get_asset_keys(limit=1)
    instance.all_instigator_state()


def fail_dead_runs(state: State) -> list[str]:
    """Mark as failed what was killed with the machine; returns the ids of these runs.

    With a launcher of the user's own, runs may be on other machines: those are left alone.
    """
    import dagster as dg

    from sparkpar_assets import dead_runs
    from sparkpar_assets.run_launcher import LocalRunLauncher

    with dg.DagsterInstance.from_config(str(state.dagster_home)) as instance:
        local = isinstance(instance.run_launcher, LocalRunLauncher)
        return dead_runs.fail_dead_runs(instance) if local else []


def _is_ours(text: str) -> bool:
    first, _, rest = text.partition("\n")
    return first == OURS + _digest(rest) or _digest(text) in BEFORE_DIGESTS


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
