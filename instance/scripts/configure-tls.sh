#!/bin/bash
# Purpose: make the notebook's self-signed certificate now, at each boot and every hour, when it is missing, near its
#   end or no longer names the instance.
# Constraints: after prepare-instance (the group jupyter reads the key). The server reads the file again for each new
#   connection, so a new certificate needs no restart and stops no kernel.
NAME=configure-tls
DEFAULT_CODE=certificate_failed
source "$NOD_WORK/scripts/common.sh"
FILES=$NOD_WORK/files

one_at_a_time 240
getent group jupyter >/dev/null || fail certificate_failed "There is no group jupyter: run prepare-instance first."

put "$FILES/replace_file.py" /opt/nod/replace_file.py 0755
put "$FILES/certificate.py" /opt/nod/certificate.py 0755
put "$FILES/nod-certificate.service" /etc/systemd/system/nod-certificate.service 0644
put "$FILES/nod-certificate.timer" /etc/systemd/system/nod-certificate.timer 0644
install -d -m 0755 /etc/nod
install -d -m 0750 -g jupyter /etc/nod/tls
install -d -m 0700 /etc/nod/spare
run systemctl daemon-reload
run systemctl enable --quiet nod-certificate.service
run systemctl start nod-certificate.service ||
    fail certificate_failed "The certificate could not be made: $(journal nod-certificate.service)"
run systemctl enable --quiet --now nod-certificate.timer

shown=$(python3 -I /opt/nod/certificate.py --show)
succeed certificate_sha256="${shown%% *}" names:="${shown#* }"
