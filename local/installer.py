"""A stand-in for Anaconda's installer: the same command line, a smaller environment made of PyPI packages.

Anaconda's own cannot be downloaded everywhere. The stand-in says what it is, in its output and in
PREFIX/STAND-IN.txt, and fits the machine image only: its Python is a copy of that system's. The prefix is of the kind
that Anaconda makes, an installation of its own: what a person installs with `pip install --user` counts in it.
"""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from local.errors import InstallerError
from local.image import alone, half_made, need_space, only_one
from local.processes import tied

Say = Callable[[str], None]

REQUIREMENTS: Final = Path(__file__).with_name("stand-in-requirements.txt")
NEEDS_MIB: Final = 1536
_VERSION: Final = 2  # of what this module makes of the packages; a new number makes a new installer
_BUILT_AT: Final = "/opt/anaconda3"  # any other PREFIX is written into the scripts at installation

_HEADER: Final = r"""#!/bin/bash
# A STAND-IN for the Anaconda installer, with its command line; this is not Anaconda. Made for Python @PYTHON@
# on @MACHINE@ of the machine image; the payload follows the last line of this script.
set -euo pipefail

prefix=$HOME/anaconda3
batch=0 force=0 update=0
usage() {
    cat <<'USAGE'
usage: @NAME@ [options]

Installs a stand-in for Anaconda (JupyterLab, NumPy, pandas and Matplotlib from PyPI).

-b           run install in batch mode (without manual intervention)
-f           no error if install prefix already exists
-h           print this help message and exit
-p PREFIX    install prefix, defaults to $HOME/anaconda3, must not contain spaces.
-s           skip running pre/post-link/install scripts (there are none)
-u           update an existing installation
USAGE
}
die() { printf 'ERROR: %s\n' "$*" >&2; exit 1; }
while getopts "bfhp:su" option; do
    case $option in
        b) batch=1 ;;
        f) force=1 ;;
        h) usage; exit 0 ;;
        p) prefix=$OPTARG ;;
        s) ;;
        u) update=1 ;;
        *) usage >&2; exit 1 ;;
    esac
done
case $prefix in *[[:space:]]*) die "Cannot install into directories with spaces" ;; esac
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
prefix=${prefix%/}
if [ $batch = 0 ]; then
    printf 'This is a stand-in for Anaconda. Install it into %s? [yes|no] ' "$prefix"
    read -r answer || answer=
    [ "$answer" = yes ] || die "Nothing was installed; use -b to be asked nothing."
fi
if [ -e "$prefix" ] && [ $force = 0 ] && [ $update = 0 ]; then
    printf "ERROR: File or directory already exists: '%s'\n" "$prefix" >&2
    printf 'If you want to update an existing installation, use the -u option.\n' >&2
    exit 1
fi
here="$(uname -m) $(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none)"
[ "$here" = "@MACHINE@ @PYTHON@" ] ||
    die "This stand-in is made for Python @PYTHON@ on @MACHINE@; here is $here (machine, Python)."
command -v zstd >/dev/null || die "zstd is missing."

printf 'PREFIX=%s\n' "$prefix"
printf 'This is a stand-in for the Anaconda installer, not Anaconda.\n'
mkdir -p "$prefix"
tail -n +@LINE@ "$0" | zstd -dcq | tar -x --no-same-owner -C "$prefix" ||
    die "Cannot unpack into $prefix (is the disk full, or the installer cut short?)"
if [ "$prefix" != @BUILT_AT@ ]; then
    grep -rlIF @BUILT_AT@ "$prefix/bin" "$prefix/share/jupyter/kernels" | while read -r file; do
        sed -i "s|@BUILT_AT@|${prefix//&/\\&}|g" "$file"
    done
fi
"$prefix/bin/python" -I -c 'import jupyter_server'
printf 'installation finished.\n'
exit 0
"""

_BUILD: Final = """
set -e
cd "$1"
mkdir -p upper work root
mount -t overlay nod -o lowerdir=image,upperdir=upper,workdir=work,volatile root 2>/dev/null ||
    mount -t overlay nod -o lowerdir=image,upperdir=upper,workdir=work root
mkdir -p root/wheels
mount --bind "$2" root/wheels
mount --rbind /dev root/dev
mount -t proc proc root/proc
chroot root env -i PATH="$PATH" HOME=/root LC_ALL=C.UTF-8 sh -e -c "$3" sh "$4" >build.log 2>&1
tar --create --sort=name --owner=0 --group=0 --numeric-owner --directory "root$4" . >payload.tar
chroot root zstd -q -3 -T0 -c <payload.tar >payload.zst
rm payload.tar
"""

_IN_IMAGE: Final = r"""
# A prefix as Anaconda's is: with a Python and a standard library of its own, and no virtual environment, so that
# ~/.local counts in it. Where packages lie, Debian has its own mind: `sysconfig` is changed back, and `site`, which is
# frozen into the program, finds them under Debian's name.
version=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
mkdir -p "$1/bin" "$1/lib"
cp --dereference "/usr/bin/$version" "$1/bin/"
ln -s "$version" "$1/bin/python3"
ln -s "$version" "$1/bin/python"
cp -a "/usr/lib/$version" "$1/lib/"
cd "$1/lib/$version"
rm -rf EXTERNALLY-MANAGED sitecustomize.py ensurepip idlelib lib2to3 test turtledemo
mkdir -p site-packages
ln -s site-packages dist-packages
sed -i 's/sys\.base_prefix != sys\.prefix or hasattr(sys, "real_prefix")/True/' sysconfig.py sysconfig/__init__.py \
    2>/dev/null || :
"$1/bin/python" -I - "$1" "$version" <<'PYTHON'
import site, sys, sysconfig
prefix, version = sys.argv[1:]
packages = f"{prefix}/lib/{version}/site-packages"
assert sys.prefix == sys.base_prefix == sys.exec_prefix == prefix, (sys.prefix, sys.base_prefix)
assert sysconfig.get_path("purelib") == sysconfig.get_path("platlib") == packages, sysconfig.get_paths()
assert f"{prefix}/lib/{version}/dist-packages" in sys.path, sys.path
assert all(path.startswith(prefix) for path in sys.path), sys.path
PYTHON
"$1/bin/python" -c 'import site, sys; sys.exit(not site.ENABLE_USER_SITE)'
"$1/bin/python" -I "$(echo /wheels/pip-*.whl)/pip" install --quiet --no-index --no-deps --no-compile --no-cache-dir \
    --disable-pip-version-check --root-user-action=ignore /wheels/*.whl
cd site-packages
# Each file costs time at installation: out goes what no notebook needs. jedi reads the stubs of Python itself.
rm -rf pandas/tests matplotlib/tests mpl_toolkits/*/tests tornado/test jupyterlab/galata
rm -rf jedi/third_party/django-stubs jedi/third_party/typeshed/stubs
find numpy -type d -name tests -prune -exec rm -rf {} +
find . -name '*.pyi' -not -path './jedi/third_party/typeshed/stdlib/*' -delete
find babel/locale-data -name '*.dat' -not -name 'en*' -not -name root.dat -delete
find "$1" -name '*.map' -delete
"$1/bin/python" -I -m compileall -q -j 0 .. || :
cat >"$1/STAND-IN.txt" <<'TEXT'
This is a stand-in for Anaconda, made from PyPI packages by the local cloud of Notebook on Demand.
It is not Anaconda: there is no conda here. Its packages are listed by `bin/pip list`.
TEXT
"$1/bin/jupyter" server --version
"""


@dataclass(frozen=True)
class Installer:
    """A file with Anaconda's command line; `sha256` in hex."""

    path: Path
    sha256: str
    name: str


@dataclass(frozen=True)
class Target:
    """What the packages must fit: version of Python ("3.11.2"), glibc 2.N (N) and the machine.

    The whole version of Python, since packages ask for more than its first two numbers.
    """

    python: str
    glibc: int
    machine: str

    @classmethod
    def of_image(cls, image: Path) -> "Target":
        ask = (
            "import json, platform, sys; "
            'print(json.dumps(["%d.%d.%d" % sys.version_info[:3], platform.libc_ver()[1], platform.machine()]))'
        )
        asked = subprocess.run(
            ["chroot", str(image), "python3", "-c", ask], check=False, capture_output=True, text=True
        )
        try:
            python, libc, machine = json.loads(asked.stdout)
            return cls(python, int(libc.split(".")[1]), machine)
        except (ValueError, IndexError) as error:
            raise InstallerError(
                f"The machine image has no usable Python; remove {image} to have it made again."
            ) from error

    @classmethod
    def expected(cls) -> "Target | None":
        """What an image that is still to be made will hold, as far as this host's apt knows."""
        asked = subprocess.run(
            ["apt-cache", "show", "--no-all-versions", "python3"], check=False, capture_output=True, text=True
        )
        version = next((line for line in asked.stdout.splitlines() if line.startswith("Version:")), "")
        upstream = version.removeprefix("Version:").strip().partition("-")[0]
        numbers = upstream.split(".")
        libc = platform.libc_ver()[1].split(".")
        if len(numbers) != 3 or len(libc) < 2 or not libc[1].isdigit():
            return None
        return cls(upstream, int(libc[1]), platform.machine())

    @property
    def minor(self) -> str:
        """Python's version as installations are compatible in it, "3.11"."""
        return ".".join(self.python.split(".")[:2])

    @property
    def requirements(self) -> list[str]:
        """The pinned packages for this Python, without markers: pip would judge those by its own Python."""
        parsed = [
            Requirement(line)
            for line in REQUIREMENTS.read_text().splitlines()
            if line.strip() and not line.startswith("#")
        ]
        environment = {
            "python_version": self.minor,
            "python_full_version": self.python,
            "platform_machine": self.machine,
        }
        return [
            f"{each.name}{each.specifier}"
            for each in parsed
            if each.marker is None or each.marker.evaluate(environment)
        ]

    @property
    def stamp(self) -> str:
        inputs = [self.python, self.glibc, self.machine, self.requirements]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]


def prefetch(cache: Path, say: Say) -> None:
    """Downloads the packages of the stand-in; may run beside `ensure_image`, which it does not need.

    Only saves time: what it cannot do now, `ensure_installer` does or says.
    """
    target = Target.expected()
    if target is not None:
        _wheels(cache, target, say)


def ensure_installer(cache: Path, image: Path, say: Say) -> Installer:
    """The stand-in installer for the image, made if it is not in `cache` yet. Raises InstallerError."""
    target = Target.of_image(image)
    inputs = [target.stamp, image.name, _VERSION, _HEADER, _BUILD, _IN_IMAGE]
    stamp = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]
    folder = cache / f"installer-{stamp}"
    if not folder.is_dir():
        wheels = _wheels(cache, target, say)
        with only_one(cache, "installer", say):
            if not folder.is_dir():
                _make(folder, image, wheels, target, say)
    described = json.loads((folder / "installer.json").read_text())
    return Installer(folder / described["name"], described["sha256"], described["name"])


def _wheels(cache: Path, target: Target, say: Say) -> Path:
    folder = cache / f"wheels-{target.stamp}"
    with only_one(cache, "wheels", say):
        if folder.is_dir():
            return folder
        need_space(cache, NEEDS_MIB, "the stand-in installer", InstallerError)
        with half_made(cache / "wheels.partial", "Cannot download the stand-in's packages", InstallerError) as partial:
            (partial / "requirements.txt").write_text("\n".join(target.requirements) + "\n")
            say("Stand-in installer: downloading packages")
            _download(partial, target)
            partial.rename(folder)
    return folder


def _download(folder: Path, target: Target) -> None:
    machine = target.machine
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(target.glibc, 4, -1)]
    platforms += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={target.python}"]
    command += [f"--platform={each}" for each in platforms]
    command += ["--dest", str(folder), "--requirement", str(folder / "requirements.txt")]
    done = subprocess.run(
        tied(*command),
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise InstallerError("pip could not download the stand-in's packages: " + " | ".join(errors[-4:]))


def _make(folder: Path, image: Path, wheels: Path, target: Target, say: Say) -> None:
    cache = folder.parent
    need_space(cache, NEEDS_MIB, "the stand-in installer", InstallerError)
    with half_made(cache / "installer.partial", "Cannot make the stand-in installer", InstallerError) as partial:
        (partial / "image").symlink_to(image.resolve())
        say("Stand-in installer: putting the environment together")
        build = ["sh", "-c", _BUILD, "sh", str(partial.resolve()), str(wheels.resolve()), _IN_IMAGE, _BUILT_AT]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            alone(*build),
            check=False,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            log = partial / "build.log"
            why = (log.read_text(errors="replace") if log.exists() else "").splitlines() + done.stderr.splitlines()
            raise InstallerError("The stand-in installer could not be made: " + " | ".join(why[-5:]))
        result = partial / "result"
        result.mkdir()
        name = f"Stand-in-for-Anaconda3-py{target.minor.replace('.', '')}-Linux-{target.machine}.sh"
        sha256 = _join(result / name, target, name, partial / "payload.zst")
        (result / "installer.json").write_text(json.dumps({"name": name, "sha256": sha256}))
        result.rename(folder)


def _join(path: Path, target: Target, name: str, payload: Path) -> str:
    header = _HEADER.replace("@LINE@", str(_HEADER.count("\n") + 1))
    for key, value in {
        "@PYTHON@": target.minor,
        "@MACHINE@": target.machine,
        "@BUILT_AT@": shlex.quote(_BUILT_AT),
        "@NAME@": name,
    }.items():
        header = header.replace(key, value)
    digest = hashlib.sha256(header.encode())
    with path.open("wb") as out, payload.open("rb") as content:
        out.write(header.encode())
        while chunk := content.read(1024 * 1024):
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    path.chmod(0o755)
    return digest.hexdigest()
