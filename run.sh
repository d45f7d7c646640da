#!/usr/bin/env bash
# The project's one front door: ./run.sh help says what each command does.
set -euo pipefail

# Where a shell sets it, each command would compile Dagster and all it imports anew, for seconds.
unset PYTHONDONTWRITEBYTECODE

PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=setup.sh
source "$PROJECT/setup.sh"

help() {
    cat <<'HELP'
./run.sh COMMAND

With Python 3.11 alone:
  demo                  the whole chain on real trips, on this machine, without a cloud account
  ui                    Dagster's web interface on the embedded stack, until Ctrl-C
  test [ARGUMENTS]      the tests, on a stack of their own; ARGUMENTS go to pytest
    --compose             those of the containers instead, which need Docker
    --browser             those of the web interface instead, which need Chromium
    --faults              those of faults and of security: they kill, stop, fill, cut off, intrude
  bench [ARGUMENTS]     time the platform beside a script, DuckDB and Polars: benchmarks/RESULTS.md
    --quick               one round of one real year, in some minutes; --help shows the others
  screenshots           take the READMEs' pictures anew, by the tests of the web interface
  embedded up           start BigQuery, S3 and Spark on this machine, and wait until they serve
  embedded status       show each of these servers, and the end of the log of one that died
  embedded env          print the lines that lead a shell to them: eval "$(./run.sh embedded env)"
  embedded load T F     create or replace table T, project.dataset.table, from Parquet file F
  embedded logs [NAME]  show the end of one server's log or of all; -f goes on until Ctrl-C
  embedded down         stop the servers and keep their data
  jars [--with GROUP]   fetch the jars that jars/jars.toml pins, as ./download_jars.sh does

With Docker:
  up, start             start the cluster and Dagster in containers, and wait until they are healthy:
    --embedded            with emulators and sample trips instead of the clouds in .env
    --workers N           with N Spark workers instead of 2
    --run [A...B]         and materialize fare_by_passenger_count (--embedded does, and fare_trends)
    --no-run              do not
    --dev                 with the code of this folder: restart spark-app takes up an edit
  materialize ASSET [P] materialize an asset in spark-app; P is a partition, or A...B
  status, ps            state, memory and address of each container; the workers the master counts on
  logs [SERVICE]        follow the log of one or all, until Ctrl-C
  restart [SERVICE]     restart one or all
  build                 build the image
  down, stop            stop the containers and keep their data
  cleanup [--yes]       remove containers, networks and image, and after a question all data

On the containers if they are up, else on the embedded stack if it runs, else on what .env names; in a
shell with `embedded env` on the embedded stack alone. YEAR is left out where an asset has none:
  estimate ASSET [P]    what a run would read from BigQuery, and its price; P is a year, or A...B
  versions ASSET YEAR   list what was published, newest first: time, run, source, rows, totals
  rollback ASSET YEAR V put version V back in the place of what is published
  diff ASSET YEAR V W   show what changed from version V to version W, by group

  help                  this

Variables: SPARKPAR_PORTS=free|default|NAME=PORT,…  the ports on this machine
           SPARKPAR_STATE=FOLDER                    where the embedded stack keeps its data (.sparkpar)
           JAVA_HOME                                a Java 17 of your choice
           PYTHON                                   a Python 3.11 of your choice
           CHROMIUM                                 a Chromium or Chrome of your choice
HELP
}

embedded() {
    if [ "${1:-}" = up ]; then fetch_jars; fi
    exec_python -m sparkpar_assets.embedded "$@"
}

# Faults, retries, exactness and security, as far as neither Docker nor a browser is needed.
FAULTS=(
    tests/faults
    tests/integration/test_{publishing,staging,secrets,security_aws,security_cluster,security_keys}.py
    tests/unit/test_{retries,dead_runs,hostile_input,endpoints,private_files,key_age,policies,supply_chain}.py
)

run_tests() {
    set_up
    fetch_jars
    cd "$PROJECT"
    # Libraries keep caches in the home folder (matplotlib fonts, DuckDB extensions).
    export HOME="$CACHE/home"
    mkdir -p "$HOME"
    case "${1:-}" in
        --compose | --browser) set -- "tests/${1#--}" "${@:2}" ;;
        --faults) set -- "${FAULTS[@]}" -m "" "${@:2}" ;; # the slow ones, too
        # Two processes, each with a stack, where the machine allows it (tests/conftest.py): one
        # alone leaves half of two cores idle.
        *) set -- -n auto --dist loadfile --no-loadscope-reorder "$@" ;;
    esac
    exec_python -m pytest "$@"
}

bench() {
    set_up
    fetch_jars
    cd "$PROJECT"
    exec_python -m benchmarks "$@"
}

cluster() {
    # shellcheck source=docker/compose.sh
    source "$PROJECT/docker/compose.sh"
    local command="$1"
    shift
    "cluster_$command" "$@"
}

# where_work_is_done MODULE ARGUMENTS: a command on what is read or published.
where_work_is_done() {
    # shellcheck source=docker/compose.sh
    source "$PROJECT/docker/compose.sh"
    if [ -z "${SPARKPAR_ENV_FILE:-}" ] && command -v docker >/dev/null &&
        is_running spark-app 2>/dev/null; then
        step "In the containers"
        IN_PLACE=yes
        run_in_app "$@"
    fi
    set_up
    exec_python -m sparkpar_assets.embedded.choice "$@"
}

main() {
    local command="${1:-help}"
    if [ $# -gt 0 ]; then shift; fi
    case "$command" in
        help | -h | --help) help ;;
        demo | ui) set_up; fetch_jars; exec_python -m "sparkpar_assets.embedded.$command" "$@" ;;
        test) run_tests "$@" ;;
        bench) bench "$@" ;;
        screenshots) run_tests --browser --screenshots "$@" ;;
        embedded) set_up; embedded "$@" ;;
        up | start) cluster up "$@" ;;
        down | stop) cluster down "$@" ;;
        status | ps) cluster status "$@" ;;
        restart | build | logs | materialize | cleanup) cluster "$command" "$@" ;;
        estimate) where_work_is_done sparkpar_assets.estimate "$@" ;;
        versions) where_work_is_done sparkpar_assets.versions list "$@" ;;
        rollback | diff) where_work_is_done sparkpar_assets.versions "$command" "$@" ;;
        jars) set_up; exec_python -m sparkpar_assets.embedded.jars "$@" ;;
        *)
            echo "Error: there is no command '$command'. ./run.sh help lists them." >&2
            exit 2
            ;;
    esac
}

main "$@"
