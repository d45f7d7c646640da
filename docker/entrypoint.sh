#!/bin/sh
# What Compose cannot say: a container's own name, and the password that no `docker inspect` shows.
set -eu
SPARK_LOCAL_HOSTNAME="$(hostname)"
export SPARK_LOCAL_HOSTNAME
if [ -r /run/secrets/postgres_password ]; then
    DAGSTER_POSTGRES_PASSWORD="$(cat /run/secrets/postgres_password)"
    export DAGSTER_POSTGRES_PASSWORD
fi
# Compose tells this to spark-app; dagster.yaml takes no variable for it.
if [ -n "${SPARK_MAX_APPLICATIONS:-}" ] && [ -n "${DAGSTER_POSTGRES_PASSWORD:-}" ]; then
    python -m sparkpar_assets.spark_pool
fi
exec "$@"
