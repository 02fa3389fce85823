#!/bin/bash
# Purpose: install and start the activity monitor, and see its first heartbeat accepted.
# Constraints: after prepare-instance. Needs the instance's role to allow UpdateItem on its own row.
NAME=start-monitor
DEFAULT_CODE=monitor_failed
source "$NOD_WORK/scripts/common.sh"
FILES=$NOD_WORK/files
WAIT_SECONDS=90

parameter HeartbeatsTable '^[A-Za-z0-9_.-]{3,255}$' "the name of a DynamoDB table"
parameter Region '^[a-z]{2}(-[a-z]{2,12}){1,3}-[0-9]{1,2}$' "the name of an AWS Region"
one_at_a_time 180

python3 -I -c 'import json, sys; print(json.dumps({"table": sys.argv[1], "region": sys.argv[2]}))' \
    "$HeartbeatsTable" "$Region" >"$NOD_WORK/monitor.json"
for file in monitor.py looks.py activity.py processes.py terminals.py server_status.py; do
    put "$FILES/$file" "/opt/nod/nod_monitor/$file" 0644
done
put "$FILES/nod-monitor.py" /opt/nod/nod-monitor.py 0755
put "$FILES/traffic.nft" /opt/nod/traffic.nft 0644
put "$FILES/nod-monitor.service" /etc/systemd/system/nod-monitor.service 0644
put "$NOD_WORK/monitor.json" /etc/nod/monitor.json 0644
# A heartbeat by the settings of before says nothing about these, nor does an old one about a monitor that ends again and
# again.
since=$((-LATE_SECONDS))
if [ -e "$PENDING" ]; then since=0; fi
start_service nod-monitor.service
since=$((since + $(uptime)))

deadline=$((SECONDS + WAIT_SECONDS))
until [ "$(accepted)" != 0 ] && [ "$(accepted)" -ge "$since" ]; do
    [ "$SECONDS" -lt "$deadline" ] ||
        fail monitor_failed "No heartbeat was accepted in $WAIT_SECONDS seconds; does the instance's role allow UpdateItem on $HeartbeatsTable? $(journal nod-monitor.service)"
    run sleep 0.2
done
succeed
