#!/bin/bash
# Purpose: keep part of the disk for root, so that the notebook's user cannot take the last of it from the SSM agent, the
#   documents and systemd. Usage: reserve_space.sh FOLDER, of whose file system it is.
# Constraints: root. Only ext2 to ext4 know such a share, and only who sees the disk can set it: elsewhere it says so and
#   ends well. Ubuntu's cloud images are made without one (mkfs.ext4 -m 0). A larger one that is there stays.
set -euo pipefail
MIB=256
# Of a small disk less.
MOST_PERCENT=3

device=/dev/block/$(mountpoint --fs-devno "$1" 2>/dev/null || mountpoint --fs-devno "$(findmnt --noheadings --output TARGET --target "$1")")
[ -b "$device" ] || device=$(findmnt --noheadings --output SOURCE --target "$1")
kind=$(findmnt --noheadings --output FSTYPE --target "$1")
case $kind in
    ext[234]) ;;
    *) echo "no part of the disk can be kept for root: its file system is $kind" && exit 0 ;;
esac
[ -b "$device" ] && command -v tune2fs dumpe2fs >/dev/null ||
    { echo "no part of the disk can be kept for root: its device or tune2fs is not there" && exit 0; }

field() { sed -n "s/^$1: *//p" <<<"$about"; }
about=$(dumpe2fs -h "$device" 2>/dev/null)
size=$(field 'Block size') all=$(field 'Block count') kept=$(field 'Reserved block count')
wanted=$((MIB * 1024 * 1024 / size))
if ((wanted > all * MOST_PERCENT / 100)); then wanted=$((all * MOST_PERCENT / 100)); fi
if ((kept < wanted)); then tune2fs -r "$wanted" "$device" >/dev/null; fi
echo "kept for root: $((wanted > kept ? wanted : kept)) blocks of $size bytes"
