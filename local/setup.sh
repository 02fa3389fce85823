#!/bin/bash
# Everything `make` needs beyond git, make and Python: Debian packages, then a virtual environment with the client `nod`.
# Constraints: Debian or Ubuntu; root or sudo only where a package is missing. Safe to run again and after an
# interruption: what is there is not installed anew.
set -euo pipefail

usage="usage: setup.sh demo|deploy|lint|test FOLDER, the folder of the virtual environment"
what=${1:?$usage}
venv=${2:?$usage}
python=${PYTHON:-python3}
# Lambda's, newest first (deploy/runtimes.py): the functions run on the Python that packages them.
of_lambda="python3.14 python3.13 python3.12 python3.11"

# Debian's PATH of an ordinary user leaves out where debootstrap is.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 2; }

# Words and not arrays, a case and not a table: bash 3.2, as macOS has it, knows no table and takes an empty array for unset.
programs="systemd-nspawn debootstrap nsenter setpriv mkfs.ext4"
case $what in
    demo) requirements=requirements-local.txt ;;
    deploy) requirements=requirements-local.txt programs="" ;;
    lint) requirements=requirements-dev.txt programs="" ;;
    test) requirements=requirements-dev.txt programs="$programs chromium node npm" ;;
    *) die "$usage" ;;
esac
package_of() {
    case $1 in
        systemd-nspawn) echo systemd-container ;;
        nsenter | setpriv) echo util-linux ;;
        mkfs.ext4) echo e2fsprogs ;;
        node) echo nodejs ;;
        *) echo "$1" ;;
    esac
}

if [ -z "${PYTHON:-}" ] && [ "$what" = deploy ] && [ ! -e "$venv/bin/python" ]; then
    for one in $of_lambda; do
        if command -v "$one" >/dev/null && "$one" -c 'import ensurepip, venv' 2>/dev/null; then
            python=$one
            break
        fi
    done
fi

command -v "$python" >/dev/null ||
    die "$python is missing: install Python 3.11 or later and run make again, or name one with 'make $what PYTHON=…'."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or later is needed, $python is $("$python" --version): name another with 'make $what PYTHON=…'."

sudo=""
if [ "$(id -u)" != 0 ] && command -v sudo >/dev/null; then sudo=sudo; fi
[ "$(id -u)" = 0 ] || [ -n "$sudo" ] || [ "$what" = lint ] || [ "$what" = deploy ] ||
    die "Root is needed to boot machines: run make as root, or install sudo."

# Made by root later on, it would keep out whoever types `sudo`.
mkdir -p "${XDG_CACHE_HOME:-$HOME/.cache}"

missing=""
for program in $programs; do
    command -v "$program" >/dev/null || missing="$missing $(package_of "$program")"
done
# `import venv` works on Debian without the package; what it lacks is pip.
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    missing="$missing python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
if [ -n "$missing" ]; then
    command -v apt-get >/dev/null ||
        die "These packages are missing and there is no apt-get to install them:$missing."
    [ "$(id -u)" = 0 ] || [ -n "$sudo" ] ||
        die "Root is needed to install$missing: run make as root, or install sudo."
    say "Installing Debian packages:$missing"
    # shellcheck disable=SC2086 # words, each a package
    { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $missing >/dev/null; } ||
        die "apt-get could not install$missing, for the reason above: put it right and run make again."
    say "Debian packages: $SECONDS s"
fi

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
# A run that was killed while it made the environment left one without pip. One of another Python than was asked for by
# name is made anew: the functions' runtime would be that of the old one.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    { [ -n "${PYTHON:-}" ] && [ "$(version_of "$venv/bin/python")" != "$(version_of "$python")" ]; }; then
    "$python" -m venv --clear "$venv" || die "Cannot make a virtual environment in $venv, for the reason above."
fi
began=$SECONDS
say "Installing Python packages into $venv, about half a minute"
pip() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2> >(grep -v '^WARNING: Location' >&2) ||
        die "pip could not install the packages, for the reason above (disk, network, index?): put it right and run make again."
}
pip -r "$requirements"
# The client of this checkout as $venv/bin/nod; what it imports is there already.
pip --no-deps --editable .
say "Python packages: $((SECONDS - began)) s"

if [ "$what" = test ]; then
    began=$SECONDS
    say "Installing the scanners into $venv/scan and the evaluator of IAM policies into node_modules, about a minute"
    "$venv/scan/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv/scan" ||
        die "Cannot make a virtual environment in $venv/scan, for the reason above."
    venv=$venv/scan pip -r requirements-scan.txt
    npm ci --no-audit --no-fund --loglevel=error >&2 ||
        die "npm could not install the packages, for the reason above (disk, network, registry?): put it right and run make again."
    say "Scanners: $((SECONDS - began)) s"
fi
