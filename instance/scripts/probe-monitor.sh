#!/bin/bash
# Purpose: say whether the activity monitor beats, and restart it when it does not.
# Constraints: after start-monitor.
NAME=probe-monitor
DEFAULT_CODE=monitor_failed
source "$NOD_WORK/scripts/common.sh"
# Seconds since boot of the last heartbeat that DynamoDB accepted, written by the monitor.
ACCEPTED=/run/nod-monitor/accepted
# The slowest rhythm is 240 seconds.
LATE_SECONDS=300
WAIT_SECONDS=60

one_at_a_time 120

[ -e /etc/systemd/system/nod-monitor.service ] || fail monitor_failed "There is no monitor: run start-monitor first."
boot_id=$(tr -d - </proc/sys/kernel/random/boot_id)
uptime() { cut -d . -f 1 /proc/uptime; }
accepted() { # seconds since boot, 0: never
    local at
    at=$(head -c 20 "$ACCEPTED" 2>/dev/null || true)
    if [[ $at =~ ^[0-9]{1,15}$ ]]; then echo "$at"; else echo 0; fi
}

if systemctl is-active --quiet nod-monitor.service && [ "$(accepted)" != 0 ] &&
    [ "$(($(uptime) - $(accepted)))" -le "$LATE_SECONDS" ]; then
    succeed monitor=beats boot_id="$boot_id"
fi

rm -f "$ACCEPTED"
run systemctl restart nod-monitor.service || fail monitor_failed "The monitor does not start: $(journal nod-monitor.service)"
deadline=$((SECONDS + WAIT_SECONDS))
until [ "$(accepted)" != 0 ]; do
    [ "$SECONDS" -lt "$deadline" ] ||
        fail monitor_failed "The monitor was restarted, but no heartbeat was accepted in $WAIT_SECONDS seconds: $(journal nod-monitor.service)"
    run sleep 0.2
done
succeed monitor=restarted boot_id="$boot_id"
