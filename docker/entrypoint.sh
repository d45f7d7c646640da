#!/bin/sh
# What Compose cannot say: a container's own name, and the secrets that no `docker inspect` shows.
set -eu
SPARK_LOCAL_HOSTNAME="$(hostname)"
export SPARK_LOCAL_HOSTNAME
if [ -r /run/secrets/postgres_password ]; then
    DAGSTER_POSTGRES_PASSWORD="$(cat /run/secrets/postgres_password)"
    export DAGSTER_POSTGRES_PASSWORD
fi
# Master and workers read theirs from properties that are this user's alone: a command line would
# show it in every process list.
if [ "${1:-}" = spark-class ] && [ -r /run/secrets/spark_auth_secret ]; then
    (
        umask 077
        cat "$SPARK_CONF_DIR/spark-defaults.conf" >/tmp/spark.properties
        echo "spark.authenticate.secret $(cat /run/secrets/spark_auth_secret)" >>/tmp/spark.properties
    )
    set -- "$@" --properties-file /tmp/spark.properties
fi
# The code server's container also sets how many runs there are at once: dagster.yaml takes no
# variable for it.
if [ "${1:-} ${2:-}" = "dagster api" ]; then python -m sparkpar_assets.spark_pool; fi
exec "$@"
