#!/bin/bash
# Purpose: make a fresh instance ready: wait for cloud-init, check the system, make the user jupyter, close the
#   metadata service (IMDS) to everyone but root.
# Constraints: runs first and alone. Ubuntu 24.04, or a Debian that has the commands required below. A machine without
#   cloud-init is taken as ready.
NAME=prepare-instance
DEFAULT_CODE=prepare_failed
source "$NOD_WORK/scripts/common.sh"
FILES=$NOD_WORK/files

# First of all, since snapd begins when the machine does: longer than a whole launch may take.
hold_agent 2h
one_at_a_time 800

[ -d /run/systemd/system ] || fail unsupported_system "The instance does not run systemd: use Ubuntu 24.04."
[ "$(id -u)" = 0 ] || fail unsupported_system "The document must run as root."
require openssl curl nft flock ps useradd usermod runuser tar gzip base64 sha256sum systemctl journalctl cmp
python3 -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail unsupported_system "The image's python3 is older than 3.10: use Ubuntu 24.04."

if command -v cloud-init >/dev/null; then
    status=0
    run timeout 600 cloud-init status --wait || status=$?
    case $status in
        0) ;;
        # 2: it is done, with something to complain about that it recovered from.
        2) log "cloud-init is done, with warnings: $(cloud-init status --long 2>&1 | tail -n 20)" ;;
        124) fail cloud_init_failed "cloud-init was not done after 600 seconds: look into /var/log/cloud-init-output.log." ;;
        *) fail cloud_init_failed "cloud-init failed: $(cloud-init status --long 2>&1 | tail -n 8)" ;;
    esac
fi

if ! id jupyter >/dev/null 2>&1; then
    useradd --create-home --home-dir /home/jupyter --shell /bin/bash --user-group --comment "Notebook" jupyter
fi
[ "$(id -u jupyter)" != 0 ] || fail unsupported_system "The image has a user jupyter with uid 0: use another image."
# An image may bring the user along, in groups that lead to root (sudo, docker, lxd).
usermod --groups "" --lock jupyter
# Made here where a machine that was cut off has the user and no home yet.
install -d -m 0750 -o jupyter -g jupyter /home/jupyter
if command -v sudo >/dev/null && runuser -u jupyter -- sudo -n -l >/dev/null 2>&1; then
    fail unsupported_system "The image lets the user jupyter use sudo: remove that rule from /etc/sudoers.d."
fi

# What the system does by itself and would end people's work with (docs/machine.md).
put "$FILES/needrestart.conf" /etc/needrestart/conf.d/nod.conf 0644
put "$FILES/unattended-upgrades.conf" /etc/apt/apt.conf.d/99nod 0644
if ! cmp -s "$FILES/journald.conf" /etc/systemd/journald.conf.d/60-nod.conf; then
    put "$FILES/journald.conf" /etc/systemd/journald.conf.d/60-nod.conf 0644
    run systemctl restart systemd-journald.service || log "systemd-journald did not start again"
fi
run bash "$FILES/reserve_space.sh" / || log "no part of the disk is kept for root"

# For the notebook's server, which configure-notebook starts; a document has room for only so much.
put "$FILES/runtime.sh" /opt/nod/runtime.sh 0755
put "$FILES/nod-runtime.service" /etc/systemd/system/nod-runtime.service 0644
put "$FILES/leftovers.py" /opt/nod/leftovers.py 0755
put "$FILES/nod-jobs.service" /etc/systemd/system/nod-jobs.service 0644
put "$FILES/nftables.conf" /etc/systemd/system/nftables.service.d/nod.conf 0644
# For the monitor, whose own document has no room for it.
put "$FILES/due_jobs.py" /opt/nod/due_jobs.py 0755
# What later documents and units run: how the server starts, and whether it is ours that answers.
for file in safe_mode.py server_causes.py notebook_probe.py check_notebook.py; do
    put "$FILES/$file" "/opt/nod/$file" 0644
done
# Parts of the monitor and of the notebook's server, whose own documents have no room for them (64 KB each).
for file in waiting.py notebook_probe.py; do
    put "$FILES/$file" "/opt/nod/nod_monitor/$file" 0644
done
for file in rhythm.py cells.py server_causes.py; do
    put "$FILES/$file" "/opt/nod/notebook/$file" 0644
done
put "$FILES/imds.nft" /opt/nod/imds.nft 0644
put "$FILES/nod-imds.service" /etc/systemd/system/nod-imds.service 0644
run systemctl daemon-reload
run systemctl enable --quiet nod-imds.service
# Not restart: that would take jupyter.service, which requires this unit, with it.
run systemctl reload-or-restart nod-imds.service ||
    fail prepare_failed "The metadata service could not be closed with nftables: $(journal nod-imds.service)"
# Seen, not believed: the credentials behind it are worth more than anything else on the machine.
if run runuser -u jupyter -- python3 -I -c 'import socket; socket.create_connection(("169.254.169.254", 80), 3)' 2>/dev/null; then
    fail prepare_failed "The user jupyter still reaches the metadata service in spite of the nftables rule."
fi

# What runs with an older version of these files is started anew by the document that starts it. At the end: a file that is
# put later would be found changed by the next run, which would then restart a notebook that is up to date.
if [ -e "$PENDING" ]; then
    touch /run/nod/start-monitor.changed /run/nod/configure-notebook.changed
    rm -f "$PENDING"
fi

succeed free_mib:="$(free_mib /)"
