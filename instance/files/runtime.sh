#!/bin/bash
# Purpose: give what the notebook's server writes under /run file systems of their own, so that nobody but root can fill
#   /run, which systemd, the documents and the monitor need. Run by nod-runtime.service before the server.
# Constraints: root, after prepare-instance made the user jupyter. Safe to run twice: what is mounted stays.
#
# The server can write two files and make none beside them, so that each has its file system for itself: whatever else the
# notebook's user does, the server empties its file before it writes.
set -euo pipefail
umask 022

own() { # folder, options: a tmpfs of its own
    install -d -m 0755 "$1"
    mountpoint --quiet "$1" || mount -t tmpfs -o "nosuid,nodev,noexec,$2" nod "$1"
}

file() { # path: a regular file that the server may write
    if [ -L "$1" ] || [ ! -f "$1" ]; then rm -rf "$1" && : >"$1"; fi
    chown jupyter:jupyter "$1"
    chmod 0600 "$1"
}

# What else everybody may write to on /run's own file system, such as screen's folder. One with something in it is in use.
find /run -xdev -mindepth 1 -type d -perm -0002 -empty | while IFS= read -r folder; do
    own "$folder" "mode=$(stat -c %a "$folder"),gid=$(stat -c %g "$folder"),size=4m,nr_inodes=1k"
done

own /run/nod-jupyter mode=0755,size=256k,nr_inodes=32
file /run/nod-jupyter/activity.json
own /run/nod-password mode=0755,size=16k,nr_inodes=16
file /run/nod-password/counts
# Connection files of kernels, and what Jupyter keeps of running servers: some KiB for each.
own /run/nod-jupyter/runtime "mode=0700,size=32m,nr_inodes=16k,uid=$(id -u jupyter),gid=$(id -g jupyter)"
