#!/bin/bash
# Purpose: give what the notebook's server writes under /run file systems of their own, so that nobody but root can fill
#   /run, which systemd, the documents and the monitor need. Run by nod-runtime.service before the server.
# Constraints: root, after prepare-instance made the user jupyter. Safe to run twice: what is mounted stays.
#
# What the monitor and a change of the password need is a file of its own in a file system of its own, in which the
# server can make no other. Whatever else the notebook's user does, the server empties its file before it writes.
set -euo pipefail
umask 022

own() { # folder, options: a tmpfs of its own
    install -d -m 0755 "$1"
    mountpoint --quiet "$1" || mount -t tmpfs -o "nosuid,nodev,noexec,$2" nod "$1"
}

single() { # folder, file: a file system for one file that the server may write
    own "$1" mode=0755,size=256k,nr_inodes=8
    if [ -L "$1/$2" ] || [ ! -f "$1/$2" ]; then rm -rf "${1:?}/$2" && : >"$1/$2"; fi
    chown jupyter:jupyter "$1/$2"
    chmod 0600 "$1/$2"
}

# What else everybody may write to on /run's own file system, such as screen's folder. One with something in it is in use.
find /run -xdev -mindepth 1 -type d -perm -0002 -empty | while IFS= read -r folder; do
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
install -d -o jupyter -g jupyter -m 0700 /run/nod-jupyter/runtime
