#!/bin/bash
# Purpose: give what the notebook's server writes under /run file systems of their own, so that nobody but root can fill
#   /run, which systemd, the documents and the monitor need. Run by nod-runtime.service, and before each start of the
#   server.
# Constraints: root, after prepare-instance made the user jupyter. Safe to run twice: what is mounted stays.
#
# What the monitor and a change of the password need is a file of its own in a file system of its own, in which the
# server can make no other. Whatever else the notebook's user does, the server empties its file before it writes.
set -euo pipefail
umask 022

own() { # folder, options: a tmpfs of its own
    if mountpoint --quiet "$1"; then return 0; fi
    install -d -m 0755 "$1"
    mount -t tmpfs -o "nosuid,nodev,noexec,$2" nod "$1"
}

single() { # folder, file: a file system for one file that the server may write
    own "$1" mode=0755,size=256k,nr_inodes=8
    if [ -L "$1/$2" ] || [ ! -f "$1/$2" ]; then rm -rf "${1:?}/$2" && : >"$1/$2"; fi
    chown jupyter:jupyter "$1/$2"
    chmod 0600 "$1/$2"
}

# What else everybody may write to on /run's own file system, such as screen's folder. One with something in it is in use.
find /run -xdev -mindepth 1 -type d -user root -perm -0002 -empty | while IFS= read -r folder; do
    own "$folder" "mode=$(stat -c %a "$folder"),gid=$(stat -c %g "$folder"),size=4m,nr_inodes=1k"
done

# Who does what, and when the server wrote that.
single /run/nod-activity activity.json
# Which password counts.
single /run/nod-password counts
# That it serves.
single /run/nod-ready ready.json
# Connection files of kernels, and what else Jupyter keeps while it runs: some KiB for each.
own /run/nod-jupyter "mode=0700,size=32m,nr_inodes=4k,uid=$(id -u jupyter),gid=$(id -g jupyter)"
# Its owner may have changed that. Root touches nothing in it by name: it may be a link to a file of root's.
chown jupyter:jupyter /run/nod-jupyter
chmod 0700 /run/nod-jupyter
# Before each start of the server: what its user filled up would keep it from starting. Nothing in it is worth more.
for kind in pcent ipcent; do
    used=$(df --output="$kind" /run/nod-jupyter | tail -n 1 | tr -dc 0-9)
    if [ "${used:-0}" -ge 50 ]; then find /run/nod-jupyter -xdev -mindepth 1 -delete || :; fi
done
