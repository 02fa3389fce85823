"""Starts JupyterLab with the settings that its owner must not lose by accident, and so that no home keeps it down.

Settings of the command line win over those of every configuration file, so a file in ~/.jupyter or an
installed extension can change how JupyterLab looks and works, but not who may reach it. What needs no guard is
not set here.

It runs isolated (python -I): nothing in the home is imported, neither from ~/.local nor from the folder it runs in.
Kernels and terminals are processes of their own, and have all of that. Its runtime files are in /run. What it would
write into the home when it starts it does not need: where it cannot, it goes without.

In safe mode (safe_mode.py) it starts without the owner's configuration: with other folders in the place of ~/.jupyter
and ~/.local/share/jupyter, which are empty and forgotten at the end. A start that fails ends with a status that says
why (server_causes.py).
"""

import errno
import faulthandler
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
HOME = Path("/home/jupyter")
RUN = Path("/run/nod-jupyter")
STATE = Path("/run/nod-server/state.json")
COOKIE_SECRET = Path("/var/lib/nod-notebook/cookie_secret")
PORT = 8888
# Where it cannot be read and written, the server has the root of the file system for a home.
NO_HOME = "/"
# For kernels and terminals, before the system's. Not in the unit, whose commands of root would look there too.
PROGRAMS = ("/opt/anaconda3/bin", f"{HOME}/.local/bin")
# No file of Jupyter's configuration is larger; what is (a device, say) would fill the memory.
MOST_CONFIGURATION = 4 * 1024 * 1024
MOST_FILES = 1000
# Jupyter's own have 32 and 1024 bytes, and it reads all that is there.
MOST_SECRET = 65536
# What traitlets raises for a setting or a file that it cannot take.
_OF_THE_CONFIGURATION = {"TraitError", "ArgumentError", "JSONDecodeError"}

GUARDED = {
    "ServerApp.ip": "*",
    "ServerApp.port": str(PORT),
    # The link names the port: rather none than another.
    "ServerApp.port_retries": "0",
    "ServerApp.sock": "",
    "ServerApp.base_url": "/",
    # The login page, which names the notebook and says how to get another password.
    "ServerApp.extra_template_paths": str(HERE / "templates"),
    "ServerApp.open_browser": "False",
    # An extension that cannot be loaded is left out.
    "ServerApp.reraise_server_extension_failures": "False",
    # Key and certificate in one file, which is read anew for each connection.
    "ServerApp.certfile": "/etc/nod/tls/notebook.pem",
    "ServerApp.keyfile": "",
    "ServerApp.client_ca": "",
    "ServerApp.identity_provider_class": "nod_identity.OwnerIdentityProvider",
    "ServerApp.authorizer_class": "jupyter_server.auth.authorizer.AllowAllAuthorizer",
    "ServerApp.allow_root": "False",
    "ServerApp.allow_remote_access": "True",
    "ServerApp.allow_unauthenticated_access": "False",
    "ServerApp.allow_origin": "",
    "ServerApp.allow_origin_pat": "",
    "ServerApp.allow_credentials": "False",
    "ServerApp.disable_check_xsrf": "False",
    # Who puts the password or a token into an address is refused, and it is not logged: nor is where the login page
    # leads, which may hold the address with it.
    "ServerApp.extra_log_scrub_param_keys": ("password", "next"),
    # Nobody stands in between, so what claims to be a forwarded address is the visitor's own invention.
    "ServerApp.trust_xheaders": "False",
    # What is deleted is gone, and the page says so before. A trash on the same disk would keep the space, and could
    # take nothing once the disk is full.
    "FileContentsManager.delete_to_trash": "False",
    "FileContentsManager.always_delete_dir": "True",
}


class OurModules(importlib.abc.MetaPathFinder):
    """Finds the modules of this folder before all others of their names. The folder on sys.path would do the opposite
    too: this file would be taken for the package `notebook`."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        file = HERE / f"{fullname}.py"
        if fullname == Path(__file__).stem or "." in fullname or not file.is_file():
            return None
        return importlib.util.spec_from_file_location(fullname, file)


def settings(*, safe: bool) -> dict[str, str | tuple[str, ...]]:
    """All settings of the command line."""
    found: dict[str, str | tuple[str, ...]] = {**GUARDED, "ServerApp.cookie_secret_file": str(cookie_secret_file())}
    if safe:
        found["ServerApp.root_dir"] = str(Path.cwd())
    if safe or not signatures_are_usable(HOME / ".local/share/jupyter"):
        # Which notebooks are trusted is forgotten at the end, but they open.
        found["NotebookNotary.db_file"] = ":memory:"
        found["NotebookNotary.secret_file"] = str(RUN / "notebook_secret")
    return found


def cookie_secret_file() -> Path:
    """Where the key of the login cookies is, or can be made: its owner may have put anything there."""
    try:
        found = COOKIE_SECRET.lstat()
        if stat.S_ISREG(found.st_mode) and 32 <= found.st_size <= MOST_SECRET and os.access(COOKIE_SECRET, os.R_OK):
            return COOKIE_SECRET
        COOKIE_SECRET.unlink()
    except FileNotFoundError:
        pass
    except OSError:
        return RUN / "cookie_secret"
    return COOKIE_SECRET if _has_room(COOKIE_SECRET.parent) else RUN / "cookie_secret"


def signatures_are_usable(data: Path) -> bool:
    """Whether the secret that notebooks are signed with can be read, or made."""
    secret = data / "notebook_secret"
    try:
        if secret.exists():
            return secret.is_file() and os.access(secret, os.R_OK) and 0 < secret.stat().st_size <= MOST_SECRET
        return data.is_dir() and os.access(data, os.W_OK | os.X_OK) and _has_room(data)
    except OSError:
        return False


def _has_room(folder: Path) -> bool:
    try:
        left = os.statvfs(folder)
    except OSError:
        return False
    return left.f_bavail * left.f_frsize >= 65536 and (left.f_files == 0 or left.f_favail > 8)


def is_usable(home: Path) -> bool:
    """Whether a folder can be read and written by this user."""
    return home.is_dir() and os.access(home, os.R_OK | os.W_OK | os.X_OK)


def unreadable_configuration(folder: Path) -> Path | None:
    """A file of the configuration that would hold up whoever reads it, or cannot be read at all; or its folder."""
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        return folder
    for file in _configuration(folder):
        try:
            found = file.stat()
        except OSError:
            # A link to nowhere: as good as none.
            continue
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_CONFIGURATION or not os.access(file, os.R_OK):
            return file
    return None


def _configuration(folder: Path) -> Iterator[Path]:
    """What Jupyter reads of its configuration when it starts: by name, not more than it has ever had."""
    for entry in _entries(folder):
        if entry.name.endswith(("_config.py", "_config.json")):
            yield entry
        elif entry.name.endswith("_config.d") or entry.name in ("labconfig", "serverconfig"):
            yield from (inside for inside in _entries(entry) if inside.name.endswith(".json"))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())[:MOST_FILES]
    except OSError:
        return []


def port_is_free() -> bool:
    """Whether the port can be had, on all addresses of both kinds."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - as it is served
        try:
            with socket.socket(family) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address, PORT))
                sock.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
    return True


def code_of(error: BaseException, home: Path = HOME) -> str:
    """Why a start failed, as far as its exception tells: a code of server_causes.CAUSES."""
    chain = list(_chain(error))
    kinds = {type(one).__name__ for one in chain}
    numbers = {one.errno for one in chain if isinstance(one, OSError)}
    found = "ended"
    if any(isinstance(one, ImportError) for one in chain):
        found = "environment"
    if any(_is_under(home, one.__traceback__) for one in chain) or kinds & _OF_THE_CONFIGURATION:
        found = "configuration"
    # Of traitlets, for root_dir and preferred_dir.
    if any(type(one).__name__ == "TraitError" and "directory" in str(one).lower() for one in chain):
        found = "root_dir"
    if errno.EADDRINUSE in numbers:
        found = "port_taken"
    if numbers & {errno.ENOSPC, errno.EDQUOT}:
        found = "disk_full"
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_under(folder: Path, trace: TracebackType | None) -> bool:
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith(f"{folder}/"):
            return True
        trace = trace.tb_next
    return False


def end(code: str, words: str) -> None:
    """Ends the process at once, with the status that says why."""
    from server_causes import CAUSES  # noqa: PLC0415 - found once OurModules is there

    sys.stderr.write(f"The server does not start ({code}): {words}\n")
    sys.stderr.flush()
    os._exit(CAUSES[code].status or 1)


def read_state() -> dict[str, Any]:
    """What safe_mode.py decided for this start."""
    try:
        found = json.loads(STATE.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def make_folders(*, safe: bool) -> None:
    """The folders of this start, and the environment that names them while it starts."""
    for name in [name for name in os.environ if name.startswith(("JUPYTER", "PYTHON"))]:
        del os.environ[name]
    os.environ["PATH"] = os.pathsep.join([*PROGRAMS, os.environ.get("PATH", os.defpath)])
    os.environ["JUPYTER_RUNTIME_DIR"] = str(own_folder(RUN / "runtime"))
    if not safe:
        # A file that raises is no file to go on without in silence.
        os.environ["TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR"] = "1"
        return
    folder = RUN / "safe"
    shutil.rmtree(folder, ignore_errors=True)
    os.environ["JUPYTER_CONFIG_DIR"] = str(folder / "config")
    os.environ["JUPYTER_DATA_DIR"] = str(folder / "data")
    for name in ("config", "data"):
        try:
            (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            os.environ[f"JUPYTER_{name.upper()}_DIR"] = str(HERE / "empty" / name)


def own_folder(folder: Path) -> Path:
    """The folder, made anew where something else is in its place; its parent where it cannot be made."""
    try:
        if folder.is_symlink() or not folder.is_dir():
            folder.unlink(missing_ok=True)
            folder.mkdir(mode=0o700)
        folder.chmod(0o700)
    except OSError:
        return folder.parent
    return folder


def look_first(*, safe: bool) -> None:
    """Ends a start that cannot succeed before it costs anything."""
    if not port_is_free():
        end("port_taken", f"port {PORT} is in use")
    if safe:
        return
    if not is_usable(HOME):
        end("home", f"{HOME} is no folder that this user can read and write")
    wrong = unreadable_configuration(HOME / ".jupyter")
    if wrong is not None:
        end("configuration", f"{wrong} is no file that can be read")


def main() -> None:
    """Serves until it is stopped."""
    state = read_state()
    safe = state.get("mode") == "safe"
    sys.meta_path.insert(0, OurModules())
    # Also for what no exception ends: a loop, a pipe that nobody writes to. It says where, and needs no lock for it.
    faulthandler.dump_traceback_later(float(state.get("start_seconds") or 90), exit=True)
    look_first(safe=safe)
    os.chdir(HOME if is_usable(HOME) else NO_HOME)
    make_folders(safe=safe)
    try:
        from jupyter_core.application import JupyterApp  # noqa: PLC0415 - what fails here is told too
        from jupyter_server.serverapp import ServerApp  # noqa: PLC0415
        from jupyterlab.labapp import LabApp  # noqa: PLC0415

        # From IPython 3, of 2015; it writes into the home.
        JupyterApp.migrate_config = lambda _: None
        # A page for a browser on this machine, which has none. It is no setting of the command line's.
        ServerApp.no_browser_open_file = True
        given = {name: value if isinstance(value, tuple) else (value,) for name, value in settings(safe=safe).items()}
        prepare_kernels()
        LabApp.launch_instance(argv=[f"--{name}={one}" for name, value in given.items() for one in value])
    except BaseException as error:
        from serving import SERVING  # noqa: PLC0415

        if SERVING.since is not None:
            # It had come up: what ended it now is told by its status, as ever.
            raise
        sys.excepthook(type(error), error, error.__traceback__)
        end(code_of(error), f"{type(error).__name__}: {error}")
    else:
        from serving import SERVING  # noqa: PLC0415

        if SERVING.since is None:
            end("ended", "it returned before it served")


def prepare_kernels() -> None:
    """Lets detached processes outlive their kernel, and kernels start on a full disk.

    A jupyter_client that is built otherwise is served as it is.
    """
    try:
        import detached  # noqa: PLC0415
        import full_disk  # noqa: PLC0415

        detached.spare()
        full_disk.bear(Path(os.environ.get("JUPYTER_RUNTIME_DIR", "/run/nod-jupyter/runtime")))
    except Exception as error:  # noqa: BLE001
        sys.stderr.write(f"Kernels are as Jupyter has them: {error!r}\n")


if __name__ == "__main__":
    main()
