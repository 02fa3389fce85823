"""Starts JupyterLab with the settings that its owner must not lose by accident.

Settings of the command line win over those of every configuration file, so a file in ~/.jupyter or an
installed extension can change how JupyterLab looks and works, but not who may reach it. What needs no guard is
not set here.
"""

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
}


def main() -> None:
    """Serves until it is stopped. The folder of this file is where `nod_identity` is found."""
    sys.path.insert(0, str(HERE))
    settings = {name: value if isinstance(value, tuple) else (value,) for name, value in GUARDED.items()}
    LabApp.launch_instance(argv=[f"--{name}={one}" for name, value in settings.items() for one in value])


if __name__ == "__main__":
    main()
