#!/bin/bash
# Purpose: say whether the activity monitor beats, and restart it when it does not.
# Constraints: after start-monitor.
NAME=probe-monitor
DEFAULT_CODE=monitor_failed
source "$NOD_WORK/scripts/common.sh"
WAIT_SECONDS=60

hold_agent 10m
one_at_a_time 120

[ -e /etc/systemd/system/nod-monitor.service ] || fail monitor_failed "There is no monitor: run start-monitor first."
boot_id=$(tr -d - </proc/sys/kernel/random/boot_id)

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
