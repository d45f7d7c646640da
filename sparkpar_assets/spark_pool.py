"""How many runs with Spark there are at once: the limit of the pool that the assets are in.

``dagster.yaml`` takes no variable for it (``concurrency.pools.default_limit`` is a number), and
Dagster 1.13.27 does not apply that default to the first runs that an instance queues. So the limit
is set in the instance: ``python -m sparkpar_assets.spark_pool``.
"""

import sys

import dagster as dg

from sparkpar_assets.resources.environment import read_settings

POOL = "spark"


def limit_applications(instance: dg.DagsterInstance, limit: int) -> None:
    """Let no more than ``limit`` runs with Spark be under way at once: the daemon queues others.

    Runs of the command line do not queue, but count.
    """
    instance.event_log_storage.set_concurrency_slots(POOL, limit)


def main() -> None:
    """Set the limit to ``SPARK_MAX_APPLICATIONS``."""
    try:
        limit = read_settings().spark_max_applications
    except dg.Failure as failure:
        sys.exit(f"Error: {failure.description}")
    with dg.DagsterInstance.get() as instance:
        limit_applications(instance, limit)


if __name__ == "__main__":
    main()
