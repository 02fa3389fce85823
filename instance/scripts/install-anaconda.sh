#!/bin/bash
# Purpose: download an installer with the command line of Anaconda's (-b -p PREFIX), check its SHA-256, install it to
#   /opt/anaconda3 and see that Jupyter Server starts from there.
# Constraints: a conda prefix cannot be moved, so it is built in place: the file .nod-installed in it, written last,
#   says that it is whole. What has no such file is removed. The prefix belongs to root: users add to ~/.local or to
#   environments of their own. Takes minutes; the download resumes where it stopped, also in a later run.
NAME=install-anaconda
DEFAULT_CODE=installer_failed
source "$NOD_WORK/scripts/common.sh"

PREFIX=/opt/anaconda3
DONE=$PREFIX/.nod-installed
CACHE=/var/cache/nod
DOWNLOAD_ATTEMPTS=8
# Anaconda asks for 5 GB for an installer of about 1 GB; the rest is for what it unpacks on the way.
UNPACKED=8
SPARE_MIB=256
# Where the server tells no size: more than any installer of Anaconda so far, and it fits on the least disk.
ASSUMED_MIB=1200

parameter InstallerUrl '^(https://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|http://127[.]0[.]0[.]1(:[0-9]{1,5})?)/[A-Za-z0-9._~/+%@=\&?:,-]*$' \
    "an https address (or one of the machine itself) without spaces, quotes or other signs that a URL encodes"
parameter InstallerSha256 '^[0-9a-f]{64}$' "64 hexadecimal digits in lower case"

done_line() { # prints nothing unless this very installer is installed
    [ -x "$PREFIX/bin/jupyter" ] && [ "$(head -n 1 "$DONE" 2>/dev/null)" = "$InstallerSha256" ] && sed -n 2p "$DONE"
}

installer=$(done_line) && succeed prefix="$PREFIX" installer="$installer"
one_at_a_time 3300
installer=$(done_line) && succeed prefix="$PREFIX" installer="$installer"

if [ -e "$DONE" ] && systemctl is-active --quiet jupyter.service; then
    fail installer_failed "Another installer is in place and the notebook runs from it: stop jupyter.service first."
fi

part=$CACHE/$InstallerSha256.part
install -d -m 0700 "$CACHE"
find "$CACHE" -mindepth 1 -maxdepth 1 ! -path "$part" -exec rm -rf {} +
rm -rf "$PREFIX"

# The address goes by a file: one that carries a signature is no business of the process list.
address=$NOD_WORK/address
printf 'url = "%s"\n' "$InstallerUrl" >"$address"
fetch() { # more arguments of curl
    run curl --config "$address" --globoff --location --proto '=https,http' --proto-redir '=https,http' \
        --fail --silent --show-error --connect-timeout 20 --speed-limit 1024 --speed-time 60 "$@"
}
size() { stat -c %s "$part" 2>/dev/null || echo 0; }

least_free() { printf '%s\n' "$(free_mib "$CACHE")" "$(free_mib /opt)" | sort -n | head -n 1; }
need_disk() { # bytes of the installer, of which some are here already; a word on where that comes from
    local need=$((($1 * (1 + UNPACKED) - $(size)) / 1048576 + SPARE_MIB)) free
    free=$(least_free)
    [ "$free" -ge "$need" ] ||
        fail disk_full "The installation needs $need MiB free${2-} and the disk has $free: use a volume_gib that is larger by $(((need - free) / 1024 + 1))."
}
disk_ran_out() {
    [ "$(least_free)" -lt 32 ] || return 0
    rm -rf "$PREFIX" "$part"
    fail disk_full "The disk ran out of space during $1: use a larger volume_gib."
}

headers=$NOD_WORK/headers
whole_size() { # header in lower case, what stands before the size: bytes by the last answer, after redirects; 0: not said
    local line value=
    while IFS= read -r line; do
        case ${line,,} in
            http/*) value= ;;
            "$1":*) value=${line#*:} ;;
        esac
    done <"$headers"
    if [[ ${value//[[:space:]]/} =~ ^$2([0-9]{1,12})$ ]]; then echo "$((10#${BASH_REMATCH[1]}))"; else echo 0; fi
}

: >"$headers"
length=0
if fetch --head --output "$headers"; then length=$(whole_size content-length ''); fi
code=none
if [ "$length" = 0 ]; then
    # An address that is signed for GET refuses HEAD. Who knows no ranges would send all: only the headers are taken.
    fetch --range 0-0 --max-filesize 1024 --max-time 60 --dump-header "$headers" --output /dev/null \
        --write-out '%{http_code}' >"$NOD_WORK/code" || true
    code=$(cat "$NOD_WORK/code")
    case $code in
        200) length=$(whole_size content-length '') ;;
        206) length=$(whole_size content-range 'bytes0-0/') ;;
    esac
fi
case $length:$code in
    # The download says it better, if the server refuses that too.
    0:[!2]*) need_disk 0 ;;
    0:*) need_disk $((ASSUMED_MIB * 1048576)) " (the server does not tell the installer's size: $ASSUMED_MIB MiB assumed)" ;;
    *) need_disk "$length" ;;
esac

download() {
    local try status code
    for ((try = 1; try <= DOWNLOAD_ATTEMPTS; try++)); do
        if [ "$length" -gt 0 ] && [ "$(size)" = "$length" ]; then return 0; fi
        status=0
        fetch --continue-at - --output "$part" --write-out '%{http_code}' >"$NOD_WORK/code" || status=$?
        code=$(cat "$NOD_WORK/code")
        [ "$status" = 0 ] && return 0
        log "download: attempt $try: curl $status, HTTP $code, $(size) bytes here"
        disk_ran_out "the download"
        case $status in
            # The server cannot resume, or has less than is here: from the start.
            33) rm -f "$part" ;;
            22)
                case $code in
                    416) rm -f "$part" ;;
                    408 | 425 | 429 | 5??) ;;
                    *) fail installer_download "The server answered $code for the installer: check its address." ;;
                esac
                ;;
        esac
        run sleep "$((try < 5 ? 2 * try : 10))"
    done
    fail installer_download "The installer did not arrive in $DOWNLOAD_ATTEMPTS attempts (curl $status, $(size) of $length bytes): check the address and the way out of the subnet. $(last_lines 3)"
}

verified() {
    run sha256sum "$part" >"$NOD_WORK/sum"
    [ "$(cut -d ' ' -f 1 "$NOD_WORK/sum")" = "$InstallerSha256" ]
}

before=$(size)
download
if ! verified; then
    # What an earlier run left may be of another file at the same address.
    rm -f "$part"
    if [ "$before" -gt 0 ]; then
        download
        verified || rm -f "$part"
    fi
    [ -e "$part" ] || fail installer_checksum "The downloaded installer has SHA-256 $(cut -d ' ' -f 1 "$NOD_WORK/sum"), not $InstallerSha256: it was deleted. Check address and checksum."
fi

log "installing to $PREFIX"
install -d -m 0700 "$CACHE/tmp"
status=0
(
    # The notebook's user reads the prefix, and nothing of this command's environment is the installer's business.
    umask 022
    exec env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 TMPDIR="$CACHE/tmp" bash "$part" -b -p "$PREFIX" 3>&- 9>&-
) &
wait $! || status=$?
if [ "$status" != 0 ]; then
    disk_ran_out "the installation"
    if tail -n 50 "$LOG" | grep -q 'No space left on device'; then
        rm -rf "$PREFIX" "$part"
        fail disk_full "The disk ran out of space during the installation: use a larger volume_gib."
    fi
    rm -rf "$PREFIX"
    fail installer_failed "The installer ended with status $status: $(last_lines)"
fi

[ -x "$PREFIX/bin/jupyter" ] ||
    fail installer_failed "The installer brought no Jupyter: take Anaconda's, or one that holds jupyterlab."
# Isolated, as it is served: what lies in a home says nothing of the installation.
run runuser -u jupyter -- env -i HOME=/home/jupyter PATH="$PATH" "$PREFIX/bin/python" -I -m jupyter_server --version ||
    fail installer_failed "The installed Jupyter Server does not start: $(last_lines)"

# Without it a notebook is a notebook: the page says that it is missing.
has_server_proxy() { run "$PREFIX/bin/python" -I -c 'import jupyter_server_proxy'; }
bring_server_proxy() {
    local pip=("$PREFIX/bin/python" -I -m pip install --require-hashes --no-deps --only-binary :all: --no-input
        --disable-pip-version-check --root-user-action ignore --timeout 20 --retries 3)
    (umask 022 && exec timeout 300 env -i PATH="$PATH" HOME=/root LANG=C.UTF-8 TMPDIR="$CACHE/tmp" \
        "${pip[@]}" --requirement "$NOD_WORK/files/server-proxy.txt" 3>&- 9>&-) &
    wait $!
}
if ! has_server_proxy; then
    bring_server_proxy && has_server_proxy || log "jupyter-server-proxy could not be installed; the notebook goes without it"
fi

if compgen -G "$PREFIX/conda-meta/anaconda-[0-9]*.json" >/dev/null; then
    installer=anaconda
elif [ -d "$PREFIX/conda-meta" ]; then
    installer=conda
else
    installer=stand-in
fi
put "$NOD_WORK/files/anaconda.sh" /etc/profile.d/nod-anaconda.sh 0644
rm -rf "$part" "$CACHE/tmp"
printf '%s\n%s\n' "$InstallerSha256" "$installer" >"$NOD_WORK/done"
put "$NOD_WORK/done" "$DONE" 0644

succeed prefix="$PREFIX" installer="$installer"
