# Makes .venv from requirements.lock. Sourced by run.sh and download_jars.sh, which set PROJECT.
# shellcheck shell=bash

VENV="$PROJECT/.venv"
CACHE="$PROJECT/.sparkpar/cache"

# Steps go to stderr: what `embedded env` prints is for eval.
step() { echo "==> $*" >&2; }

fail() {
    echo "Error: $*" >&2
    exit 1
}

# Everything in .venv is as requirements.lock and pyproject.toml say, after this.
set_up() {
    local wanted
    wanted="$(fingerprint)"
    if is_set_up "$wanted"; then return; fi
    find_python
    mkdir -p "$CACHE"
    # Its interpreter waits for another set-up to end, then runs the rest under the lock.
    run_locked install "$wanted"
}

# What .venv has to agree with: the two files, and where the folder lies, since a venv that was
# moved or copied still runs the Python of its old place.
fingerprint() {
    { echo "$PROJECT"; cat "$PROJECT/requirements.lock" "$PROJECT/pyproject.toml"; } | cksum
}

is_set_up() {
    [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/.sparkpar" 2>/dev/null)" = "$1" ]
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3 python; do
        if [ -n "$candidate" ] && is_python_311 "$candidate"; then
            FOUND_PYTHON="$candidate"
            return
        fi
        if [ -n "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON is not a Python 3.11. Set it to one, or unset it."
        fi
    done
    fail "No Python 3.11 was found. Install it, or set PYTHON to where it is."
}

is_python_311() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null
}

# Two commands at once would write into the same venv. macOS has no flock command; a lock of the
# system is let go with the process that holds it, however that ends.
run_locked() {
    "$FOUND_PYTHON" - "$CACHE/setup.lock" "$PROJECT" "$FOUND_PYTHON" "$@" <<'PYTHON'
import fcntl, os, signal, subprocess, sys

lock, project, python, function, *arguments = sys.argv[1:]
file = open(lock, "w")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("==> Waiting for another set-up to finish", file=sys.stderr, flush=True)
    fcntl.flock(file, fcntl.LOCK_EX)
script = 'set -euo pipefail; PROJECT="$1"; FOUND_PYTHON="$2"; source "$1/setup.sh"; shift 2; "$@"'
command = ["bash", "-c", script, "setup", project, python, function, *arguments]
# In a session of its own: a Ctrl-C would make every Python in it print a traceback.
process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
try:
    sys.exit(process.wait())
except KeyboardInterrupt:
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    print("\nInterrupted. Run the same command again to go on.", file=sys.stderr)
    sys.exit(130)
PYTHON
}

install() {
    local wanted="$1"
    if is_set_up "$wanted"; then return; fi
    rm -f "$VENV/.sparkpar"
    make_venv
    # A package that was installed by half passes for installed: with this file there, the next
    # set-up begins with an empty .venv. What was downloaded stays in the cache.
    touch "$VENV/.unfinished"
    install_uv
    install_packages
    rm "$VENV/.unfinished"
    echo "$wanted" >"$VENV/.sparkpar"
}

make_venv() {
    local home
    home="$("$VENV/bin/python" -c 'import sys; print(sys.prefix)' 2>/dev/null || true)"
    if [ "$home" = "$VENV" ] && [ ! -e "$VENV/.unfinished" ] &&
        grep -qF "$VENV" "$VENV/bin/activate" 2>/dev/null &&
        "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
    step "Making .venv with $("$FOUND_PYTHON" --version)"
    "$FOUND_PYTHON" -m venv --clear "$VENV" >&2 ||
        fail "Making .venv failed. Does this Python have the module venv?"
}

# uv by its own entry in the lock file, so that it is verified as all the others are.
install_uv() {
    local entry="$CACHE/uv.txt"
    sed -n '/^uv==/,/[^\\]$/p' "$PROJECT/requirements.lock" >"$entry"
    if [ "$("$VENV/bin/uv" --version 2>/dev/null | cut -d' ' -f2)" = \
        "$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$entry")" ]; then return; fi
    step "Installing uv"
    PIP_CACHE_DIR="$CACHE/pip" "$VENV/bin/python" -m pip install --quiet \
        --disable-pip-version-check --require-hashes --requirement "$entry" >&2 ||
        fail "uv could not be installed. Check the network, and pip's settings (pip config list)."
}

install_packages() {
    local index
    step "Installing $(grep -c '^[a-z0-9].*==' "$PROJECT/requirements.lock") packages" \
        "(about 500 MB to fetch, once)"
    # A company's mirror, where pip knows of one.
    index="$("$VENV/bin/python" -m pip config get global.index-url 2>/dev/null || true)"
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"; fi
    export UV_CACHE_DIR="$CACHE/uv" UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never
    export VIRTUAL_ENV="$VENV"
    # shellcheck disable=SC2015
    "$VENV/bin/uv" pip sync --require-hashes "$PROJECT/requirements.lock" &&
        "$VENV/bin/uv" pip install --quiet --no-deps --no-build-isolation \
            --editable "$PROJECT" >&2 ||
        fail "The packages could not be installed. Check the network, and run it again."
}

# A failure has said its sentence already.
fetch_jars() { "$VENV/bin/python" -m sparkpar_assets.embedded.jars || exit $?; }

# In this shell's place, so that a signal to it reaches Python.
exec_python() { exec "$VENV/bin/python" "$@"; }
