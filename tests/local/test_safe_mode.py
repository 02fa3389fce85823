"""Homes that would keep the notebook's server down, on a real machine: it comes up, and says what is wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from local.installer import Installer
from local.machines import Machine, Machines
from tests.local.test_documents_machine import (
    PASSWORD,
    Outside,
    Visitor,
    answer,
    execute,
    hashed,
    shell,
)

pytestmark = pytest.mark.machine

INSTANCE_ID = "i-0a0f0e0d0e0a0f0e0"
HOME = "/home/jupyter"
# As after each launch. A start may take 20 seconds here in place of 90.
FRESH = f"""
systemctl set-environment NOD_MINUTE_SECONDS=10
rm -rf {HOME}; install -d -m 0750 -o jupyter -g jupyter {HOME}; rm -f /fill
"""


@pytest.fixture(scope="module")
def outside(aws_port: int, installer: Installer) -> Iterator[Outside]:
    made = Outside(aws_port, installer.path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def machine(
    machines: Machines, new_address: Callable[[], str], outside: Outside, installer: Installer, aws_port: int
) -> Machine:
    """With a notebook, on a disk of its own that can be filled."""
    address = new_address()
    identity = {"region": "us-east-1", "accountId": "123456789012", "instanceId": INSTANCE_ID}
    keys = {"AccessKeyId": "AKID", "SecretAccessKey": "secret", "Token": "token"}
    told = {
        "meta-data/public-ipv4": address,
        "meta-data/local-ipv4": "10.0.0.6",
        "meta-data/iam/security-credentials/": "nod",
        "meta-data/iam/security-credentials/nod": json.dumps(keys),
        "dynamic/instance-identity/document": json.dumps(identity),
    }
    made = machines.create(INSTANCE_ID, address, lambda path: told.get(path.removeprefix("latest/")), disk_mib=3000)
    made.boot()
    given = {
        "InstallerUrl": f"http://127.0.0.1:{aws_port}/installer.sh",
        "InstallerSha256": installer.sha256,
        "HeartbeatsTable": "nod-local-heartbeats",
        "Region": "us-east-1",
        "PasswordHash": hashed(PASSWORD),
        "NotebookName": "thesis",
    }
    for name in ("prepare-instance", "configure-tls", "start-monitor", "install-anaconda", "configure-notebook"):
        done = answer(execute(made, name, given))
        assert done["ok"], done
    return made


def wait_until(true: Callable[[], Any], seconds: float = 240) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def answers(machine: Machine) -> bool:
    return machine.run(["python3", "-I", "/opt/nod/check_notebook.py"], timeout=60).exit_code == 0


def state(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.read_file("/run/nod-server/state.json"))
    return found


def serve(machine: Machine, home: str = "") -> tuple[str, str | None]:
    """Restarts the server with this made of a fresh home (`J COMMAND` runs as its owner); mode, and why."""
    prelude = 'J() { runuser -u jupyter -- env HOME=/home/jupyter bash -c "cd; $1"; }\n'
    done = machine.run(["bash", "-e", "-c", f"{prelude}{FRESH}\n{home}\nsystemctl restart jupyter"], timeout=120)
    journal = ["journalctl", "--unit=jupyter", "--lines=40", "--output=short-monotonic"]
    assert done.exit_code == 0, done.stderr + machine.run(journal).stdout
    wait_until(lambda: answers(machine))
    now = state(machine)
    return now["mode"], now["code"]


def told(outside: Outside) -> dict[str, Any]:
    """What the last heartbeat says of the server, as DynamoDB's attribute values; empty: nothing."""
    values = outside.heartbeats[-1]["ExpressionAttributeValues"]
    server: dict[str, Any] = values.get(":server", {"M": {}})["M"]
    return server


RAISES = "J 'mkdir .jupyter; echo \"raise RuntimeError(1)\" >.jupyter/jupyter_server_config.py'"


def test_a_configuration_that_raises_is_left_out_and_tried_again_once_it_is_mended(
    machine: Machine, outside: Outside
) -> None:
    assert serve(machine, RAISES) == ("safe", "configuration")
    assert "RuntimeError: 1" in machine.read_file("/run/nod-server/last_words.txt").decode()
    wait_until(lambda: told(outside).get("code") == {"S": "configuration"})
    assert told(outside)["mode"] == {"S": "safe"}
    with Visitor(machine, "127.0.0.7") as visitor:
        assert visitor.get("/nod/server").status_code == 302
        assert visitor.guess(PASSWORD).status_code == 302
        page = visitor.get("/nod/server").text
        assert "runs in safe mode" in page
        assert "RuntimeError: 1" in page
        assert visitor.get("/").headers["location"] == "/nod/server"
        assert visitor.get("/lab").status_code == 200
        # Shut Down in the menu, with the file as it is: safe mode again.
        shut_down(visitor)
        wait_until(lambda: state(machine)["failures"] == 2 and answers(machine))
        assert state(machine)["mode"] == "safe"
        shell(machine, f"rm {HOME}/.jupyter/jupyter_server_config.py")
        shut_down(visitor)
        wait_until(lambda: state(machine)["failures"] == 0 and answers(machine))
    assert (state(machine)["mode"], state(machine)["code"]) == ("normal", None)
    wait_until(lambda: told(outside) == {})


def shut_down(visitor: Visitor) -> None:
    """As the menu does."""
    headers = {"X-XSRFToken": visitor.cookies["_xsrf"]}
    assert visitor.post("/api/shutdown", headers=headers).status_code == 200


def test_packages_of_the_owner_do_not_come_into_the_server_and_stay_for_kernels(machine: Machine) -> None:
    site = shell(
        machine,
        "runuser -u jupyter -- env HOME=/home/jupyter /opt/anaconda3/bin/python -c "
        "'import site; print(site.getusersitepackages())'",
    )
    assert site.startswith(HOME)
    names = "tornado traitlets jinja2 jupyter_server jupyterlab jupyter_core sitecustomize usercustomize cells"
    shadows = f"""J 'mkdir -p {site}; for name in {names}; do echo "raise SystemExit(3)" >{site}/$name.py; done
    for name in json random logging notebook; do echo "raise SystemExit(3)" >$name.py; done
    echo "import os; os._exit(3)" >{site}/own.pth'"""
    assert serve(machine, shadows) == ("normal", None)
    own = f"""J 'mkdir -p {site} .local/etc/jupyter/jupyter_server_config.d; echo "here = 1" >{site}/my_ext.py
    echo "{{\\"ServerApp\\": {{\\"jpserver_extensions\\": {{\\"my_ext\\": true}}}}}}" \\
        >.local/etc/jupyter/jupyter_server_config.d/my_ext.json'"""
    assert serve(machine, own) == ("normal", None)
    assert json.loads(machine.read_file("/run/nod-ready/ready.json"))["left_out"] == ["my_ext"]
    kernel = "import my_ext, sys; print(my_ext.here, sys.flags.no_user_site)"
    python = f"runuser -u jupyter -- env HOME={HOME} /opt/anaconda3/bin/python -c '{kernel}'"
    assert shell(machine, python) == "1 0"


def test_an_older_server_in_the_home_does_not_take_our_place(machine: Machine) -> None:
    """What `pip install jupyterlab==3.4.8` brings: another jupyterlab, and with it another login."""
    old = (
        'J \'p=$(/opt/anaconda3/bin/python -c "import site; print(site.getusersitepackages())"); '
        'mkdir -p $p/jupyterlab; echo "print(1)" >$p/jupyterlab/__init__.py; touch $p/jupyterlab/labapp.py\''
    )
    assert serve(machine, old) == ("normal", None)
    with Visitor(machine, "127.0.0.8") as visitor:
        assert visitor.guess(PASSWORD).status_code == 302


def test_another_program_on_the_port_is_told_and_ours_is_back_when_it_ends(machine: Machine, outside: Outside) -> None:
    serve(machine)
    page = "<input type=password name=password>"
    other = (
        "import http.server, ssl\n"
        "class Page(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response(200); self.end_headers(); self.wfile.write(b'{page}')\n"
        "server = http.server.ThreadingHTTPServer(('0.0.0.0', 8888), Page)\n"
        "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain('/etc/nod/tls/notebook.pem')\n"
        "server.socket = context.wrap_socket(server.socket, server_side=True)\n"
        "server.serve_forever()\n"
    )
    machine.write_file("/root/other.py", other.encode())
    shell(machine, "systemctl stop jupyter; systemd-run --unit other python3 /root/other.py")
    wait_until(lambda: "LISTEN" in shell(machine, "ss -ltn 'sport = :8888'"))
    shell(machine, "systemctl start --no-block jupyter")
    wait_until(lambda: state(machine)["code"] == "port_taken")
    assert state(machine)["mode"] == "normal"
    assert not answers(machine)
    wait_until(lambda: told(outside).get("code") == {"S": "port_taken"})
    shell(machine, "systemctl stop other")
    wait_until(lambda: answers(machine))
    assert state(machine)["mode"] == "normal"


def test_it_comes_up_on_a_full_disk(machine: Machine) -> None:
    full = "J 'cat /dev/zero >fill 2>/dev/null || true'; cat /dev/zero >/fill 2>/dev/null || true"
    mode, _ = serve(machine, full)
    assert mode == "normal"
    with Visitor(machine, "127.0.0.9") as visitor:
        assert visitor.guess(PASSWORD).status_code == 302
        assert visitor.get("/lab").status_code == 200
    shell(machine, f"rm -f /fill {HOME}/fill")


OF_ROOT = "install -d -m 0700 {}"


@pytest.mark.long
@pytest.mark.parametrize(
    ("home", "expected"),
    [
        (f"J 'mkdir .jupyter; echo \"{line}\" >.jupyter/jupyter_server_config.py'", ("safe", code))
        for line, code in [
            ("import sys; sys.exit(0)", "configuration"),
            ("import os; os._exit(0)", "ended"),
            ("while True: pass", "hangs"),
            ('c.ServerApp.root_dir = \\"/nowhere\\"', "root_dir"),
            ("c.ServerApp.root_dir = 7", "configuration"),
            ('c.ServerApp.root_dir = \\"/root\\"', "root_dir"),
        ]
    ]
    + [
        ("J 'mkdir .jupyter; mkfifo .jupyter/jupyter_server_config.py'", ("safe", "configuration")),
        ("J 'mkdir .jupyter; echo { >.jupyter/jupyter_server_config.json'", ("safe", "configuration")),
        ("J 'mkdir -p .jupyter/jupyter_server_config.d; echo { >.jupyter/jupyter_server_config.d/a.json'", None),
        ("J 'mkdir -p .jupyter/labconfig; echo { >.jupyter/labconfig/page_config.json'", None),
        ("J 'd=.local/share/jupyter/labextensions/x; mkdir -p $d; echo { >$d/package.json'", ("safe", "page")),
        ("J 'mkdir -p .local/share/jupyter; echo x >.local/share/jupyter/nbsignatures.db'", ("normal", None)),
        (f"J 'mkdir -p .local/share'; {OF_ROOT.format(f'{HOME}/.local/share/jupyter')}", ("normal", None)),
        (OF_ROOT.format(f"{HOME}/.jupyter"), ("safe", "configuration")),
        (" ; ".join(OF_ROOT.format(f"{HOME}/{name}") for name in (".local", ".config", ".cache")), ("normal", None)),
        ("J 'touch .jupyter .local'", ("normal", None)),
        ("J 'mkfifo .jupyter .local'", ("normal", None)),
        ("J 'ln -s /nowhere .jupyter; ln -s /nowhere .local'", ("normal", None)),
        (f"chown root: {HOME}; chmod 0700 {HOME}", ("safe", "home")),
        (f"rm -rf {HOME}", ("safe", "home")),
        (f"rm -rf {HOME}; touch {HOME}", ("safe", "home")),
        (f"rm -rf {HOME}; mkfifo {HOME}", ("safe", "home")),
        (f"rm -rf {HOME}; ln -s /nowhere {HOME}", ("safe", "home")),
    ],
)  # fmt: skip
def test_no_home_keeps_it_down(machine: Machine, home: str, expected: tuple[str, str | None] | None) -> None:
    found = serve(machine, home)
    assert expected is None or found == expected
    with Visitor(machine, "127.0.0.10") as visitor:
        assert visitor.guess(PASSWORD).status_code == 302
