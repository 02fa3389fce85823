#!/bin/bash
# Purpose: give the notebook another password while it runs: logins by the old one end, kernels live on. When the server
#   does not take it, the old password stays.
# Constraints: after configure-notebook. A server that is not running reads the password when it starts. Changes may come
#   in any order and more than once: one that is older than the password in force changes nothing, and says so.
NAME=set-password
DEFAULT_CODE=password_failed
source "$NOD_WORK/scripts/common.sh"
FILE=/etc/nod/password_hash
# The number of the change that the file is of; there is none before the first.
NUMBERED=/etc/nod/password_number
# The server writes here which password counts for it, by the SHA-256 of the hash.
COUNTS=/run/nod-password/counts
# It looks twice a second.
WAIT_SECONDS=15

parameter PasswordHash \
    '^argon2:[$]argon2id[$]v=19[$]m=[1-9][0-9]{3,5},t=[1-9][0-9]?,p=[1-8][$][A-Za-z0-9+/]{22,87}[$][A-Za-z0-9+/]{22,87}$' \
    "an argon2id hash as jupyter_server.auth.passwd makes it"
parameter Number '^(0|[1-9][0-9]{0,8})$' "the number of this change, 0 to 999999999"
affordable_hash
hold_agent 10m
one_at_a_time 120 password

[ -e "$FILE" ] || fail password_failed "The notebook has no password yet: run configure-notebook first."

# The notebook's user owns that file: what it holds, and how long it takes to read, must hold up nothing.
counting() { timeout 2 dd if="$COUNTS" iflag=nonblock,nofollow bs=64 count=1 status=none 2>/dev/null || true; }
runs() { systemctl is-active --quiet jupyter.service; }

in_force=$(cat "$NUMBERED" 2>/dev/null || true)
[[ $in_force =~ ^(0|[1-9][0-9]{0,8})$ ]] || in_force=0
if [ "$Number" -lt "$in_force" ]; then succeed overtaken:=true; fi

install -m 0600 "$FILE" "$NOD_WORK/before"
printf '%s\n' "$in_force" >"$NOD_WORK/number_before"
printf '%s\n' "$PasswordHash" >"$NOD_WORK/password_hash"
printf '%s\n' "$Number" >"$NOD_WORK/number"

put_back() {
    put_whole "$NOD_WORK/before" "$FILE" 0640 jupyter
    put_whole "$NOD_WORK/number_before" "$NUMBERED" 0600 root
}
give_up() { # message
    put_back
    fail password_failed "$1 The old password stays."
}
# From here on every end but success has the old password again.
trap 'put_back; unexpected "$LINENO" "$?"' ERR
trap 'put_back; fail password_failed "$NAME was stopped from outside before the server took the password. The old one stays."' TERM INT HUP

# The number first: of a run that is cut off between the two, nothing older comes in place of what it was to set.
put_whole "$NOD_WORK/number" "$NUMBERED" 0600 root
put_whole "$NOD_WORK/password_hash" "$FILE" 0640 jupyter
# The server takes it as it runs: no start is due.
rm -f "$PENDING"
wanted=$(password_id "$FILE")
deadline=$((SECONDS + WAIT_SECONDS))
while runs && [ "$(counting)" != "$wanted" ]; do
    [ "$SECONDS" -lt "$deadline" ] ||
        give_up "The notebook's server runs but did not take the new password in $WAIT_SECONDS seconds; does it hang? Restart it (systemctl restart jupyter), or stop and start the notebook, and try again."
    run sleep 0.2
done
succeed
