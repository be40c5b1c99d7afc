#!/bin/sh
# From a fresh checkout to a running daemon:  ./start_ml_hybrid.sh [start|stop|restart|status|logs]
# Needs Python 3.11 or newer and, for local GGUF models, a C++ compiler. Safe to run again; works from any directory.
set -eu
# A link to the script may stand elsewhere: follow it to the checkout.
SELF=$(readlink -f -- "$0")
ROOT=$(dirname -- "$SELF")
HYBRIDD_BASE=${HYBRIDD_BASE:-$ROOT}
case $HYBRIDD_BASE in /*) ;; *) HYBRIDD_BASE=$PWD/$HYBRIDD_BASE ;; esac
export HYBRIDD_BASE
LOGS=$HYBRIDD_BASE/logs
PID_FILE=$LOGS/hybridd.pid
DAEMON_LOG=$LOGS/hybridd.log
SETUP_LOG=$LOGS/setup.log
READY_SECONDS=30
STOP_SECONDS=40
. "$ROOT/scripts/env.sh"
CONFIG=$(absolute "${HYBRIDD_CONFIG:-$ROOT/config/ml/hybrid_config.json}")

usage() {
    cat <<'TXT'
usage: start_ml_hybrid.sh [start|stop|restart|status|logs]
  start    set up what is missing, start the daemon in the background, make one routed call (the default)
  stop     end the daemon gracefully
  restart  stop, then start
  status   what is running
  logs     follow the daemon's log
environment: HYBRIDD_CONFIG, HYBRIDD_SOCKET, HYBRIDD_STATE_DIR, HYBRIDD_BASE (where logs/ and relative paths are),
  HYBRIDD_PYTHON, HYBRIDD_VENV, HYBRIDD_SETUP=0 (install nothing),
  HYBRIDD_LOCAL=0 (leave llama.cpp out), HYBRIDD_LLAMA_WHEEL=FILE (install it from a wheel)
TXT
}

# -P: the folder this is called from must not be searched for modules.
hybridd() { "$VENV/bin/python" -P -m hybridd.cli.main "$@"; }

# The pid of the daemon this script started, or nothing. A pid from an old file may belong to another program by now, or
# to the daemon of another checkout.
running_pid() {
    [ -r "$PID_FILE" ] || return 1
    read -r pid <"$PID_FILE" || return 1
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    kill -0 "$pid" 2>/dev/null || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q 'hybridd\.cli\.main serve' || return 1
    tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | grep -qxF "HYBRIDD_BASE=$HYBRIDD_BASE" || return 1
    printf '%s\n' "$pid"
}

# The pid of the daemon that answers on the socket, whoever started it.
answering_pid() {
    hybridd status --json 2>/dev/null \
        | "$VENV/bin/python" -I -c 'import json, sys; print(json.load(sys.stdin)["pid"])' 2>/dev/null
}

default_config() {
    [ -e "$CONFIG" ] && return 0
    say "· writing the configuration $CONFIG"
    writable_folder "$(dirname "$CONFIG")" HYBRIDD_CONFIG
    "$VENV/bin/python" -P -c 'import shutil, sys; from hybridd import locations; shutil.copyfile(locations.default_config(), sys.argv[1])' "$CONFIG"
}

# What the daemon has said since it was started: its log is appended to.
last_words() { tail -c "+$((log_begins + 1))" "$DAEMON_LOG" | tail -n 8 | sed 's/^/    /' >&2; }

wait_until_ready() {
    waited=0
    while [ "$waited" -lt $((READY_SECONDS * 5)) ]; do
        if [ "$(answering_pid)" = "$1" ]; then return 0; fi
        if ! kill -0 "$1" 2>/dev/null; then
            say "  the daemon ended at once; it said:"
            last_words
            return 1
        fi
        sleep 0.2
        waited=$((waited + 1))
    done
    say "  the daemon was not ready within $READY_SECONDS s; it is stopped again. It said:"
    last_words
    kill "$1" 2>/dev/null
    return 1
}

launch() {
    say "· starting the daemon"
    # Our own little rotation: this file holds what the daemon prints, a few lines for each start.
    if [ "$(wc -c 2>/dev/null <"$DAEMON_LOG" || echo 0)" -gt 10000000 ]; then mv -f "$DAEMON_LOG" "$DAEMON_LOG.1"; fi
    (umask 077 && : >>"$DAEMON_LOG") || die "hybridd cannot write $DAEMON_LOG"
    log_begins=$(wc -c <"$DAEMON_LOG")
    # setsid: the daemon must outlive this terminal. Not in the caller's directory, which may be unmounted one day.
    (cd "$HYBRIDD_BASE" && exec setsid "$VENV/bin/python" -P -m hybridd.cli.main serve --config "$CONFIG" \
        </dev/null >>"$DAEMON_LOG" 2>&1 8>&-) &
    pid=$!
    printf '%s\n' "$pid" >"$PID_FILE"
    if ! wait_until_ready "$pid"; then
        rm -f "$PID_FILE"
        die "Starting failed (log: $DAEMON_LOG)"
    fi
    say "· running (pid $pid)"
}

local_models() {
    wants_llama || return 0
    if install_llama; then
        hybridd reload >/dev/null || say "  the daemon could not reload: restart it to use local models"
    else
        say "  going on without local GGUF models; the next start tries again, HYBRIDD_LOCAL=0 does not (log: $SETUP_LOG)"
    fi
}

start() {
    writable_folder "$LOGS" HYBRIDD_BASE
    # Two starts at once: the second waits here and then finds the daemon running.
    exec 8>>"$LOGS/start.lock"
    if command -v flock >/dev/null 2>&1; then flock 8; fi
    if pid=$(running_pid); then
        say "hybridd is already running (pid $pid)."
        return 0
    fi
    install_project "${HYBRIDD_EXTRAS-tui}"
    if other=$(answering_pid) && [ -n "$other" ]; then
        say "hybridd is already running (pid $other), but this script did not start it: it stays as it is."
        return 0
    fi
    default_config
    launch
    exec 8>&-
    say ""
    hybridd limits
    say ""
    say "· one routed call, answered by the embedded default (no network, no keys, no GPU):"
    say "  \$ hybridd call --task sentiment_analysis --prompt \"Este produto é incrível!\""
    hybridd call --task sentiment_analysis --prompt "Este produto é incrível!" || die "The call failed (log: $DAEMON_LOG)"
    say ""
    # Last, because it may compile for minutes and everything else works without it.
    local_models
    show_commands
}

show_commands() {
    socket=$("$VENV/bin/python" -P -c 'from hybridd import locations; print(locations.socket_path())')
    cat <<TXT
hybridd is running. Worth knowing:
  export PATH="$VENV/bin:\$PATH"
  hybridd limits                                       every limit: used, left, reset
  hybridd optimize --task code_generation              who would answer, and why
  hybridd call --task code_generation --prompt "…"     a routed call, streamed
  hybridd report --since 7d                            usage and cost
  hybridd tui                                          all of it, live
  hybridd doctor                                       what is missing
  curl --unix-socket "$socket" http://localhost/v1/models
  "$SELF" stop | restart | status | logs
Configuration: $CONFIG    Log: $DAEMON_LOG
TXT
}

stop() {
    if ! pid=$(running_pid); then
        rm -f "$PID_FILE"
        if [ -x "$VENV/bin/python" ] && other=$(answering_pid) && [ -n "$other" ]; then
            say "The hybridd that is running (pid $other) was not started by this script: end it where it was started, or with: kill $other"
            return 1
        fi
        say "hybridd is not running."
        return 0
    fi
    kill -TERM "$pid"
    waited=0
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$waited" -ge $((STOP_SECONDS * 5)) ]; then
            die "hybridd (pid $pid) has not ended after $STOP_SECONDS s; see $DAEMON_LOG. The last resort, which loses nothing recorded: kill -9 $pid"
        fi
        sleep 0.2
        waited=$((waited + 1))
    done
    rm -f "$PID_FILE"
    say "hybridd has stopped."
}

# A broken configuration must not cost the daemon that is running.
restart() {
    if running_pid >/dev/null && [ -e "$CONFIG" ] && ! hybridd serve --check --config "$CONFIG" >/dev/null; then
        die "The configuration $CONFIG cannot be used: the daemon keeps running with the one it has."
    fi
    stop && start
}

status() {
    if pid=$(running_pid); then
        say "hybridd is running (pid $pid)."
    elif ! [ -x "$VENV/bin/python" ] || ! pid=$(answering_pid) || [ -z "$pid" ]; then
        say "hybridd is not running. Start it with: \"$SELF\""
        return 4
    fi
    hybridd status
}

logs() {
    [ -r "$DAEMON_LOG" ] || die "There is no log yet: $DAEMON_LOG is written by the first start."
    exec tail -n 50 -F "$DAEMON_LOG"
}

if [ $# -gt 1 ]; then
    usage >&2
    exit 2
fi
case ${1:-start} in
    start) start ;;
    stop) stop ;;
    restart) restart ;;
    status) status ;;
    logs) logs ;;
    -h | --help | help) usage ;;
    *) usage >&2; exit 2 ;;
esac
