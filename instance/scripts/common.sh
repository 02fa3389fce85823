# Purpose: what the documents' scripts share: one JSON line on stdout, everything else in a log, one at a time, one
#   way to fail. Sourced by them after they set NAME (the document) and DEFAULT_CODE (for what nobody foresaw).
# Constraints: bash 5, root, systemd. NOD_WORK is the folder the document was unpacked to; it goes at the end.
#
# The agent reads stdout to its end, so nothing that outlives the script may hold it: it is kept as descriptor 3 and
# `run` closes that for its command.

set -Eeuo pipefail
umask 077
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TZ=UTC
# Not for this script (see the document), nor for anything it starts.
unset SSM_TaskToken

exec 3>&1
LOG=/var/log/nod/$NAME.log
open_log() {
    install -d -m 0700 /var/log/nod || return 1
    if [ "$(stat -c %s "$LOG" 2>/dev/null || echo 0)" -gt 4194304 ]; then mv -f "$LOG" "$LOG.1"; fi
    touch "$LOG" && chmod 0600 "$LOG"
} 2>/dev/null
LOG_FROM=1
if open_log; then LOG_FROM=$(($(stat -c %s "$LOG") + 1)); fi
if [ -w "$LOG" ]; then exec >>"$LOG" 2>&1; else exec >/dev/null 2>&1; fi

log() { printf '%(%Y-%m-%dT%H:%M:%SZ)T %s\n' -1 "$*" || true; }

# emit KEY=TEXT KEY:=JSON …: the one line. Text that is not UTF-8 is made so: a command's output may be anything.
emit() {
    python3 -I -c '
import json, sys
line = {}
for argument in sys.argv[1:]:
    key, _, value = argument.partition("=")
    value = value.encode(errors="surrogateescape").decode(errors="replace")
    if key.endswith(":"):
        line[key[:-1]] = json.loads(value)
    else:
        line[key] = "".join(c for c in value if c.isprintable() or c == "\n").strip()[:2000]
print(json.dumps(line))' "$@" >&3
}

descendants() {
    local child
    for child in $(ps -o pid= --ppid "$1" || true); do
        echo "$child"
        descendants "$child"
    done
}

stop_children() {
    local pids try
    pids=$(descendants $$)
    # shellcheck disable=SC2086
    kill -TERM $pids 2>/dev/null || return 0
    for try in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 $pids 2>/dev/null || return 0
        sleep 0.2
    done
    kill -KILL $pids 2>/dev/null || true
}

finish() { # exit status
    trap '' TERM INT HUP
    trap - ERR EXIT
    case ${NOD_WORK:-} in /run/nod-work.*) rm -rf "$NOD_WORK" ;; esac
    exit "$1"
}

succeed() { # more of the line
    log "done: $*"
    emit ok:=true "$@"
    finish 0
}

fail() { # code, message
    trap '' TERM INT HUP
    trap - ERR EXIT
    set +e
    log "failed: $1: $2"
    stop_children
    emit ok:=false "code=$1" "message=$2"
    finish 1
}

free_mib() { df --output=avail -B 1M "$1" | tail -n 1 | tr -d ' '; }

last_lines() { tail -c "+$LOG_FROM" "$LOG" 2>/dev/null | tail -n "${1:-8}" | cut -c 1-300 || true; }

unexpected() { # line, status
    local status=$2
    # A subshell only ends; its parent sees that and prints the one line.
    [ "$BASH_SUBSHELL" = 0 ] || exit "$status"
    if [ "$(free_mib /)" -lt 16 ]; then
        fail disk_full "The disk is full ($(free_mib /) MiB free): use a larger volume_gib."
    fi
    fail "$DEFAULT_CODE" "$NAME ended at line $1 with status $status; $LOG on the instance has more. Its end: $(last_lines)"
}

trap 'unexpected "$LINENO" "$?"' ERR
trap 'status=$?; [ "$status" = 0 ] && status=1; unexpected "$LINENO" "$status"' EXIT
trap 'fail "$DEFAULT_CODE" "$NAME was stopped from outside (SIGTERM, SIGINT or SIGHUP) before it was done; run it again."' TERM INT HUP

# Bash runs a trap only after its foreground command: what takes long goes through this, so that SIGTERM counts at once.
run() {
    "$@" 3>&- &
    wait $!
}

# parameter NAME PATTERN MEANING: the value of a document's parameter, into the shell variable NAME.
# Looked at again here, because whoever may send commands may also send another document's parameters.
parameter() {
    local variable=SSM_$1
    if [ -z "${!variable+set}" ]; then
        fail unsupported_system "The SSM agent did not set $variable: it must be 3.3.2746.0 or later. Use a newer image."
    fi
    if ! [[ ${!variable} =~ $2 ]]; then
        fail invalid_parameter "Parameter $1 must be $3."
    fi
    printf -v "$1" '%s' "${!variable}"
    unset "$variable"
}

# affordable_hash: refuses a PasswordHash that is weaker than OWASP asks, or that costs the machine too much at a login.
# As chalicelib/passwords.py; KiB of memory by passes, the last for 5 and more.
affordable_hash() {
    local least_memory=(0 47104 19456 12288 9216 8192) memory passes
    [[ $PasswordHash =~ m=([0-9]+),t=([0-9]+), ]]
    memory=${BASH_REMATCH[1]} passes=${BASH_REMATCH[2]}
    if ((memory < least_memory[passes < 5 ? passes : 5] || memory > 262144 || passes > 16)); then
        fail invalid_parameter "Parameter PasswordHash has m=$memory,t=$passes: take m=19456,t=2 or more, at most m=262144,t=16."
    fi
}

# one_at_a_time SECONDS [WHAT]: waits for another run of the same document, which SSM may deliver twice, or of any
# document that works on WHAT.
one_at_a_time() {
    exec 9>"/run/nod/${2:-$NAME}.lock"
    if ! run flock -w "$1" 9; then
        fail "$DEFAULT_CODE" "Another run of $NAME was still at work after $1 seconds; look into $LOG on the instance."
    fi
}

# put SOURCE DESTINATION MODE [OWNER]: installs a file in one step. When its content was another, the file that PENDING
# names is made first: it says, also to the next run if this one is cut off, that the service must start again.
PENDING=/run/nod/$NAME.changed
put() {
    local owner=${4:-root:root} new=$2.nod-$NAME
    install -d -m 0755 "$(dirname "$2")"
    if ! cmp -s "$1" "$2"; then
        install -m 0600 "$1" "$new"
        chown "$owner" "$new"
        chmod "$3" "$new"
        touch "$PENDING"
        mv -fT "$new" "$2"
    else
        chown "$owner" "$2"
        chmod "$3" "$2"
    fi
}

# put_whole SOURCE DESTINATION MODE GROUP: as put, for a small file of root's that must get in place on a full disk too.
put_whole() {
    if cmp -s "$1" "$2"; then return 0; fi
    touch "$PENDING"
    install -d -m 0700 /etc/nod/spare
    python3 -I "$NOD_WORK/files/replace_file.py" "$1" "$2" "$3" "$4"
}

# hold_agent DURATION: on Ubuntu the SSM agent is a snap, which snapd refreshes by itself, also while this command runs as
# the agent's child. For so long it does not. The hold ends by itself, so that the agent is kept up to date.
hold_agent() {
    command -v snap >/dev/null || return 0
    run timeout 10 snap refresh --hold="$1" amazon-ssm-agent || log "snapd does not hold amazon-ssm-agent: is it a snap here?"
}

# start_service UNIT: starts it, or restarts it when what it runs on has changed.
start_service() {
    local verb=start
    if [ -e "$PENDING" ]; then verb=restart; fi
    run systemctl daemon-reload
    run systemctl enable --quiet "$1"
    run systemctl "$verb" "$1" || fail "$DEFAULT_CODE" "$1 does not start: $(journal "$1")"
    rm -f "$PENDING"
}

password_id() { tr -d '\n' <"$1" | sha256sum | cut -d ' ' -f 1; }

uptime() { cut -d . -f 1 /proc/uptime; }

# When DynamoDB accepted a heartbeat last, as the monitor wrote it: seconds since boot, 0: never.
ACCEPTED=/run/nod-monitor/accepted
accepted() {
    local at
    at=$(head -c 20 "$ACCEPTED" 2>/dev/null || true)
    if [[ $at =~ ^[0-9]{1,15}$ ]]; then echo "$at"; else echo 0; fi
}
# The slowest rhythm of heartbeats is 240 seconds.
LATE_SECONDS=300

require() { # command…
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || fail unsupported_system "The image has no $command: use Ubuntu 24.04, or add it."
    done
}

journal() { # unit
    journalctl --unit "$1" --boot --no-pager --output cat --lines 15 2>/dev/null | cut -c 1-200 | tail -c 1200 || true
}

if ! command -v python3 >/dev/null; then
    trap - EXIT
    echo '{"ok": false, "code": "unsupported_system", "message": "The image has no python3: use Ubuntu 24.04."}' >&3
    finish 1
fi
install -d -m 0755 /run/nod
log "start"
