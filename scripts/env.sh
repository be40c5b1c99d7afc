# Sourced by the other scripts: one virtual environment, installed with visible progress, made again only when
# pyproject.toml or constraints.txt change. POSIX shell.
#
# The caller sets ROOT (the checkout). Knobs, all optional:
#   HYBRIDD_VENV=DIR         where the virtual environment lives (default: .venv in the checkout)
#   HYBRIDD_PYTHON=PROGRAM   the Python to make it with
#   HYBRIDD_SETUP=0          install nothing: HYBRIDD_VENV is used exactly as it is
#   HYBRIDD_LOCAL=0          leave llama-cpp-python out
#   HYBRIDD_LLAMA_WHEEL=FILE install it from this wheel instead of compiling it

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

absolute() {
    case $1 in
        /*) printf '%s\n' "$1" ;;
        *) printf '%s/%s\n' "$PWD" "$1" ;;
    esac
}

VENV=$(absolute "${HYBRIDD_VENV:-$ROOT/.venv}")
SETUP_LOG=${SETUP_LOG:-$ROOT/logs/setup.log}
STAMP=$VENV/.hybridd-stamp

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

need_python() {
    find_python && return 0
    found=$(python3 --version 2>&1) || found=none
    die "hybridd needs Python 3.11 or newer; found: $found. On Debian: apt install python3 python3-venv (or set HYBRIDD_PYTHON)"
}

writable_folder() {
    mkdir -p "$1" 2>/dev/null && [ -w "$1" ] || die "hybridd cannot write in $1: make it writable, or set $2 to a folder that is"
}

# The last lines of what the current step has printed: the log is appended to.
step_words() { tail -c "+$((step_begins + 1))" "$SETUP_LOG" 2>/dev/null | tail -n "$1" | tr -d '\r' | cut -c1-160; }

# Runs a command with its output in the log, a line of progress now and then, and the log's name when it fails.
# usage: step "what it does" command...
step() {
    step_what=$1
    shift
    say "· $step_what"
    step_begins=$(wc -c 2>/dev/null <"$SETUP_LOG" || echo 0)
    # In a session of its own, so that Ctrl-C here ends the compilers it started as well; and without our locks.
    setsid "$@" >>"$SETUP_LOG" 2>&1 </dev/null 8>&- 9>&- &
    step_pid=$! step_ticks=0
    trap 'kill -TERM "-$step_pid" 2>/dev/null; say "interrupted (log: $SETUP_LOG)"; exit 130' INT TERM HUP
    while kill -0 "$step_pid" 2>/dev/null; do
        sleep 0.2
        step_ticks=$((step_ticks + 1))
        if [ $((step_ticks % 50)) -eq 0 ]; then
            say "  … $((step_ticks / 5)) s: $(step_words 1)"
        fi
    done
    trap - INT TERM HUP
    if ! wait "$step_pid"; then
        say "  failed; the last lines of $SETUP_LOG:"
        step_words 12 | sed 's/^/    /' >&2
        return 1
    fi
}

# A copied or moved virtual environment has scripts that point elsewhere, and one whose Python is gone has none at all.
venv_is_sound() {
    [ -x "$VENV/bin/python" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || return 1
    [ ! -e "$STAMP" ] || grep -qxF "venv $VENV" "$STAMP"
}

make_venv() {
    venv_is_sound && return 0
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV" 2>/dev/null)" ]; then
        die "$VENV exists and is no virtual environment: remove it, or set HYBRIDD_VENV to another place"
    fi
    python=$(need_python) || exit 1
    if step "making the virtual environment with $("$python" --version 2>&1)" "$python" -m venv --clear "$VENV"; then
        return 0
    fi
    # Debian splits ensurepip off into python3-venv; a pip outside can stand in for it.
    if "$python" -m pip --version >/dev/null 2>&1; then
        step "without ensurepip: using the system's pip" sh -c \
            '"$1" -m venv --clear --without-pip "$2" && "$1" -m pip --python "$2/bin/python" install pip' sh "$python" "$VENV" && return 0
    fi
    die "The virtual environment $VENV could not be made (log: $SETUP_LOG). On Debian: apt install python3-venv"
}

pip_install() { # usage: pip_install "what it does" pip arguments...
    pip_what=$1
    shift
    step "$pip_what" "$VENV/bin/python" -m pip install --disable-pip-version-check -c "$ROOT/constraints.txt" "$@"
}

# usage: install_project EXTRAS    (comma-separated; local is handled apart because it may compile for minutes)
install_project() {
    if [ "${HYBRIDD_SETUP:-1}" = 0 ]; then
        [ -x "$VENV/bin/python" ] || die "HYBRIDD_SETUP=0, but there is no Python in $VENV"
        return 0
    fi
    extras=$1
    sum="$(cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" | cksum) $ROOT"
    stamp="$sum [$extras]"
    if venv_is_sound && grep -qxF "$stamp" "$STAMP" 2>/dev/null; then return 0; fi
    writable_folder "$(dirname "$SETUP_LOG")" HYBRIDD_BASE
    writable_folder "$(dirname "$VENV")" HYBRIDD_VENV
    say "· set-up: the whole log is $SETUP_LOG"
    # Two scripts at once must not both install: the second waits here, then finds everything done.
    exec 9>>"$SETUP_LOG.lock"
    if command -v flock >/dev/null 2>&1; then flock 9; fi
    make_venv
    if ! grep -qxF "$stamp" "$STAMP" 2>/dev/null; then
        pip_install "installing hybridd${extras:+[$extras]} and what it needs" -e "$ROOT${extras:+[$extras]}" \
            || die "Installing failed: is the package index in reach? The whole log is $SETUP_LOG"
        # What was installed from other versions of these files is no longer known to be there.
        kept=$(grep -F "$sum [" "$STAMP" 2>/dev/null) || kept=
        printf '%s\n' "venv $VENV" "$kept" "$stamp" >"$STAMP"
    fi
    exec 9>&-
}

# The extra local: llama.cpp, and the Hub's client that finds models for it.
has_llama() {
    "$VENV/bin/python" -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("llama_cpp", "huggingface_hub"))))'
}

wants_llama() { [ "${HYBRIDD_LOCAL:-1}" != 0 ] && [ "${HYBRIDD_SETUP:-1}" != 0 ] && ! has_llama; }

has_any() {
    for program in "$@"; do
        if command -v "$program" >/dev/null 2>&1; then return 0; fi
    done
    return 1
}

# llama-cpp-python has no prebuilt wheel on the package index: it compiles once per machine, then the package client's
# own wheel cache answers.
install_llama() {
    if [ -n "${HYBRIDD_LLAMA_WHEEL:-}" ]; then
        pip_install "installing llama-cpp-python from $HYBRIDD_LLAMA_WHEEL" "$HYBRIDD_LLAMA_WHEEL" -e "$ROOT[local]"
        return
    fi
    if ! has_any "${CC:-cc}" gcc clang || ! has_any "${CXX:-c++}" g++ clang++; then
        say "  local GGUF models need a C and a C++ compiler. On Debian: apt install build-essential (HYBRIDD_LOCAL=0 does without)"
        return 1
    fi
    CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
    export CMAKE_BUILD_PARALLEL_LEVEL
    pip_install "installing llama-cpp-python; the first time on a machine it compiles for 3 to 10 minutes" \
        -v -e "$ROOT[local]"
}
