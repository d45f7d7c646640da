"""Says what a run would read from BigQuery and what that costs, without running anything.

``python -m sparkpar_assets.estimate ASSET [PARTITION or FIRST...LAST]``
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from dotenv import load_dotenv

from sparkpar_assets.comparison import MISSING, figure, text_table
from sparkpar_assets.cost import ReadEstimate, price, rates, total
from sparkpar_assets.io_managers.publication import WHOLE
from sparkpar_assets.io_managers.read_plan import ReadPlan, plan_reading
from sparkpar_assets.io_managers.source import TableSource
from sparkpar_assets.materialize import SelectionError, selected_partitions
from sparkpar_assets.resources.bigquery import BigQueryTables
from sparkpar_assets.resources.environment import RunEnvironment


def main() -> None:
    """Print the estimate; what a user can mend ends in two sentences and exit code 1."""
    parser = argparse.ArgumentParser(prog="run.sh estimate", description=__doc__)
    parser.add_argument("asset", metavar="ASSET")
    parser.add_argument("partitions", nargs="?", metavar="PARTITION or FIRST...LAST")
    arguments = parser.parse_args()
    try:
        sys.stdout.write(f"{estimate(arguments.asset, arguments.partitions)}\n")
    except SelectionError as error:
        sys.exit(f"Error: {error}")
    except dg.Failure as failure:
        sys.exit(f"Error: {failure.description}")


def estimate(asset: str, partitions: str | None) -> str:
    """What a run would read, as text: a table for each input of the asset from BigQuery.

    Args:
        asset: An asset's key, as the UI shows it.
        partitions: A partition key, or two with ``...`` between; None for an unpartitioned asset.

    Raises:
        SelectionError: There is no such asset or partition, or the asset reads no BigQuery table.
        dg.Failure: BigQuery refuses the credentials or a read, or does not answer.
    """
    from sparkpar_assets.definitions import defs

    years = selected_partitions(defs, asset, partitions) or []
    sources = _sources(defs, asset)
    if not sources:
        keys = defs.resolve_asset_graph().materializable_asset_keys
        readers = [key.to_user_string() for key in keys if _sources(defs, key.to_user_string())]
        raise SelectionError(
            f"{asset} reads no BigQuery table, so that nothing is billed for reading. "
            f"Those that do are: {', '.join(sorted(readers))}."
        )
    load_dotenv(Path.cwd() / ".env", override=True)  # as Dagster's commands do
    environment = RunEnvironment()
    with environment.in_force():
        tables = BigQueryTables(environment=environment)
        plans = [plan_reading(tables, source, years, asset) for source in sources]
    return "\n\n".join(map(plan_table, plans))


def plan_table(plan: ReadPlan) -> str:
    """What a run would read as text: a line for each year, the prices, and the limit."""
    lines = [
        [
            "" if year == WHOLE else year,
            name,
            *_figures(plan.estimates.get(year)),
            # The table's name stands in the line already.
            plan.refused.get(year, "").removeprefix("the table ").removeprefix(f"{name} "),
        ]
        for year, name in plan.names.items()
    ]
    whole = total(plan.estimates.values())
    if len(plan.estimates) > 1:
        lines.append(["total", "", *_figures(whole), ""])
    table = text_table(["", "table", "rows", "bytes", "price", ""], lines, right=(2, 3, 4))
    if not plan.estimates:
        return f"{table}\n\nNothing of this can be read."
    method = f"{whole.method[0].upper()}{whole.method[1:]}, {rates(whole)}."
    return f"{table}\n\n{method}\n{plan.why_refused or _allowed(plan)}"


def _allowed(plan: ReadPlan) -> str:
    return (
        f"{plan.limit}: the run would start."
        if plan.limit
        else "MAX_BYTES_READ is not set: there is no limit."
    )


def _figures(found: ReadEstimate | None) -> Sequence[str]:
    if found is None:
        return [MISSING] * 3
    return [figure(found.rows), figure(found.bytes), price(found.usd)]


def _sources(defs: dg.Definitions, asset: str) -> list[TableSource]:
    """What an asset reads from BigQuery; nothing for one that does not."""
    op = defs.resolve_assets_def(dg.AssetKey.from_user_string(asset)).op
    inputs = [TableSource.of_input(definition.metadata) for definition in op.input_defs]
    return [source for source in inputs if source is not None]


if __name__ == "__main__":
    main()
