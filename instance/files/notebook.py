"""Starts JupyterLab with the settings that its owner must not lose by accident.

Settings of the command line win over those of every configuration file, so a file in ~/.jupyter or an
installed extension can change how JupyterLab looks and works, but not who may reach it. What needs no guard is
not set here.
"""

import os
import sys
from pathlib import Path

from jupyterlab.labapp import LabApp

HERE = Path(__file__).resolve().parent

GUARDED = {
    "ServerApp.ip": "*",
    "ServerApp.port": "8888",
    # The link names the port: rather none than another.
    "ServerApp.port_retries": "0",
    "ServerApp.sock": "",
    "ServerApp.base_url": "/",
    # The login page, which names the notebook and says how to get another password.
    "ServerApp.extra_template_paths": str(HERE / "templates"),
    "ServerApp.open_browser": "False",
    # Key and certificate in one file, which is read anew for each connection.
    "ServerApp.certfile": "/etc/nod/tls/notebook.pem",
    "ServerApp.keyfile": "",
    "ServerApp.client_ca": "",
    "ServerApp.identity_provider_class": "nod_identity.OwnerIdentityProvider",
    "ServerApp.authorizer_class": "jupyter_server.auth.authorizer.AllowAllAuthorizer",
    "ServerApp.cookie_secret_file": "/var/lib/nod-notebook/cookie_secret",
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


def main() -> None:
    """Serves until it is stopped. The folder of this file is where `nod_identity` is found."""
    sys.path.insert(0, str(HERE))
    prepare_kernels()
    settings = {name: value if isinstance(value, tuple) else (value,) for name, value in GUARDED.items()}
    LabApp.launch_instance(argv=[f"--{name}={one}" for name, value in settings.items() for one in value])


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
