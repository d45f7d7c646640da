#!/usr/bin/env bash
# Fetches the jars that jars/jars.toml pins into jars/; --with GROUP for an optional group as well.
set -euo pipefail

PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
# shellcheck source=setup.sh
source "$PROJECT/setup.sh"

set_up
exec_python -m sparkpar_assets.embedded.jars "$@"
