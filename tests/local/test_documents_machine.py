"""The SSM documents, run as root in a real machine with real systemd, against a Jupyter that really serves."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import argon2
import httpx
import pytest

from instance import build
from local.installer import Installer
from local.machines import Completed, Machine, Machines

pytestmark = pytest.mark.machine

DOCUMENTS = build.documents()
INSTANCE_ID = "i-0d0c0d0c0d0c0d0c0"
ARN = f"arn:aws:ec2:us-east-1:123456789012:instance/{INSTANCE_ID}"
PASSWORD = "canary-correct-horse"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}


def hashed(password: str) -> str:
    """As jupyter_server.auth.passwd makes it."""
    return "argon2:" + argon2.PasswordHasher(memory_cost=10240, time_cost=10, parallelism=8).hash(password)


class Outside:
    """What a machine finds at 127.0.0.1:AWS_PORT: the installer's server and DynamoDB, with their faults."""

    def __init__(self, port: int, installer: Path) -> None:
        self.heartbeats: list[dict[str, Any]] = []
        self.ranges: list[str | None] = []
        self.cut_after: int | None = None
        self.refuses_heads = False
        self.knows_ranges = True
        self.tells_sizes = True
        outside = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def do_POST(self) -> None:
                outside.heartbeats.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._head(200, 2)
                self.wfile.write(b"{}")

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                content = installer.read_bytes()
                asked = self.headers["Range"] if outside.knows_ranges else None
                start, *last = map(int, re.findall(r"\d+", asked)) if asked else [0]
                if self.command == "HEAD" and outside.refuses_heads:
                    self._head(403, 0)
                    return
                if self.path != "/installer.sh" or start >= len(content):
                    self._head(416 if start else 404, 0)
                    return
                stop = min(last[0] + 1, len(content)) if last else len(content)
                whole = len(content) if outside.tells_sizes else "*"
                self._head(206 if asked else 200, stop - start, f"bytes {start}-{stop - 1}/{whole}" if asked else None)
                if self.command == "HEAD":
                    return
                outside.ranges.append(self.headers["Range"])
                end = stop if outside.cut_after is None else min(stop, start + outside.cut_after)
                try:
                    self.wfile.write(content[start:end])
                except ConnectionError:
                    # Who only wants the headers hangs up.
                    end = 0
                self.close_connection = end < stop or not outside.tells_sizes

            def _head(self, status: int, length: int, span: str | None = None) -> None:
                self.send_response(status)
                if span:
                    self.send_header("Content-Range", span)
                if outside.tells_sizes or span:
                    self.send_header("Content-Length", str(length))
                else:
                    self.send_header("Connection", "close")
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def outside(aws_port: int, installer: Installer) -> Iterator[Outside]:
    made = Outside(aws_port, installer.path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def names() -> dict[str, str]:
    """What the metadata service says of the machine's names; a test may change it."""
    return {"public-hostname": "ec2-203-0-113-25.compute-1.amazonaws.com", "local-ipv4": "10.0.0.5"}


@pytest.fixture(scope="module")
def new_machine(machines: Machines, new_address: Callable[[], str], names: dict[str, str]) -> Callable[..., Machine]:
    def make(instance_id: str, **more: Any) -> Machine:
        address = new_address()

        def metadata(path: str) -> str | None:
            key = path.removeprefix("latest/").removeprefix("meta-data/")
            fixed = {
                "public-ipv4": address,
                "iam/security-credentials/": "nod",
                "iam/security-credentials/nod": json.dumps(
                    {"AccessKeyId": "AKID", "SecretAccessKey": "secret", "Token": "token"}
                ),
                "dynamic/instance-identity/document": json.dumps(
                    {"region": "us-east-1", "accountId": "123456789012", "instanceId": instance_id}
                ),
            }
            return {**fixed, **names}.get(key)

        machine = machines.create(instance_id, address, metadata, **more)
        machine.boot()
        return machine

    return make


@pytest.fixture(scope="module")
def machine(new_machine: Callable[..., Machine], outside: Outside) -> Machine:
    return new_machine(INSTANCE_ID)


@pytest.fixture(scope="module")
def parameters(installer: Installer, aws_port: int) -> dict[str, str]:
    return {
        "InstallerUrl": f"http://127.0.0.1:{aws_port}/installer.sh",
        "InstallerSha256": installer.sha256,
        "HeartbeatsTable": "nod-local-heartbeats",
        "Region": "us-east-1",
        "PasswordHash": hashed(PASSWORD),
    }


def execute(machine: Machine, name: str, given: dict[str, str]) -> Completed:
    """Runs a document as the agent does: the script as a file, the parameters as environment variables."""
    document = DOCUMENTS[name]
    script = "\n".join(document["mainSteps"][0]["inputs"]["runCommand"]) + "\n"
    defaults = {key: entry["default"] for key, entry in document["parameters"].items() if "default" in entry}
    values = {**defaults, "TaskToken": "canary-task-token", **given}
    environment = {f"SSM_{key}": values[key] for key in document["parameters"] if key in values}
    path = f"/root/{name}-{time.monotonic_ns()}.sh"
    machine.write_file(path, script.encode(), 0o700)
    return machine.run(["sh", "-c", path], env={**ENVIRONMENT, **environment}, timeout=300)


def answer(done: Completed) -> dict[str, Any]:
    """The one line; the exit status must agree with it."""
    (line,) = done.stdout.splitlines()
    parsed: dict[str, Any] = json.loads(line)
    assert done.exit_code == (0 if parsed["ok"] else 1)
    assert done.stderr == ""
    return parsed


@pytest.fixture(scope="module")
def launched(machine: Machine, parameters: dict[str, str]) -> dict[str, dict[str, Any]]:
    """All five documents, side by side where the workflow runs them so."""

    def run(name: str) -> dict[str, Any]:
        return answer(execute(machine, name, parameters))

    results = {"prepare-instance": run("prepare-instance")}
    with ThreadPoolExecutor() as pool:
        install = pool.submit(run, "install-anaconda")
        results["configure-tls"] = run("configure-tls")
        results["start-monitor"] = run("start-monitor")
        results["install-anaconda"] = install.result()
    results["configure-notebook"] = run("configure-notebook")
    return results


def shell(machine: Machine, command: str) -> str:
    return machine.run(["bash", "-c", command], timeout=60).stdout.strip()


def main_pid(machine: Machine) -> str:
    return shell(machine, "systemctl show --property MainPID --value jupyter.service")


def served_fingerprint(address: str) -> str:
    pem = ssl.get_server_certificate((address, 8888), timeout=10)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).digest().hex(":").upper()


class Visitor(httpx.Client):
    """A browser's way in, from an address of its own."""

    def __init__(self, machine: Machine, source: str) -> None:
        transport = httpx.HTTPTransport(verify=False, local_address=source)
        super().__init__(base_url=f"https://{machine.address}:8888", transport=transport, timeout=30)

    def __enter__(self) -> Self:
        super().__enter__()
        self.get("/login")
        return self

    def guess(self, password: str, **headers: str) -> httpx.Response:
        return self.post("/login", data={"password": password, "_xsrf": self.cookies["_xsrf"]}, headers=headers)

    def logged_in(self) -> bool:
        return self.get("/api/status").status_code == 200


def test_the_documents_report_as_the_contract_says(launched: dict[str, dict[str, Any]], machine: Machine) -> None:
    assert launched["prepare-instance"]["free_mib"] > 0
    assert launched["install-anaconda"] == {"ok": True, "prefix": "/opt/anaconda3", "installer": "stand-in"}
    assert set(launched["configure-tls"]["names"]) == {
        "ec2-203-0-113-25.compute-1.amazonaws.com", machine.address, "10.0.0.5",
    }  # fmt: skip
    assert launched["start-monitor"] == {"ok": True}
    notebook = launched["configure-notebook"]
    assert notebook["certificate_sha256"] == launched["configure-tls"]["certificate_sha256"]
    assert notebook["certificate_sha256"] == served_fingerprint(machine.address)
    assert 0 < notebook["seconds"] < 180


def test_a_second_and_a_third_run_at_once_change_nothing(
    launched: dict[str, dict[str, Any]], machine: Machine, parameters: dict[str, str]
) -> None:
    before = main_pid(machine)
    for name, first in launched.items():
        with ThreadPoolExecutor() as pool:
            done = list(pool.map(lambda _, name=name: answer(execute(machine, name, parameters)), range(2)))
        for result in done:
            assert {**result, "seconds": 0, "free_mib": 0} == {**first, "seconds": 0, "free_mib": 0}
    assert main_pid(machine) == before
    assert shell(machine, "ls /run | grep nod-work") == ""


def test_the_right_password_opens_and_a_wrong_one_does_not(
    launched: dict[str, dict[str, Any]], machine: Machine
) -> None:
    with Visitor(machine, "127.0.0.61") as owner:
        assert not owner.logged_in()
        assert owner.guess("wrong").status_code == 401
        assert not owner.logged_in()
        assert owner.guess(PASSWORD).status_code == 302
        assert owner.logged_in()


def test_nothing_but_the_password_opens(launched: dict[str, dict[str, Any]], machine: Machine) -> None:
    with Visitor(machine, "127.0.0.62") as stranger:
        for value in ("token", "token x", f"Bearer {PASSWORD}", f"token {PASSWORD}", "Basic OmNhbmFyeQ=="):
            assert stranger.get("/api/contents", headers={"Authorization": value}).status_code == 403
        assert stranger.get("/api/contents", params={"token": ""}).status_code == 403
        assert stranger.post("/login", data={"password": PASSWORD}).status_code == 403
        by_address = stranger.post("/login", params={"password": PASSWORD}, data={"_xsrf": stranger.cookies["_xsrf"]})
        assert by_address.status_code == 401
        assert not stranger.logged_in()


def test_a_secret_in_an_address_is_not_in_the_journal(launched: dict[str, dict[str, Any]], machine: Machine) -> None:
    """Also where the login page leads on to that address, and the guess there is wrong."""
    with Visitor(machine, "127.0.0.63") as owner:
        for secret in ("password", "token"):
            there = owner.get("/lab", params={secret: "canary-in-an-address"}).headers["location"]
            assert "canary-in-an-address" in there
            body = {"password": "mistyped", "_xsrf": owner.cookies["_xsrf"]}
            tried = owner.post(there, data=body, headers={"Referer": f"https://{machine.address}:8888{there}"})
            assert tried.status_code == 401
    journal = shell(machine, "journalctl --no-pager -u jupyter.service")
    assert "401 POST /login" in journal
    assert "canary-in-an-address" not in journal


@pytest.mark.parametrize("path", ["/login", "/api/contents", "/nowhere"])
def test_a_stranger_cannot_fill_the_memory_with_a_body(
    launched: dict[str, dict[str, Any]], machine: Machine, path: str
) -> None:
    def sent(size: int, chunked: bool = False, **headers: str) -> int:
        """Status of a POST of so many bytes; 0 when the server would not read them."""
        body = (b"x" * 65536 for _ in range(size // 65536)) if chunked else b"x" * size
        try:
            return stranger.post(path, content=body, headers=headers).status_code
        except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
            return 0

    with Visitor(machine, "127.0.0.69") as stranger:
        assert sent(65536) in (403, 404)
        assert sent(65537) in (0, 400)
        assert sent(65537, Cookie='username-127-0-0-1-8888="2|1:0|10:1|1:a|1:b|c"') in (0, 400)
        assert sent(1_048_576, chunked=True) in (0, 400)


def test_the_owner_uploads_what_jupyter_takes(launched: dict[str, dict[str, Any]], machine: Machine) -> None:
    with Visitor(machine, "127.0.0.70") as owner:
        assert owner.guess(PASSWORD).status_code == 302
        content = {"type": "file", "format": "text", "content": "x" * 5_000_000}
        put = owner.put("/api/contents/long.txt", json=content, headers={"X-XSRFToken": owner.cookies["_xsrf"]})
        assert put.status_code == 201
    shell(machine, "rm /home/jupyter/long.txt")


def test_guesses_are_slowed_by_address_whatever_they_claim_and_over_a_restart(
    launched: dict[str, dict[str, Any]], machine: Machine
) -> None:
    with Visitor(machine, "127.0.0.63") as owner, Visitor(machine, "127.0.0.64") as mallory:
        assert owner.guess(PASSWORD).status_code == 302

        def guess(number: int) -> int:
            return mallory.guess("wrong", **{"X-Forwarded-For": f"192.0.2.{number}"}).status_code

        with ThreadPoolExecutor(50) as pool:
            assert Counter(pool.map(guess, range(100))) == {401: 5, 429: 95}
        refused = mallory.guess(PASSWORD)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert owner.logged_in()
        with Visitor(machine, "127.0.0.65") as elsewhere:
            assert elsewhere.guess(PASSWORD).status_code == 302

        shell(machine, "systemctl restart jupyter.service")
        wait_until(lambda: served_fingerprint(machine.address))
        assert mallory.guess(PASSWORD).status_code == 429
        assert owner.logged_in()


def wait_until(ready: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except (OSError, httpx.HTTPError):
            pass
        assert time.monotonic() < end, "not ready in time"
        time.sleep(0.1)


def test_the_notebooks_user_reaches_neither_root_nor_the_metadata_service(
    launched: dict[str, dict[str, Any]], machine: Machine
) -> None:
    connect = "import socket; socket.create_connection(('169.254.169.254', 80), 3)"
    assert machine.run(["python3", "-c", connect]).exit_code == 0
    assert machine.run(["runuser", "-u", "jupyter", "--", "python3", "-c", connect]).exit_code != 0
    status = shell(machine, f"cat /proc/{main_pid(machine)}/status")
    assert "NoNewPrivs:\t1" in status
    assert re.search(r"^Uid:\t([1-9]\d*)\t\1\t\1\t\1$", status, re.MULTILINE)
    assert machine.run(["runuser", "-u", "jupyter", "--", "touch", "/opt/nod/notebook/x"]).exit_code != 0


def test_a_configuration_file_of_the_user_does_not_open_the_door(
    launched: dict[str, dict[str, Any]], machine: Machine
) -> None:
    hostile = """
c.ServerApp.token = c.IdentityProvider.token = c.OwnerIdentityProvider.token = "x"
c.PasswordIdentityProvider.hashed_password = c.OwnerIdentityProvider.hashed_password = ""
c.ServerApp.identity_provider_class = "jupyter_server.auth.IdentityProvider"
c.ServerApp.disable_check_xsrf = c.ServerApp.allow_unauthenticated_access = c.ServerApp.trust_xheaders = True
c.ServerApp.allow_origin = "*"
c.ServerApp.certfile = ""
c.ServerApp.port = 9999
"""
    for name in ("jupyter_config", "jupyter_server_config", "jupyter_lab_config"):
        machine.write_file(f"/home/jupyter/.jupyter/{name}.py", hostile.encode(), 0o644)
    shell(machine, "systemctl restart jupyter.service")
    try:
        wait_until(lambda: served_fingerprint(machine.address))
        with Visitor(machine, "127.0.0.66") as stranger:
            assert stranger.get("/api/contents", params={"token": "x"}).status_code == 403
            assert stranger.post("/login", data={"password": PASSWORD}).status_code == 403
            foreign = stranger.get("/api", headers={"Origin": "https://evil.example"})
            assert "Access-Control-Allow-Origin" not in foreign.headers
            assert stranger.guess(PASSWORD).status_code == 302
    finally:
        shell(machine, "rm -r /home/jupyter/.jupyter; systemctl restart jupyter.service")


def test_a_heartbeat_tells_what_the_notebook_does(
    launched: dict[str, dict[str, Any]], machine: Machine, outside: Outside
) -> None:
    wait_until(lambda: served_fingerprint(machine.address))
    shell(machine, "systemctl restart nod-monitor.service")
    seen = len(outside.heartbeats)
    wait_until(lambda: len(outside.heartbeats) > seen)
    row = outside.heartbeats[-1]
    values = {name[1:]: next(iter(value.values())) for name, value in row["ExpressionAttributeValues"].items()}
    assert row["Key"] == {"id": {"S": ARN}}
    assert values["answers"] is True
    assert values["address"] == machine.address
    assert values["certificate_sha256"] == served_fingerprint(machine.address)
    assert values["boot_id"] == shell(machine, "tr -d - </proc/sys/kernel/random/boot_id")


def test_an_old_heartbeat_says_nothing_of_a_monitor_that_starts_again(
    launched: dict[str, dict[str, Any]], machine: Machine, parameters: dict[str, str]
) -> None:
    shell(machine, "systemctl stop nod-monitor.service; echo 1 >/run/nod-monitor/accepted")
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert answer(execute(machine, "start-monitor", parameters)) == {"ok": True}
    assert int(shell(machine, "cat /run/nod-monitor/accepted")) >= int(now)


def test_a_new_name_brings_a_new_certificate_and_ends_no_kernel(
    launched: dict[str, dict[str, Any]], machine: Machine, names: dict[str, str]
) -> None:
    wait_until(lambda: served_fingerprint(machine.address))
    before, pid = served_fingerprint(machine.address), main_pid(machine)
    names["public-hostname"] = "ec2-198-51-100-7.compute-1.amazonaws.com"
    shell(machine, "systemctl start nod-certificate.service")
    assert served_fingerprint(machine.address) != before
    assert main_pid(machine) == pid


def test_everything_is_back_after_a_reboot(
    launched: dict[str, dict[str, Any]], machine: Machine, names: dict[str, str], outside: Outside
) -> None:
    names["public-hostname"] = "ec2-192-0-2-9.compute-1.amazonaws.com"
    seen = len(outside.heartbeats)
    machine.reboot()
    wait_until(lambda: served_fingerprint(machine.address))
    shown = shell(machine, "python3 -I /opt/nod/certificate.py --show")
    assert names["public-hostname"] in shown
    assert shown.startswith(served_fingerprint(machine.address))
    with Visitor(machine, "127.0.0.67") as owner:
        assert owner.guess(PASSWORD).status_code == 302
    wait_until(lambda: len(outside.heartbeats) > seen)
    connect = "import socket; socket.create_connection(('169.254.169.254', 80), 3)"
    assert machine.run(["runuser", "-u", "jupyter", "--", "python3", "-c", connect]).exit_code != 0
    assert shell(machine, "systemctl --failed --no-legend") == ""


def test_another_password_replaces_the_first_and_its_sessions(
    launched: dict[str, dict[str, Any]], machine: Machine, parameters: dict[str, str]
) -> None:
    with Visitor(machine, "127.0.0.68") as owner:
        assert owner.guess(PASSWORD).status_code == 302
        other = {**parameters, "PasswordHash": hashed("another-password")}
        assert answer(execute(machine, "configure-notebook", other))["ok"]
        assert not owner.logged_in()
        owner.cookies.clear()
        owner.get("/login")
        assert owner.guess(PASSWORD).status_code == 401
        assert owner.guess("another-password").status_code == 302
    assert answer(execute(machine, "configure-notebook", parameters))["ok"]


def test_a_run_that_comes_late_does_not_bring_the_first_password_back(
    launched: dict[str, dict[str, Any]], machine: Machine, parameters: dict[str, str]
) -> None:
    """SSM may deliver the launch's command again, also after the owner has set another password and beside a third."""
    before = main_pid(machine)
    second, third = ({**parameters, "PasswordHash": hashed(f"chosen-later-{number}")} for number in (2, 3))
    assert answer(execute(machine, "set-password", second)) == {"ok": True}
    assert answer(execute(machine, "configure-notebook", parameters))["ok"]
    assert shell(machine, "cat /etc/nod/password_hash") == second["PasswordHash"]
    with ThreadPoolExecutor() as pool:
        late = [pool.submit(execute, machine, "configure-notebook", parameters) for _ in range(2)]
        assert answer(execute(machine, "set-password", third)) == {"ok": True}
        assert all(answer(run.result())["ok"] for run in late)
    assert shell(machine, "cat /etc/nod/password_hash") == third["PasswordHash"]
    assert main_pid(machine) == before, "a restart would have ended the kernels"
    assert shell(machine, "ls /etc/nod | grep nod-") == ""
    assert answer(execute(machine, "set-password", parameters)) == {"ok": True}


def test_newest_password_wins_whichever_comes_first_and_however_often(
    launched: dict[str, dict[str, Any]], machine: Machine, parameters: dict[str, str]
) -> None:
    """SSM keeps no order, and may deliver a command twice."""
    changes = [{"PasswordHash": hashed(f"chosen-as-{n}th"), "Number": str(n)} for n in (101, 102, 103)]
    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(execute, machine, "set-password", change) for change in (changes[::-1] + changes)]
        assert all(answer(run.result())["ok"] for run in runs)
    assert shell(machine, "cat /etc/nod/password_hash") == changes[-1]["PasswordHash"]
    assert answer(execute(machine, "set-password", changes[0])) == {"ok": True, "overtaken": True}
    with Visitor(machine, "127.0.0.69") as owner:
        assert owner.guess("chosen-as-101th").status_code == 401
        assert owner.guess("chosen-as-103th").status_code == 302
    machine.reboot()
    wait_until(lambda: served_fingerprint(machine.address))
    assert answer(execute(machine, "set-password", changes[1])) == {"ok": True, "overtaken": True}
    last = {**parameters, "Number": "104"}
    assert answer(execute(machine, "set-password", last)) == {"ok": True}


def test_no_secret_is_in_processes_logs_or_files_of_others(
    launched: dict[str, dict[str, Any]], machine: Machine, parameters: dict[str, str]
) -> None:
    hash_part = parameters["PasswordHash"].rsplit("$", 1)[1]
    for secret in (PASSWORD, hash_part, "canary-task-token"):
        assert secret not in shell(machine, "ps -eo args")
        assert secret not in shell(machine, "journalctl --no-pager")
        found = machine.run(["grep", "-rlF", "-e", secret, "/etc", "/var/log/nod", "/run", "/home", "/opt/nod"]).stdout
        assert found.split() == (["/etc/nod/password_hash"] if secret == hash_part else [])
    assert shell(machine, "stat -c '%U:%G %a' /etc/nod/password_hash") == "root:jupyter 640"
    assert shell(machine, "stat -c '%U:%G %a' /etc/nod/tls/notebook.pem") == "root:jupyter 640"


@pytest.mark.parametrize("hostile", ["$(touch /x)", "`touch /x`", "'; touch /x; '", 'a"\nb', "https://h/$(touch /x)"])
@pytest.mark.parametrize(
    ("name", "parameter"),
    [(name, key) for name, document in DOCUMENTS.items() for key in document["parameters"] if key != "TaskToken"],
)
def test_a_hostile_parameter_is_refused_by_the_script_too(
    hostile: str, name: str, parameter: str, machine: Machine, parameters: dict[str, str]
) -> None:
    refused = answer(execute(machine, name, {**parameters, parameter: hostile}))
    assert (refused["ok"], refused["code"]) == (False, "invalid_parameter")
    assert parameter in refused["message"]
    assert shell(machine, "ls /x") == ""


# --- what goes wrong while it installs, on a machine of its own ---


@pytest.fixture(scope="module")
def small(new_machine: Callable[..., Machine], outside: Outside, parameters: dict[str, str]) -> Machine:
    machine = new_machine("i-0d0c0d0c0d0c0d0c1", disk_mib=300)
    assert answer(execute(machine, "prepare-instance", parameters))["ok"]
    return machine


def test_a_disk_too_small_is_seen_before_the_download(
    small: Machine, parameters: dict[str, str], outside: Outside
) -> None:
    outside.ranges.clear()
    refused = answer(execute(small, "install-anaconda", parameters))
    assert refused["code"] == "disk_full"
    assert "volume_gib" in refused["message"]
    assert outside.ranges == []


@pytest.mark.parametrize(
    ("refuses_heads", "knows_ranges", "tells_sizes"),
    [(True, True, True), (True, False, True), (True, True, False), (True, False, False), (False, False, False)],
)
def test_a_disk_too_small_is_seen_whatever_the_server_tells(
    small: Machine,
    parameters: dict[str, str],
    outside: Outside,
    installer: Installer,
    monkeypatch: pytest.MonkeyPatch,
    refuses_heads: bool,
    knows_ranges: bool,
    tells_sizes: bool,
) -> None:
    monkeypatch.setattr(outside, "refuses_heads", refuses_heads)
    monkeypatch.setattr(outside, "knows_ranges", knows_ranges)
    monkeypatch.setattr(outside, "tells_sizes", tells_sizes)
    outside.ranges.clear()
    refused = answer(execute(small, "install-anaconda", parameters))
    assert refused["code"] == "disk_full"
    size = installer.path.stat().st_size if tells_sizes else 1200 * 1024**2
    assert f"needs {size * 9 // 1024**2 + 256} MiB" in refused["message"]
    assert ("1200 MiB assumed" in refused["message"]) is not tells_sizes
    assert outside.ranges == ["bytes=0-0"], "nothing is downloaded"
    assert shell(small, "ls -A /var/cache/nod") == ""


def test_an_installer_with_another_checksum_is_deleted(
    launched: dict[str, dict[str, Any]], machine: Machine, parameters: dict[str, str]
) -> None:
    shell(machine, "systemctl stop jupyter.service")
    wrong = {**parameters, "InstallerSha256": "0" * 64}
    refused = answer(execute(machine, "install-anaconda", wrong))
    assert refused["code"] == "installer_checksum"
    assert parameters["InstallerSha256"] in refused["message"]
    assert shell(machine, "ls -A /var/cache/nod; ls -d /opt/anaconda3") == ""


def test_an_address_without_installer_is_named(machine: Machine, parameters: dict[str, str]) -> None:
    missing = {**parameters, "InstallerUrl": parameters["InstallerUrl"] + "x"}
    refused = answer(execute(machine, "install-anaconda", missing))
    assert refused["code"] == "installer_download"
    assert "404" in refused["message"]


def test_sigterm_ends_an_installation_and_the_next_one_resumes_the_download(
    machine: Machine, parameters: dict[str, str], outside: Outside, installer: Installer
) -> None:
    outside.ranges.clear()
    outside.cut_after = installer.path.stat().st_size // 2
    with ThreadPoolExecutor() as pool:
        running = pool.submit(execute, machine, "install-anaconda", parameters)
        wait_until(lambda: outside.ranges)
        time.sleep(0.5)
        shell(machine, "pkill -TERM -o -f scripts/install-anaconda.sh")
        ended = answer(running.result(timeout=30))
    outside.cut_after = None
    assert ended["code"] == "installer_failed"
    assert "stopped from outside" in ended["message"]
    done = answer(execute(machine, "install-anaconda", parameters))
    assert done["ok"]
    assert outside.ranges[0] is None
    assert all(outside.ranges[1:])
    assert answer(execute(machine, "configure-notebook", parameters))["ok"]
