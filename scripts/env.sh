# Sourced by the other scripts: one virtual environment, installed with visible progress, made again only when
# pyproject.toml or constraints.txt change. POSIX shell.

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# A Python of at least 3.11, from HYBRIDD_PYTHON or the PATH.
find_python() {
    for candidate in "${HYBRIDD_PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Runs a command with its output in the log, a line of progress every few seconds, and the log's name when it fails.
# usage: step LOG "what it does" command...
step() {
    step_log=$1 step_what=$2
    shift 2
    say "· $step_what"
    "$@" >>"$step_log" 2>&1 &
    step_pid=$! step_seconds=0
    while kill -0 "$step_pid" 2>/dev/null; do
        sleep 1
        step_seconds=$((step_seconds + 1))
        if [ $((step_seconds % 20)) -eq 0 ]; then
            say "  … ${step_seconds} s: $(tail -n 1 "$step_log" 2>/dev/null | tr -d '\r' | cut -c1-100)"
        fi
    done
    if ! wait "$step_pid"; then
        say "  failed; the last lines of $step_log:"
        tail -n 8 "$step_log" | sed 's/^/    /' >&2
        return 1
    fi
}

make_venv() {
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && return 0
    python=$(find_python) || die "hybridd needs Python 3.11 or newer; found $(python3 --version 2>&1 || echo none). On Debian: apt install python3 python3-venv"
    if step "$SETUP_LOG" "making the virtual environment with $("$python" --version)" "$python" -m venv "$VENV"; then
        return 0
    fi
    # Debian splits ensurepip off into python3-venv; a pip outside can stand in for it.
    if "$python" -m pip --version >/dev/null 2>&1; then
        step "$SETUP_LOG" "without ensurepip: using the system's pip" sh -c \
            '"$1" -m venv --clear --without-pip "$2" && "$1" -m pip --python "$2/bin/python" install pip' sh "$python" "$VENV" && return 0
    fi
    die "The virtual environment could not be made (log: $SETUP_LOG). On Debian: apt install python3-venv"
}

# usage: install_project EXTRAS    (comma-separated; local is handled apart because it may compile for minutes)
install_project() {
    extras=$1
    SETUP_LOG=${SETUP_LOG:-$ROOT/logs/setup.log}
    mkdir -p "$(dirname "$SETUP_LOG")"
    # Two scripts at once must not both install.
    exec 9>"$ROOT/logs/setup.lock"
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    make_venv
    stamp="$(cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" | cksum) $ROOT $extras"
    if ! grep -qxF "$stamp" "$VENV/.hybridd-stamp" 2>/dev/null; then
        step "$SETUP_LOG" "installing hybridd${extras:+[$extras]} and what it needs" \
            "$VENV/bin/python" -m pip install --disable-pip-version-check -c "$ROOT/constraints.txt" -e "$ROOT${extras:+[$extras]}" \
            || die "Installing failed; the whole log is $SETUP_LOG"
        printf '%s\n' "$stamp" >>"$VENV/.hybridd-stamp"
    fi
    exec 9>&-
}

# llama-cpp-python has no prebuilt wheel on the package index: it compiles once per machine, then the package client's
# own wheel cache answers. HYBRIDD_LLAMA_WHEEL names a wheel; HYBRIDD_LOCAL=0 leaves it out.
install_llama() {
    SETUP_LOG=${SETUP_LOG:-$ROOT/logs/setup.log}
    [ "${HYBRIDD_LOCAL:-1}" = 0 ] && { say "· local models left out (HYBRIDD_LOCAL=0)"; return 0; }
    "$VENV/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("llama_cpp") is None)' && return 0
    if [ -n "${HYBRIDD_LLAMA_WHEEL:-}" ]; then
        step "$SETUP_LOG" "installing llama-cpp-python from $HYBRIDD_LLAMA_WHEEL" \
            "$VENV/bin/python" -m pip install --disable-pip-version-check -c "$ROOT/constraints.txt" "$HYBRIDD_LLAMA_WHEEL"
        return
    fi
    if ! command -v c++ >/dev/null 2>&1 && ! command -v g++ >/dev/null 2>&1 && ! command -v clang++ >/dev/null 2>&1; then
        say "  no C++ compiler: local models need one (on Debian: apt install build-essential)"
        return 1
    fi
    CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    export CMAKE_BUILD_PARALLEL_LEVEL
    step "$SETUP_LOG" "installing llama-cpp-python; the first time on a machine it compiles for 3 to 10 minutes" \
        "$VENV/bin/python" -m pip install --disable-pip-version-check -v -c "$ROOT/constraints.txt" "llama-cpp-python>=0.3.36,<0.4"
}
