#!/bin/bash
# Purpose: configure JupyterLab as a systemd unit of the ordinary user jupyter, start it, and see that our own server
#   answers over TLS with the instance's own certificate.
# Constraints: after install-anaconda and configure-tls. Restarts the server only when something changed: a restart
#   ends the kernels. The password of a run that comes late, a second time, is not put in place of one set since.
NAME=configure-notebook
DEFAULT_CODE=notebook_start_failed
source "$NOD_WORK/scripts/common.sh"
FILES=$NOD_WORK/files
WAIT_SECONDS=300
# Which password was put in place here last, by the SHA-256 of its hash.
CONFIGURED=/etc/nod/password_configured

parameter PasswordHash \
    '^argon2:[$]argon2id[$]v=19[$]m=[1-9][0-9]{3,5},t=[1-9][0-9]?,p=[1-8][$][A-Za-z0-9+/]{22,87}[$][A-Za-z0-9+/]{22,87}$' \
    "an argon2id hash as jupyter_server.auth.passwd makes it"
affordable_hash
parameter NotebookName '^([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)?$' "the notebook's name"
one_at_a_time 300 password

[ -e /opt/anaconda3/.nod-installed ] || fail notebook_start_failed "There is no /opt/anaconda3: run install-anaconda first."
[ -e /opt/nod/safe_mode.py ] || fail notebook_start_failed "There is no /opt/nod/safe_mode.py: run prepare-instance first."
[ -e /etc/nod/tls/notebook.pem ] || fail notebook_start_failed "There is no certificate: run configure-tls first."

tenths() { echo $((${EPOCHREALTIME/[.,]/} / 100000)); }
started=$(tenths)
for file in notebook.py nod_identity.py nod_activity.py nod_server.py serving.py visits.py saves.py open_sockets.py login_limit.py detached.py full_disk.py; do
    put "$FILES/$file" "/opt/nod/notebook/$file" 0644
done
put "$FILES/login.html" /opt/nod/notebook/templates/login.html 0644
printf '%s\n' "$NotebookName" >"$NOD_WORK/notebook_name"
put "$NOD_WORK/notebook_name" /etc/nod/notebook_name 0644
put "$FILES/jupyter.service" /etc/systemd/system/jupyter.service 0644
printf '%s\n' "$PasswordHash" >"$NOD_WORK/password_hash"
password_id "$NOD_WORK/password_hash" >"$NOD_WORK/password_configured"
if ! cmp -s "$NOD_WORK/password_configured" "$CONFIGURED" || [ ! -e /etc/nod/password_hash ]; then
    put_whole "$NOD_WORK/password_hash" /etc/nod/password_hash 0640 root:jupyter
    # Before the first change, so that a change on a full disk finds a file to replace.
    printf '0\n' >"$NOD_WORK/password_number"
    [ -e /etc/nod/password_number ] || put_whole "$NOD_WORK/password_number" /etc/nod/password_number 0600 root:root
    # Last: of a run that was cut off before, the next one puts the password in place.
    install -m 0600 "$NOD_WORK/password_configured" "$CONFIGURED"
fi

run systemctl daemon-reload
run systemctl enable --quiet nod-runtime.service nod-jobs.service
run systemctl start nod-runtime.service nod-jobs.service ||
    fail notebook_start_failed "The server has no place under /run: $(journal nod-runtime.service)"
start_service jupyter.service

# Safe mode comes after two starts that failed, each of which may take as long as one may.
failures() { python3 -I -c 'import json; print(json.load(open("/run/nod-server/state.json"))["failures"])' 2>/dev/null || echo 0; }
give_up() { # what is wrong
    local why code
    why=$(python3 -I /opt/nod/safe_mode.py why 2>/dev/null || echo "ended The server did not come up.")
    code=${why%% *}
    log "the journal's end: $(journal jupyter.service)"
    [ "$code" != disk_full ] || fail disk_full "${why#* }"
    fail "$1" "${why#* } ($2; code $code)"
}
deadline=$((SECONDS + WAIT_SECONDS))
until answer=$(python3 -I /opt/nod/check_notebook.py); do
    if [ "$(systemctl is-active jupyter.service)" = failed ] || [ "$(failures)" -ge 5 ]; then
        give_up notebook_start_failed "$answer"
    fi
    if [ "$SECONDS" -ge "$deadline" ]; then
        give_up notebook_not_answering "$answer"
    fi
    run sleep 0.2
done
took=$(($(tenths) - started))
succeed certificate_sha256="$answer" seconds:="$((took / 10)).$((took % 10))"
