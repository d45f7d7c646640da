#!/bin/sh
# What Compose cannot say: a container's own name, and the password that no `docker inspect` shows.
set -eu
SPARK_LOCAL_HOSTNAME="$(hostname)"
export SPARK_LOCAL_HOSTNAME
if [ -r /run/secrets/postgres_password ]; then
    DAGSTER_POSTGRES_PASSWORD="$(cat /run/secrets/postgres_password)"
    export DAGSTER_POSTGRES_PASSWORD
fi
# The code server's container also sets how many runs there are at once: dagster.yaml takes no
# variable for it. And of runs that a command had started there, and that ended with the container,
# nobody else would say so.
if [ "${1:-} ${2:-}" = "dagster api" ]; then
    python -m sparkpar_assets.spark_pool
    python -m sparkpar_assets.dead_runs
fi
exec "$@"
