"""Materializes one asset by Dagster's own command, after a look at what was asked for.

``python -m sparkpar_assets.materialize ASSET [PARTITION or FIRST...LAST]``, where runs are
processes of this machine or container: those that were killed are marked as failed before.
"""

import argparse
import sys

import dagster as dg

from sparkpar_assets import dead_runs

MODULE = "sparkpar_assets.definitions"
RANGE = "..."


class SelectionError(ValueError):
    """What was asked for is not there: one sentence of cause, one of remedy."""


def main() -> None:
    """Check the arguments, then do as ``dagster asset materialize``."""
    parser = argparse.ArgumentParser(prog="run.sh materialize", description=__doc__)
    parser.add_argument("asset", metavar="ASSET")
    parser.add_argument("partitions", nargs="?", metavar="PARTITION or FIRST...LAST")
    arguments = parser.parse_args()

    from sparkpar_assets.definitions import defs

    try:
        options = selection(defs, arguments.asset, arguments.partitions)
    except SelectionError as error:
        sys.exit(f"Error: {error}")
    dead_runs.main()
    # In this process, which has them loaded already: another would take seconds for it.
    from dagster._cli import ENV_PREFIX, cli

    command = ["asset", "materialize", "-m", MODULE, *options]
    cli(args=command, prog_name="dagster", auto_envvar_prefix=ENV_PREFIX)


def selection(defs: dg.Definitions, asset: str, partitions: str | None) -> list[str]:
    """The options of ``dagster asset materialize`` for one asset.

    Args:
        defs: The assets that there are.
        asset: An asset's key, as the UI shows it.
        partitions: A partition key, or two with ``...`` between; None for an unpartitioned asset.

    Returns:
        ``--select`` and, where there are partitions, ``--partition`` or ``--partition-range``.

    Raises:
        SelectionError: There is no such asset or partition.
    """
    options = ["--select", asset]
    if selected_partitions(defs, asset, partitions) is None or partitions is None:
        return options
    return [*options, "--partition-range" if RANGE in partitions else "--partition", partitions]


def selected_partitions(
    defs: dg.Definitions, asset: str, partitions: str | None
) -> list[str] | None:
    """The partitions that were asked for; None where the asset has none.

    Args:
        defs: The assets that there are.
        asset: An asset's key, as the UI shows it.
        partitions: A partition key, or two with ``...`` between; None for an unpartitioned asset.

    Raises:
        SelectionError: There is no such asset or partition.
    """
    keys = partition_keys(defs, asset)
    if keys is None:
        if partitions is not None:
            raise SelectionError(f"{asset} has no partitions. Leave {partitions} out.")
        return None
    span = f"{keys[0]} to {keys[-1]}"
    if partitions is None:
        raise SelectionError(
            f"{asset} has the partitions {span}. Name one, or a range such as "
            f"{keys[0]}{RANGE}{keys[-1]}."
        )
    asked = partitions.split(RANGE)
    if len(asked) > 2:
        raise SelectionError(f"{partitions} is no range. Write FIRST{RANGE}LAST.")
    for key in asked:
        if key not in keys:
            raise SelectionError(f"{asset} has no partition '{key}'. The partitions are {span}.")
    first, last = keys.index(asked[0]), keys.index(asked[-1])
    if first > last:
        raise SelectionError(
            f"{partitions} ends before it begins. Write {RANGE.join(asked[::-1])}."
        )
    return keys[first : last + 1]


def partition_keys(defs: dg.Definitions, asset: str) -> list[str] | None:
    """The partitions of an asset that can be materialized; None where it has none.

    Raises:
        SelectionError: There is no such asset.
    """
    graph = defs.resolve_asset_graph()
    assets = {key.to_user_string(): key for key in graph.materializable_asset_keys}
    if asset not in assets:
        raise SelectionError(
            f"There is no asset {asset} to materialize. The assets are: "
            f"{', '.join(sorted(assets))}."
        )
    known = graph.get(assets[asset]).partitions_def
    return None if known is None else list(known.get_partition_keys())


if __name__ == "__main__":
    main()
