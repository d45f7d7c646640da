#!/usr/bin/env bash
# The project's one front door: ./run.sh help says what each command does.
set -euo pipefail

PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=setup.sh
source "$PROJECT/setup.sh"

help() {
    cat <<'HELP'
./run.sh COMMAND

  demo                  the whole chain on real trips, on this machine, without a cloud account
  ui                    Dagster's web interface on the embedded stack, until Ctrl-C
  test [ARGUMENTS]      the tests, on a stack of their own; ARGUMENTS go to pytest
  embedded up           start BigQuery, S3 and Spark on this machine, and wait until they serve
  embedded status       show each of these servers, and the end of the log of one that died
  embedded env          print the lines that lead a shell to them: eval "$(./run.sh embedded env)"
  embedded load T F     create or replace table T, project.dataset.table, from Parquet file F
  embedded logs [NAME]  show the end of one server's log or of all; -f goes on until Ctrl-C
  embedded down         stop the servers and keep their data
  jars [--with GROUP]   fetch the jars that jars/jars.toml pins, as ./download_jars.sh does
  help                  this

Variables: SPARKPAR_PORTS=free|default|NAME=PORT,…  the ports of the embedded stack
           SPARKPAR_STATE=FOLDER                    where it keeps all it writes (.sparkpar)
           JAVA_HOME                                a Java 17 of your choice
           PYTHON                                   a Python 3.11 of your choice
HELP
}

embedded() {
    if [ "${1:-}" = up ]; then fetch_jars; fi
    exec_python -m sparkpar_assets.embedded "$@"
}

main() {
    local command="${1:-help}"
    if [ $# -gt 0 ]; then shift; fi
    case "$command" in
        help | -h | --help) help ;;
        demo | ui) set_up; fetch_jars; exec_python -m "sparkpar_assets.embedded.$command" "$@" ;;
        test)
            set_up
            fetch_jars
            cd "$PROJECT"
            # Libraries keep caches in the home folder (matplotlib fonts, DuckDB extensions).
            export HOME="$CACHE/home"
            mkdir -p "$HOME"
            exec_python -m pytest "$@"
            ;;
        embedded) set_up; embedded "$@" ;;
        jars) set_up; exec_python -m sparkpar_assets.embedded.jars "$@" ;;
        *)
            echo "Error: there is no command '$command'. ./run.sh help lists them." >&2
            exit 2
            ;;
    esac
}

main "$@"
