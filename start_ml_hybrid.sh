#!/bin/sh
# From a fresh checkout to a running daemon:  ./start_ml_hybrid.sh [start|stop|restart|status|logs]
# Needs Python 3.11 or newer and, for local GGUF models, a C++ compiler. Safe to run again; works from any directory.
set -eu
# A link to the script may stand elsewhere: follow it to the checkout.
SELF=$(readlink -f -- "$0")
ROOT=$(dirname -- "$SELF")
VENV=${HYBRIDD_VENV:-$ROOT/.venv}
HYBRIDD_BASE=${HYBRIDD_BASE:-$ROOT}
CONFIG=${HYBRIDD_CONFIG:-$ROOT/config/ml/hybrid_config.json}
LOGS=$HYBRIDD_BASE/logs
PID_FILE=$LOGS/hybridd.pid
DAEMON_LOG=$LOGS/hybridd.log
SETUP_LOG=$LOGS/setup.log
READY_SECONDS=30
export HYBRIDD_BASE
. "$ROOT/scripts/env.sh"

usage() {
    cat <<'TXT'
usage: start_ml_hybrid.sh [start|stop|restart|status|logs]
  start    set up what is missing, start the daemon in the background, make one routed call (the default)
  stop     end the daemon gracefully
  restart  stop, then start
  status   what is running
  logs     follow the daemon's log
environment: HYBRIDD_VENV, HYBRIDD_CONFIG, HYBRIDD_BASE, HYBRIDD_SOCKET, HYBRIDD_STATE_DIR,
  HYBRIDD_LOCAL=0 (leave llama.cpp out), HYBRIDD_LLAMA_WHEEL=FILE (install it from a wheel)
TXT
}

hybridd() { "$VENV/bin/python" -m hybridd.cli.main "$@"; }

# The pid of our daemon, or nothing. A recycled pid belongs to another program, so its command line is looked at.
running_pid() {
    [ -r "$PID_FILE" ] || return 1
    pid=$(cat "$PID_FILE")
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    kill -0 "$pid" 2>/dev/null || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'hybridd.* serve' || return 1
    printf '%s\n' "$pid"
}

default_config() {
    [ -e "$CONFIG" ] && return 0
    say "· writing the configuration $CONFIG"
    mkdir -p "$(dirname "$CONFIG")"
    "$VENV/bin/python" -c 'import shutil, sys; from hybridd import locations; shutil.copyfile(locations.default_config(), sys.argv[1])' "$CONFIG"
}

wait_until_ready() {
    waited=0
    while [ "$waited" -lt $((READY_SECONDS * 5)) ]; do
        if hybridd status --json >/dev/null 2>&1; then return 0; fi
        if ! kill -0 "$1" 2>/dev/null; then
            say "  the daemon ended at once; the last lines of $DAEMON_LOG:"
            tail -n 8 "$DAEMON_LOG" | sed 's/^/    /' >&2
            return 1
        fi
        sleep 0.2
        waited=$((waited + 1))
    done
    say "  the daemon was not ready within $READY_SECONDS s; see $DAEMON_LOG"
    return 1
}

start() {
    mkdir -p "$LOGS"
    if pid=$(running_pid); then
        say "hybridd is already running (pid $pid)."
        return 0
    fi
    find_python >/dev/null || die "hybridd needs Python 3.11 or newer. On Debian: apt install python3 python3-venv"
    command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 \
        || die "hybridd needs a C compiler for its set-up. On Debian: apt install build-essential"
    : >"$SETUP_LOG"
    install_project "${HYBRIDD_EXTRAS:-}"
    install_llama || say "  going on without local models (log: $SETUP_LOG)"
    default_config
    say "· starting the daemon"
    # setsid: the daemon must outlive this terminal; stdin closed, output in the log.
    setsid "$VENV/bin/python" -m hybridd.cli.main serve --config "$CONFIG" </dev/null >>"$DAEMON_LOG" 2>&1 &
    pid=$!
    printf '%s\n' "$pid" >"$PID_FILE"
    if ! wait_until_ready "$pid"; then
        rm -f "$PID_FILE"
        die "Starting failed (log: $DAEMON_LOG)"
    fi
    say "· running (pid $pid)"
    say ""
    hybridd limits
    say ""
    say "· one routed call, answered by the embedded default (no network, no keys, no GPU):"
    say "  \$ hybridd call --task sentiment_analysis --prompt \"Este produto é incrível!\""
    hybridd call --task sentiment_analysis --prompt "Este produto é incrível!" || die "The call failed (log: $DAEMON_LOG)"
    show_commands
}

show_commands() {
    cat <<TXT

hybridd is running. Worth knowing (put $VENV/bin on your PATH, or use the full name):
  hybridd limits                                       every limit: used, left, reset
  hybridd optimize --task code_generation              who would answer, and why
  hybridd call --task code_generation --prompt "…"     a routed call, streamed
  hybridd report --since 7d                            usage and cost
  hybridd doctor                                       what is missing
  curl --unix-socket "$("$VENV/bin/python" -c 'from hybridd import locations; print(locations.socket_path())')" http://localhost/v1/models
  ./start_ml_hybrid.sh stop | status | logs
Configuration: $CONFIG    Log: $DAEMON_LOG
TXT
}

stop() {
    if ! pid=$(running_pid); then
        say "hybridd is not running."
        rm -f "$PID_FILE"
        return 0
    fi
    kill -TERM "$pid"
    waited=0
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$waited" -ge 150 ]; then
            die "hybridd (pid $pid) has not ended after 30 s; see $DAEMON_LOG"
        fi
        sleep 0.2
        waited=$((waited + 1))
    done
    rm -f "$PID_FILE"
    say "hybridd has stopped."
}

status() {
    if pid=$(running_pid); then
        say "hybridd is running (pid $pid)."
        hybridd status
    else
        say "hybridd is not running. Start it with: $ROOT/start_ml_hybrid.sh"
        return 4
    fi
}

case ${1:-start} in
    start) start ;;
    stop) stop ;;
    restart) stop && start ;;
    status) status ;;
    logs) exec tail -n 50 -F "$DAEMON_LOG" ;;
    -h | --help | help) usage ;;
    *) usage >&2; exit 2 ;;
esac
