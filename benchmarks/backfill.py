"""A backfill of 10,000 partitions through Dagster, without Spark: what its own part costs.

The real webserver, daemon and run launcher work on a database that begins empty. Only the asset
does nothing: it gives each partition as much metadata as a publication does.

Usage: python -m benchmarks.backfill [--postgres URL] [--partitions N] [--runs N]
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import dagster as dg
import requests
import sqlalchemy as sa
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from benchmarks.nothing import DAYS, METADATA_BYTES, PARTITIONS, at_once, one_by_one
from sparkpar_assets.project import PROJECT_ROOT

MATERIALIZATION_BYTES = 15_000
"""Of metadata: the event of a real year has 15,800 bytes in the event log (measured)."""
CONCURRENT_RUNS = 2
STORAGE = """\
storage:
  {storage}
"""
INSTANCE = f"""\
telemetry:
  enabled: false
run_launcher:
  module: dagster._core.launcher
  class: DefaultRunLauncher
concurrency:
  runs:
    max_concurrent_runs: {CONCURRENT_RUNS}
"""
WORKSPACE = """\
load_from:
  - python_module: {module_name: benchmarks.nothing, location_name: backfill}
"""
LOOKS = 5
"""How often each page is asked for; the median counts."""
LAUNCH = """mutation Launch($backfill: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $backfill) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
CANCEL = """mutation Cancel($id: String!) { cancelPartitionBackfill(backfillId: $id) {
  __typename } }"""
PAGES = {
    "partitions of an asset": """query($asset: AssetKeyInput!) {
      assetNodeOrError(assetKey: $asset) { ... on AssetNode {
        partitionStats { numPartitions numMaterialized numFailed }
        assetPartitionStatuses { ... on TimePartitionStatuses {
          ranges { status startKey endKey } } } } } }""",
    "keys of an asset's partitions": """query($asset: AssetKeyInput!) {
      assetNodeOrError(assetKey: $asset) { ... on AssetNode { partitionKeys } } }""",
    "100 latest materializations": """query($asset: AssetKeyInput!) {
      assetOrError(assetKey: $asset) { ... on Asset { assetMaterializations(limit: 100) {
        partition timestamp runId metadataEntries { label description } } } } }""",
    "one partition": """query($asset: AssetKeyInput!, $partition: String!) {
      assetNodeOrError(assetKey: $asset) { ... on AssetNode {
        latestMaterializationByPartition(partitions: [$partition]) { timestamp runId } } } }""",
    "25 latest runs": """query { runsOrError(limit: 25) { ... on Runs {
      results { runId status tags { key value } startTime endTime } } } }""",
    "backfills": """query { partitionBackfillsOrError(limit: 25) { ... on PartitionBackfills {
      results { id status numPartitions timestamp } } } }""",
}
"""What the pages of Dagster's web interface ask for, without the parts that do not grow."""


@dataclass(frozen=True)
class Webserver:
    """Dagster's web interface."""

    url: str

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """Send a GraphQL query, as a page does; returns its data.

        Raises:
            RuntimeError: Dagster refuses it.
        """
        answer = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=600
        ).json()
        if "errors" in answer:
            raise RuntimeError(str(answer["errors"]))
        return cast("dict[str, Any]", answer["data"])

    def launch(self, asset: dg.AssetsDefinition, partitions: int) -> str:
        """Launch a backfill of an asset's first partitions; returns its id.

        Raises:
            RuntimeError: Dagster refuses it.
        """
        params = {
            "assetSelection": [{"path": list(asset.key.path)}],
            "partitionNames": DAYS.get_partition_keys()[:partitions],
        }
        answer = self.ask(LAUNCH, backfill=params)["launchPartitionBackfill"]
        if "backfillId" not in answer:
            raise RuntimeError(str(answer))
        return str(answer["backfillId"])


@dataclass(frozen=True)
class Size:
    """What the database holds.

    Attributes:
        events: Rows of the event log.
        bytes: Of the whole database, indexes included.
    """

    events: int
    bytes: int


def main() -> None:
    """Run the simulation, and print what was measured as a table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--postgres", metavar="URL", help="an empty database, in SQLite's place")
    parser.add_argument(
        "--partitions", type=int, default=PARTITIONS, help=f"of them (default {PARTITIONS:,})"
    )
    parser.add_argument("--runs", type=int, default=100, help="runs of the sample (default 100)")
    chosen = parser.parse_args()
    # Not in /tmp's root: the paths of Dagster's sockets may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="backfill-") as folder:
        home = _dagster_home(Path(folder), chosen.postgres)
        sys.stdout.write(f"| {'PostgreSQL' if chosen.postgres else 'SQLite'} | |\n|---|---|\n")
        for what, value in simulate(home, chosen.postgres, chosen.partitions, chosen.runs):
            sys.stdout.write(f"| {what} | {value} |\n")
            sys.stdout.flush()


def simulate(
    home: Path, postgres: str | None, partitions: int, sample: int
) -> Iterator[tuple[str, str]]:
    """Launch both backfills, and look at the pages with all of it in the database.

    Args:
        home: The folder of a Dagster instance that is empty.
        postgres: The URL of its database, if that is PostgreSQL.
        partitions: How many of the asset's partitions each backfill has.
        sample: How many runs of the second backfill are waited for.

    Yields:
        What was measured, in words and figures, as soon as it is.
    """
    with dg.DagsterInstance.from_config(str(home)) as instance, dagster_servers(home) as web:
        before = _size(home, postgres)
        launched = _seconds(lambda: web.launch(at_once, partitions))
        began = time.monotonic()
        _wait(lambda: _ended(instance), "the end of the run with all partitions")
        if _failed(instance):
            raise RuntimeError("The run with all partitions has failed.")
        all_at_once = time.monotonic() - began
        single = _size(home, postgres)
        yield from {
            f"backfill of {partitions:,} partitions in one run: to launch": _say(launched),
            "the same: from launch to success": _say(all_at_once),
            "the same: rows of the event log a partition": (
                f"{(single.events - before.events) / partitions:.2f}"
            ),
            "the same: bytes a partition": f"{(single.bytes - before.bytes) / partitions:,.0f}",
        }.items()
        yield from _one_by_one(instance, web, partitions, sample).items()
        after = _size(home, postgres)
        runs = instance.get_runs_count() - 1
        ended = _ended(instance) - 1
        yield from {
            f"rows of the event log, {runs} runs queued and {ended} of them ended": (
                f"{after.events - single.events:,}"
            ),
            "the same: bytes": f"{after.bytes - single.bytes:,}",
        }.items()
        for page, query in PAGES.items():
            variables = {
                "asset": {"path": ["at_once"]},
                "partition": DAYS.get_partition_keys()[partitions // 2],
            }
            used = {name: value for name, value in variables.items() if f"${name}" in query}
            times = [_seconds(partial(web.ask, query, **used)) for _ in range(LOOKS)]
            yield f"page: {page}", _say(statistics.median(times))


def _one_by_one(
    instance: dg.DagsterInstance, web: Webserver, partitions: int, sample: int
) -> dict[str, str]:
    """Launch a run for each partition; when the sample is through, cancel the rest."""
    earlier = _ended(instance)
    began = time.monotonic()
    backfill = ""

    def launch() -> None:
        nonlocal backfill
        backfill = web.launch(one_by_one, partitions)

    launched = _seconds(launch)
    _wait(lambda: instance.get_runs_count() > 1, "the first run of the backfill")
    first = time.monotonic() - began
    _wait(lambda: _ended(instance) >= earlier + 1, "the end of the first run")
    done_at_first, started = _ended(instance), time.monotonic()
    queued_at_first = instance.get_runs_count()
    _wait(lambda: _ended(instance) >= earlier + sample, f"the end of {sample} runs")
    span = time.monotonic() - started
    queued = (instance.get_runs_count() - queued_at_first) / span
    ended = (_ended(instance) - done_at_first) / span
    web.ask(CANCEL, id=backfill)
    return {
        f"backfill of {partitions:,} runs: to launch": _say(launched),
        "the same: from launch to the first run": _say(first),
        "the same: runs queued a second": f"{queued:.2f}",
        "the same: runs ended a second": f"{ended:.2f}, {CONCURRENT_RUNS} at once",
        "the same: of these failed": str(_failed(instance)),
        f"the same: {PARTITIONS:,} runs, extrapolated": f"{PARTITIONS / ended / 3600:.1f} h",
    }


@contextmanager
def dagster_servers(home: Path) -> Iterator[Webserver]:
    """Dagster's webserver and daemon on an instance, until the block ends."""
    port = _free_port()
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        METADATA_BYTES: str(MATERIALIZATION_BYTES),
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    commands = (
        ["dagster-webserver", "-w", str(home / "workspace.yaml"), "-p", str(port)],
        ["dagster-daemon", "run", "-w", str(home / "workspace.yaml")],
    )
    web = Webserver(f"http://127.0.0.1:{port}")
    said, processes = home / "servers.log", []
    with ExitStack() as stack, said.open("w") as log:
        for tool, *arguments in commands:
            process = subprocess.Popen(
                [str(Path(sys.executable).parent / tool), *arguments],
                cwd=home,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(_stop, process)
            processes.append(process)
        _wait(
            lambda: _serves(web) or any(process.poll() is not None for process in processes),
            "Dagster's web interface",
        )
        if not _serves(web):
            raise RuntimeError(f"Dagster does not start: {said.read_text()[-2000:]}")
        yield web


def _dagster_home(folder: Path, postgres: str | None) -> Path:
    storage = "sqlite: {base_dir: " + str(folder) + "}"
    if postgres:
        storage = f"postgres: {{postgres_url: '{postgres}'}}"
    (folder / "dagster.yaml").write_text(STORAGE.format(storage=storage) + INSTANCE)
    (folder / "workspace.yaml").write_text(WORKSPACE)
    return folder


def _ended(instance: dg.DagsterInstance) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=FINISHED_STATUSES))


def _failed(instance: dg.DagsterInstance) -> int:
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))


def _size(home: Path, postgres: str | None) -> Size:
    """What the database holds now. With SQLite each run has one, and all assets' events another."""
    if not postgres:
        files = [*home.rglob("*.db"), *home.rglob("*.db-wal")]
        # The rows of the runs' own; those of the other one are copies.
        events = sum(
            _query(f"sqlite:///{file}", "SELECT count(*) FROM event_logs")
            for file in (home / "history" / "runs").glob("*-*.db")
        )
        return Size(events, sum(file.stat().st_size for file in files))
    return Size(
        _query(postgres, "SELECT count(*) FROM event_logs"),
        _query(postgres, "SELECT pg_database_size(current_database())"),
    )


def _query(url: str, statement: str) -> int:
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text(statement)).scalar_one())
    finally:
        engine.dispose()


def _seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


def _say(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _wait(condition: Callable[[], object], what: str, seconds: float = 1800) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {seconds:.0f} s in vain: {what}.")
        time.sleep(0.5)


def _serves(web: Webserver) -> bool:
    try:
        return requests.get(f"{web.url}/server_info", timeout=5).ok
    except requests.ConnectionError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    process.wait(timeout=120)


if __name__ == "__main__":
    main()
