"""The activity monitor on a real machine with a real JupyterLab: what it says while people and programs work.

A minute lasts a second here, so heartbeats come each second, or each four while nothing happens.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import argon2
import httpx
import pytest
from boto3.dynamodb.types import TypeDeserializer
from playwright.sync_api import Page, sync_playwright

from instance import build
from local.installer import Installer
from local.machines import Completed, Machine, Machines
from tests.local.person import log_in, wait_until

pytestmark = pytest.mark.machine

DOCUMENTS = build.documents()
INSTANCE_ID = "i-0a1b2c3d4e5f6a7b8"
PASSWORD = "signals-correct-horse"
DRIVE = Path(__file__).with_name("drive.py")
PYTHON = "/opt/anaconda3/bin/python"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}


def hashed(password: str) -> str:
    return "argon2:" + argon2.PasswordHasher(memory_cost=10240, time_cost=10, parallelism=8).hash(password)


class Table:
    """DynamoDB for one row, and the installer's server, at 127.0.0.1:AWS_PORT of the machine.

    Its clock may be another than the machine's. As DynamoDB it takes nothing that is signed for a time 5 minutes off.
    """

    def __init__(self, port: int, installer: Path) -> None:
        self.ahead = 0.0
        self.refused = 0
        self.row: dict[str, Any] = {}
        self.answer: dict[str, Any] = {}
        self.beats = 0
        table = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                return

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(time.time() + table.ahead, usegmt=True)

            def do_POST(self) -> None:
                update = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                signed = datetime.strptime(self.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                if abs(signed.timestamp() - time.time() - table.ahead) > 300:
                    table.refused += 1
                    words = {"__type": "com.amazon.coral.service#InvalidSignatureException", "message": "Signature…"}
                    self._send(json.dumps(words).encode(), 400)
                    return
                values = {name[1:]: value for name, value in update["ExpressionAttributeValues"].items()}
                read = TypeDeserializer()
                table.row = {name: read.deserialize(value) for name, value in values.items()}
                table.beats += 1
                self._send(json.dumps({"Attributes": {**values, **table.answer}}).encode())

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                self._send(installer.read_bytes())

            def _send(self, body: bytes, status: int = 200) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def until(self, says: Callable[[dict[str, Any]], Any], what: str, seconds: float = 120) -> dict[str, Any]:
        """The first row, written from now on, that says so."""
        seen = self.beats
        wait_until(lambda: self.beats > seen and says(self.row), seconds, lambda: f"{what}: {self.row}")
        return self.row

    def holds(self, says: Callable[[dict[str, Any]], Any], what: str, seconds: float) -> None:
        """Each row of so many seconds says so."""
        end, seen = time.monotonic() + seconds, self.beats
        while time.monotonic() < end or self.beats == seen:
            assert says(self.row), f"{what}: {self.row}"
            assert time.monotonic() < end + 120, "no heartbeat"
            time.sleep(0.2)


def age(row: dict[str, Any], signal: str) -> float:
    return float(row["ages"].get(signal, 1e9))


@pytest.fixture(scope="module")
def table(aws_port: int, installer: Installer) -> Iterator[Table]:
    made = Table(aws_port, installer.path)
    yield made
    made.close()


def execute(machine: Machine, name: str, **given: str) -> dict[str, Any]:
    """Runs a document as the agent does."""
    script = "\n".join(DOCUMENTS[name]["mainSteps"][0]["inputs"]["runCommand"]) + "\n"
    path = f"/root/{name}-{time.monotonic_ns()}.sh"
    machine.write_file(path, script.encode(), 0o700)
    defaults = {key: entry["default"] for key, entry in DOCUMENTS[name]["parameters"].items() if "default" in entry}
    environment = {f"SSM_{key}": value for key, value in {**defaults, **given}.items()}
    done = machine.run(["sh", "-c", path], env={**ENVIRONMENT, **environment}, timeout=300)
    (line,) = done.stdout.splitlines()
    return dict(json.loads(line))


def shell(machine: Machine, command: str) -> str:
    done: Completed = machine.run(["bash", "-c", command], timeout=60)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def machine(
    machines: Machines, new_address: Callable[[], str], table: Table, installer: Installer, aws_port: int
) -> Machine:
    """A notebook, launched by the documents."""
    address = new_address()
    keys = {"AccessKeyId": "AKID", "SecretAccessKey": "secret", "Token": "token"}
    identity = {"region": "us-east-1", "accountId": "123456789012", "instanceId": INSTANCE_ID}
    metadata = {
        "latest/meta-data/public-ipv4": address,
        "latest/meta-data/iam/security-credentials/": "nod",
        "latest/meta-data/iam/security-credentials/nod": json.dumps(keys),
        "latest/dynamic/instance-identity/document": json.dumps(identity),
    }
    made = machines.create(INSTANCE_ID, address, lambda path: metadata.get(path.lstrip("/")))
    made.boot()
    made.write_file(
        "/etc/systemd/system/nod-monitor.service.d/test.conf",
        b"[Service]\nEnvironment=NOD_MINUTE_SECONDS=1\n",
        0o644,
    )
    assert execute(made, "prepare-instance")["ok"]
    url = f"http://127.0.0.1:{aws_port}/installer.sh"
    with ThreadPoolExecutor() as pool:
        install = pool.submit(execute, made, "install-anaconda", InstallerUrl=url, InstallerSha256=installer.sha256)
        assert execute(made, "configure-tls")["ok"]
        assert execute(made, "start-monitor", HeartbeatsTable="nod-local-heartbeats", Region="us-east-1") == {
            "ok": True
        }
        assert install.result()["ok"]
    assert execute(made, "configure-notebook", PasswordHash=hashed(PASSWORD))["ok"]
    made.write_file("/root/drive.py", DRIVE.read_bytes())
    return made


@pytest.fixture(scope="module")
def page(machine: Machine) -> Callable[..., Any]:
    """What somebody at a page does: see drive.py."""

    def do(*requests: dict[str, Any]) -> list[Any]:
        lines = "\n".join(json.dumps(request) for request in requests) + "\n"
        machine.write_file("/root/requests", lines.encode())
        done = machine.run(["sh", "-c", f"{PYTHON} /root/drive.py {PASSWORD} </root/requests"], timeout=60)
        assert done.exit_code == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return do


@pytest.fixture
def kernel(page: Callable[..., Any]) -> Iterator[str]:
    (kernel_id,) = page({"do": "kernel"})
    yield kernel_id
    page({"do": "ask", "method": "DELETE", "path": f"/api/kernels/{kernel_id}"})


@pytest.fixture
def terminal(page: Callable[..., Any]) -> Iterator[str]:
    (made,) = page({"do": "ask", "method": "POST", "path": "/api/terminals"})
    yield made["name"]
    page({"do": "ask", "method": "DELETE", "path": f"/api/terminals/{made['name']}"})


def test_an_idle_notebook_is_known_and_idle(machine: Machine, table: Table) -> None:
    row = table.until(lambda row: row["answers"] and not row["unknown"], "all is known")
    assert row["version"] == "2"
    assert row["address"] == machine.address
    assert row["certificate_valid"] is True
    assert row["boot_id"] == shell(machine, "tr -d - </proc/sys/kernel/random/boot_id")
    assert 0 < row["uptime"] <= float(shell(machine, "cut -d ' ' -f 1 /proc/uptime"))
    assert row["facts"]["kernels"] == {"busy": 0, "waiting": 0, "idle": 0}
    assert set(row["ages"]) <= {"input", "cpu", "disk"}
    assert "gpu_percent" not in row["facts"]


@pytest.fixture(scope="module")
def chromium_page(machine: Machine) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        window = browser.new_context(ignore_https_errors=True).new_page()
        window.goto(f"https://{machine.address}:8888/lab")
        window.fill("input[name=password]", PASSWORD)
        window.click("button[type=submit]")
        window.wait_for_selector("#jp-main-dock-panel", timeout=60_000)
        yield window
        browser.close()


def test_an_open_window_is_a_browser_and_no_activity(chromium_page: Page, table: Table) -> None:
    row = table.until(lambda row: age(row, "input") >= 5 and age(row, "browser") <= 1, "somebody looks")
    assert row["facts"]["browsers"] == {"visible": 1, "hidden": 0}
    table.until(lambda row: age(row, "input") >= 12 and age(row, "browser") <= 1, "the page polls", 120)
    # What a browser tells a page that is in the background; headless ones have none. Its websockets stay.
    chromium_page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", {get: () => true});
            Object.defineProperty(document, "visibilityState", {get: () => "hidden"});
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )


def test_a_silent_cell_is_work_until_it_ends(page: Callable[..., Any], kernel: str, table: Table) -> None:
    page({"do": "run", "kernel": kernel, "code": "import time; time.sleep(5)", "until": "busy"})
    table.until(lambda row: age(row, "kernel") <= 1 and row["facts"]["kernels"]["busy"] == 1, "busy")
    row = table.until(lambda row: age(row, "input") >= 3, "the page is gone")
    assert age(row, "kernel") <= 2
    row = table.until(lambda row: age(row, "kernel") >= 3 and row["facts"]["kernels"]["idle"] == 1, "it ends")


BESIDE = """
import json, sys, uuid
from drive import Page

page, kernel = Page(sys.argv[1]), sys.argv[2]
channel = page.socket(f"/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}")

def ask(kind, content, until, on="shell", **more):
    header = {"msg_id": uuid.uuid4().hex, "session": "s", "username": "", "version": "5.3", "msg_type": kind, **more}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": on, "buffers": []}
    channel.send(json.dumps(message))
    while True:
        answer = json.loads(channel.recv())
        seen = answer["msg_type"], answer["content"].get("execution_state")
        if answer["parent_header"].get("msg_id") == header["msg_id"] and until in seen:
            return answer["content"]

def run(code, until, **more):
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    ask("execute_request", content, until, **more)

run("from comm import create_comm; create_comm(target_name='t'); import time; time.sleep(600)", "comm_open")
beside = ask("create_subshell_request", {}, "create_subshell_reply", on="control")["subshell_id"]
run("1 + 1", "idle", subshell_id=beside)
ask("comm_msg", {"comm_id": "x", "data": {}}, "idle", subshell_id=beside)
print(page.ask("GET", f"/api/kernels/{kernel}")["execution_state"])
"""
"""A cell that makes a widget and is silent then, and what JupyterLab asks beside it."""


def test_a_cell_works_on_whatever_is_asked_beside_it_and_ends_with_its_kernel(
    machine: Machine, kernel: str, table: Table
) -> None:
    machine.write_file("/root/beside.py", BESIDE.encode())
    assert shell(machine, f"cd /root; {PYTHON} beside.py {PASSWORD} {kernel}") == "idle", "the server is misled"
    table.until(lambda row: age(row, "input") >= 3, "the page is gone")
    table.holds(lambda row: row["facts"]["kernels"]["busy"] == 1 and age(row, "kernel") <= 1, "it works on", 2)
    shell(machine, "pkill -KILL -u jupyter -f ipykernel_launcher")
    table.until(lambda row: row["facts"]["kernels"] == {"busy": 0, "waiting": 0, "idle": 1}, "its kernel was killed")


@pytest.mark.parametrize("before", ["", "import time; time.sleep(1.5); "], ids=["seen", "unseen"])
def test_a_cell_that_waits_for_input_is_none(page: Callable[..., Any], kernel: str, table: Table, before: str) -> None:
    until = "busy" if before else "input_request"
    page({"do": "run", "kernel": kernel, "code": f"{before}input()", "until": until})
    table.until(lambda row: row["facts"]["kernels"]["waiting"] == 1, "it waits")
    table.until(lambda row: age(row, "kernel") >= 3, "it ages")


def test_a_detached_child_is_seen_by_its_cpu(
    machine: Machine, page: Callable[..., Any], kernel: str, table: Table
) -> None:
    code = "import subprocess; subprocess.Popen(['python', '-c', 'while True: pass'], start_new_session=True)"
    page({"do": "run", "kernel": kernel, "code": code, "until": "idle"})
    row = table.until(lambda row: age(row, "input") >= 4 and age(row, "cpu") <= 1, "it computes")
    assert row["facts"]["kernels"]["busy"] == 0
    assert "python" in row["facts"]["busiest"]
    assert row["facts"]["cpu_cores"] > 0
    shell(machine, "pkill -u jupyter -f 'while True: pass'")
    table.until(lambda row: age(row, "cpu") >= 3, "it has ended")


PRINTING_THREAD = """
import threading, time
def beat():
    while True:
        print("alive")
        time.sleep(0.5)
threading.Thread(target=beat, daemon=True).start()
"""


def test_a_thread_that_prints_is_no_work(page: Callable[..., Any], kernel: str, table: Table) -> None:
    page({"do": "run", "kernel": kernel, "code": PRINTING_THREAD, "until": "idle"})
    row = table.until(lambda row: age(row, "input") >= 5, "the page is gone")
    assert min(age(row, signal) for signal in ("kernel", "terminal", "cpu", "disk", "network", "gpu")) >= 3


BY_A_PAGE = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
"""As browsers say it of what a page of this very server asks."""


def notebook(source: str, outputs: int) -> dict[str, Any]:
    output = {"output_type": "stream", "name": "stdout", "text": "alive"}
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": 1, "source": source}
    content = {"cells": [{**cell, "outputs": [output] * outputs}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return {"type": "notebook", "format": "json", "content": content}


def acted_at(row: dict[str, Any]) -> float:
    """When a person did something last, in seconds since boot."""
    return float(row["uptime"]) - age(row, "input")


def quiet(table: Table) -> dict[str, Any]:
    """A row that knows that nobody has done anything for a while: what is told is some seconds old."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return table.until(lambda row: row["uptime"] >= now + 6 and age(row, "input") >= 4, "nobody does anything")


@pytest.fixture
def person(machine: Machine) -> Iterator[httpx.Client]:
    with closing(log_in(f"https://{machine.address}:8888", PASSWORD, "127.0.0.83")) as session:
        session.headers["X-XSRFToken"] = session.cookies["_xsrf"]
        yield session


def put(person: httpx.Client, path: str, model: dict[str, Any], headers: dict[str, str] | None = None) -> None:
    assert person.put(path, json=model, headers=headers).is_success


@pytest.mark.long
def test_a_save_is_input_when_a_page_saved_what_a_person_writes(person: httpx.Client, table: Table) -> None:
    text = {"type": "file", "format": "text", "content": "x"}
    put(person, "/api/contents/a%20notebook.ipynb", notebook("1", 0))
    for path, model, headers, is_input in (
        ("a%20notebook.ipynb", notebook("1", 1), BY_A_PAGE, False),
        ("a%20notebook.ipynb", notebook("1 + 1", 1), BY_A_PAGE, True),
        ("notes.md", text, None, False),
        ("notes.md", text, BY_A_PAGE, True),
    ):
        before = quiet(table)
        put(person, f"/api/contents/{path}", model, headers)
        since = before["uptime"] + 5
        row = table.until(lambda row, since=since: row["uptime"] >= since, "heartbeats after it")
        assert (acted_at(row) > acted_at(before) + 3) is is_input, (path, headers, before, row)


def test_typing_is_seen_by_what_jupyterlab_saves_by_itself_and_printing_is_not(
    machine: Machine, person: httpx.Client, chromium_page: Page, table: Table
) -> None:
    settings = {"raw": json.dumps({"autosaveInterval": 2})}
    put(person, "/lab/api/settings/@jupyterlab/docmanager-extension:plugin", settings)
    put(person, "/api/contents/written.md", {"type": "file", "format": "text", "content": ""})
    put(person, "/api/contents/printing.ipynb", notebook(PRINTING_THREAD, 0))
    # Else the page asks which kernel it shall take, now and then.
    session = {"path": "printing.ipynb", "name": "printing", "type": "notebook", "kernel": {"name": "python3"}}
    assert person.post("/api/sessions", json=session).is_success
    window = chromium_page.context.new_page()

    def type_into(file: str, editor: str, text: str) -> None:
        before = quiet(table)
        shown = window.locator(f"{editor} .cm-content").last

        def is_typed() -> bool:
            # A page that is still being built may take the focus away.
            if text not in shown.inner_text():
                shown.click()
                window.keyboard.type(text)
            return text in shown.inner_text()

        wait_until(is_typed, 60, "the editor does not take what is typed")
        wait_until(lambda: text in shell(machine, f"cat /home/jupyter/{file}"), 180, "JupyterLab does not save it")
        table.until(lambda row: acted_at(row) > acted_at(before) + 3, "somebody wrote")

    try:
        window.goto(f"https://{machine.address}:8888/lab/tree/written.md")
        window.locator(".jp-FileEditor .cm-content").click(timeout=60_000)
        type_into("written.md", ".jp-FileEditor", "It was a dark and stormy night.")

        window.goto(f"https://{machine.address}:8888/lab/tree/printing.ipynb")
        window.locator(".jp-Notebook .cm-content").first.click(timeout=60_000)
        window.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
        window.keyboard.press("Shift+Enter")
        before = quiet(table)
        saved_at = "stat -c %Y /home/jupyter/printing.ipynb"
        # It saves the more rarely the longer a save takes.
        wait_until(lambda: time.time() - int(shell(machine, saved_at)) < 4, 180, "JupyterLab does not save the output")
        row = table.until(lambda row: row["uptime"] >= before["uptime"] + 6, "heartbeats after it")
        assert acted_at(row) <= acted_at(before) + 1
        type_into("printing.ipynb", ".jp-Notebook", "and then")
    finally:
        window.close()
        for kernel in person.get("/api/kernels").json():
            assert person.delete(f"/api/kernels/{kernel['id']}").is_success


@pytest.mark.parametrize("program", ["sleep 60", "sh -c 'while sleep 1; do echo x; done'"], ids=["silent", "printing"])
def test_a_command_in_a_terminal_is_work(page: Callable[..., Any], terminal: str, table: Table, program: str) -> None:
    page({"do": "type", "terminal": terminal, "text": f"{program}\r"})
    table.until(lambda row: row["facts"]["terminals"]["foreground"] == 1, "it runs")
    table.until(lambda row: age(row, "input") >= 2 and age(row, "terminal") <= 1, "it goes on")
    page({"do": "type", "terminal": terminal, "text": "\x03"})
    row = table.until(lambda row: row["facts"]["terminals"]["quiet"] == 1, "it was ended")
    assert row["facts"]["terminals"]["foreground"] == 0


def test_a_command_that_waits_for_keys_is_none(page: Callable[..., Any], terminal: str, table: Table) -> None:
    raw = "python3 -c 'import tty, time; tty.setraw(0); time.sleep(99)'"
    for program, end in (("cat", "\x04"), ("tail -f /etc/hostname | cat", "\x03"), ("python3 -i", "\x04"), (raw, "")):
        page({"do": "type", "terminal": terminal, "text": f"{program}\r"})
        row = table.until(lambda row: row["facts"]["terminals"]["waiting"] == 1, f"{program} waits")
        assert row["facts"]["terminals"]["foreground"] == 0
        if end:
            page({"do": "type", "terminal": terminal, "text": end})
            table.until(lambda row: row["facts"]["terminals"]["quiet"] == 1, f"{program} has ended")


def test_typing_in_a_session_that_is_not_jupyters_is_input(machine: Machine, table: Table) -> None:
    """As sshd and Session Manager do: a pseudo-terminal, and a login shell of an ordinary user in it."""
    typist = """
import os, pty, sys, time
pid, master = pty.fork()
if pid == 0:
    os.execvp("runuser", ["runuser", "-u", "jupyter", "--", "bash", "-i"])
time.sleep(1)
for second in range(600):
    if os.path.exists("/run/type"):
        os.write(master, b"x")
    if os.path.exists("/run/leave"):
        break
    time.sleep(1)
os.close(master)
"""
    machine.write_file("/root/typist.py", typist.encode())
    shell(machine, "rm -f /run/type /run/leave; setsid python3 /root/typist.py >/dev/null 2>&1 </dev/null &")
    try:
        table.until(lambda row: row["facts"]["terminals"]["quiet"] == 1 and age(row, "input") >= 3, "a quiet session")
        shell(machine, "touch /run/type")
        # The kernel keeps the time of typing in steps of 8 seconds.
        table.until(lambda row: age(row, "input") <= 1, "typing")
    finally:
        shell(machine, "touch /run/leave")
    table.until(lambda row: row["facts"]["terminals"]["quiet"] == 0, "the session has ended")


APP = """
import random, tornado.ioloop, tornado.web, tornado.websocket

class Form(tornado.web.RequestHandler):
    def get(self):
        self.write("<form method=post><button>Click</button></form>")
    def post(self):
        self.set_status(random.choice([200, 422]))
    def put(self):
        self.write("{}")

class Socket(tornado.websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message)

tornado.web.Application([("/socket", Socket), ("/.*", Form)]).listen(8050, "127.0.0.1")
tornado.ioloop.IOLoop.current().start()
"""
"""A small app, as people write them."""

MESSAGES = """
import random, sys, time
from drive import Page

random.seed(1)
channel = Page(sys.argv[1]).socket("/proxy/8050/socket")
time.sleep(6)
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    if sys.argv[2] == "page":
        channel.send("ping")
        time.sleep(0.5)
    else:
        channel.send('{"choose": %d}' % random.randrange(9))
        time.sleep(random.uniform(0.1, 2.5))
channel.close()
"""
"""What a page sends through the websocket of the app: by itself, or because somebody does something."""


@pytest.fixture(scope="module")
def app(machine: Machine) -> Iterator[str]:
    """The path of an app behind jupyter-server-proxy."""
    machine.write_file("/home/jupyter/app.py", APP.encode(), 0o644)
    machine.write_file("/root/messages.py", MESSAGES.encode())
    run = f"cd /home/jupyter; runuser -u jupyter -- setsid {PYTHON} app.py >/dev/null 2>&1 </dev/null & echo $!"
    pid = shell(machine, run)
    yield "/proxy/8050/"
    # The last test here ends the machine.
    if machine.running:
        shell(machine, f"kill {pid}; pkill -u jupyter -f app.py")


@pytest.mark.parametrize(
    ("clicks", "by_script", "polling"), [(40, 16, 14), pytest.param(157, 40, 20, marks=pytest.mark.long)]
)
def test_who_clicks_in_an_app_is_there_and_a_tab_that_polls_is_nobody(
    person: httpx.Client, app: str, table: Table, clicks: int, by_script: int, polling: int
) -> None:
    wait_until(lambda: person.get(app).status_code == 200, 60, "the app does not answer")
    form = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1"}
    for click in range(clicks):
        person.post(app, data={"n": str(click)}, headers=form)
        time.sleep(0.15)
        if click > 20:
            assert age(table.row, "input") <= 4, f"after {click} clicks: {table.row}"
    random.seed(5)
    for click in range(by_script):
        person.put(app + "api", json={"n": click}, headers=BY_A_PAGE)
        time.sleep(random.uniform(0.05, 1.5))
        if click > 10:
            assert age(table.row, "input") <= 6, f"after {click} clicks by script: {table.row}"
    began, polled = time.monotonic(), 0
    while time.monotonic() - began < polling:
        person.get(app + "tick", headers=BY_A_PAGE)
        person.put(app + "interval", json={"n": polled}, headers=BY_A_PAGE)
        polled += 1
        time.sleep(0.5)
    row = table.until(lambda row: True, "another heartbeat")
    assert age(row, "input") >= 10, "a page that polls is nobody"


@pytest.mark.long
def test_who_sends_messages_to_an_app_is_there_and_a_page_that_keeps_its_socket_alive_is_nobody(
    machine: Machine, app: str, table: Table
) -> None:

    def send(who: str, seconds: int) -> None:
        done = machine.run(["sh", "-c", f"cd /root; {PYTHON} messages.py {PASSWORD} {who} {seconds}"], timeout=90)
        assert done.exit_code == 0, done.stderr

    with ThreadPoolExecutor() as pool:
        page = pool.submit(send, "page", 30)
        table.until(lambda row: age(row, "input") <= 4, "the login")
        # The first ones are new, and what is new counts.
        table.until(lambda row: age(row, "input") >= 12 or page.done(), f"pings are nobody: {app}")
        assert age(table.row, "input") >= 12
        page.result()
        person = pool.submit(send, "person", 20)
        table.until(lambda row: age(row, "input") >= 4, "the login is past")
        table.until(lambda row: age(row, "input") <= 1, "somebody sends something")
        while not person.done():
            assert age(table.row, "input") <= 8, table.row
            time.sleep(0.5)
        person.result()


def test_a_cell_whose_command_asks_waits(page: Callable[..., Any], kernel: str, table: Table) -> None:
    page({"do": "run", "kernel": kernel, "code": "open('x', 'w').close()\n!rm -i x", "until": "busy"})
    table.until(lambda row: row["facts"]["kernels"]["waiting"] == 1, "it asks")
    table.until(lambda row: age(row, "kernel") >= 4 and age(row, "terminal") >= 4, "it ages")


SERVES = "import http.server as h; h.HTTPServer(('127.0.0.1', 8123), h.SimpleHTTPRequestHandler).serve_forever()"


def test_a_server_that_nobody_calls_waits_in_a_cell_and_in_a_terminal(
    machine: Machine, page: Callable[..., Any], kernel: str, terminal: str, table: Table
) -> None:
    page({"do": "run", "kernel": kernel, "code": SERVES, "until": "busy"})
    table.until(lambda row: row["facts"]["kernels"]["waiting"] == 1, "nobody calls it in its cell")
    page({"do": "type", "terminal": terminal, "text": "python3 -m http.server 8124\r"})
    table.until(lambda row: row["facts"]["terminals"]["waiting"] == 1, "nobody calls it in its terminal")
    table.until(lambda row: age(row, "kernel") >= 4 and age(row, "terminal") >= 4, "they age")
    # One that asks and does not hear the answer: the connection stays.
    shell(machine, "exec 3<>/dev/tcp/127.0.0.1/8124; setsid sleep 12 <&3 >/dev/null 2>&1 & disown; sleep 0.1")
    table.until(lambda row: row["facts"]["terminals"]["foreground"] == 1, "somebody calls it")


BREAKPOINT = """
import itertools, json, sys, time, uuid
from drive import Page

page, kernel = Page(sys.argv[1]), sys.argv[2]
channel = page.socket(f"/api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}")
numbers = itertools.count(1)

def ask(kind, content, on, until):
    header = {"msg_id": uuid.uuid4().hex, "session": "s", "username": "", "version": "5.3", "msg_type": kind}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": on, "buffers": []}
    channel.send(json.dumps(message))
    while True:
        answer = json.loads(channel.recv())
        if until(answer, header["msg_id"]):
            return answer["content"]

def debug(command, **arguments):
    content = {"seq": next(numbers), "type": "request", "command": command, "arguments": arguments}
    return ask("debug_request", content, "control", lambda answer, asked: answer["msg_type"] == "debug_reply")

code = "a = 1\\nb = 2\\nc = 3\\n"
debug("initialize", clientID="t", adapterID="", pathFormat="path", linesStartAt1=True, columnsStartAt1=True)
debug("attach")
source = {"path": debug("dumpCell", code=code)["body"]["sourcePath"]}
debug("setBreakpoints", breakpoints=[{"line": 2}], source=source, sourceModified=False)
debug("configurationDone")
run = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
stopped = lambda answer, asked: answer["msg_type"] == "debug_event" and answer["content"]["event"] == "stopped"
thread = ask("execute_request", run, "shell", stopped)["body"]["threadId"]
if sys.argv[3] == "stop":
    time.sleep(0.5)
    print("stands")
else:
    debug("continue", threadId=thread)
    time.sleep(1)
    print("went on")
"""
"""A cell that JupyterLab's debugger stops in its second line."""


def test_a_cell_at_a_breakpoint_waits(machine: Machine, kernel: str, table: Table) -> None:
    machine.write_file("/root/breakpoint.py", BREAKPOINT.encode())
    command = f"cd /root; {PYTHON} breakpoint.py {PASSWORD} {kernel}"
    assert shell(machine, f"{command} stop") == "stands"
    table.until(lambda row: row["facts"]["kernels"]["waiting"] == 1, "it stands there")
    table.until(lambda row: age(row, "kernel") >= 4, "it ages")


def test_a_batch_run_is_work_until_it_ends(machine: Machine, table: Table) -> None:
    """Silent, detached, and of no kernel that the server knows."""
    cells = notebook("import time; time.sleep(600)", 0)["content"]
    machine.write_file("/home/jupyter/batch.ipynb", json.dumps(cells).encode(), 0o644)
    execute = "/opt/anaconda3/bin/jupyter nbconvert --to notebook --execute batch.ipynb --output done"
    shell(
        machine,
        f"cd /home/jupyter; runuser -u jupyter -- env HOME=/home/jupyter setsid nohup {execute} "
        ">/dev/null 2>&1 </dev/null & disown",
    )
    try:
        table.until(lambda row: row["facts"]["kernels"]["busy"] == 1, "it runs")
        # Until it has started its kernel, it computes.
        table.until(lambda row: age(row, "cpu") >= 5, "it is silent")
        table.holds(lambda row: age(row, "kernel") <= 1, "it goes on", 3)
    finally:
        shell(machine, "pkill -u jupyter -f 'nbconvert.*batch.ipynb'; pkill -u jupyter -f ipykernel_launcher")
    table.until(lambda row: row["facts"]["kernels"]["busy"] == 0 and age(row, "kernel") >= 2, "it has ended")


def test_when_the_users_own_jobs_are_due_is_told(machine: Machine, table: Table) -> None:
    machine.run(["mkdir", "-p", "/var/spool/cron/crontabs"])
    machine.write_file("/var/spool/cron/crontabs/jupyter", b"0 3 * * * /home/jupyter/backup.sh --key secret\n", 0o600)
    wants = "/home/jupyter/.config/systemd/user/timers.target.wants"
    shell(machine, f"runuser -u jupyter -- mkdir -p {wants}")
    machine.write_file(f"{wants}/../report.timer", b"[Timer]\nOnCalendar=*-*-* 04:00:00\n", 0o644)
    shell(machine, f"ln -s ../report.timer {wants}/report.timer")
    try:
        row = table.until(lambda row: len(row["facts"].get("due_jobs", [])) == 2, "both are told", 60)
        found = {job["name"]: (job["what"], job["at"][11:]) for job in row["facts"]["due_jobs"]}
        assert found == {"backup.sh": ("cron", "03:00:00Z"), "report": ("timer", "04:00:00Z")}
    finally:
        shell(machine, f"rm -r /var/spool/cron/crontabs/jupyter {wants}/report.timer")


def test_who_only_asks_is_nobody(machine: Machine, table: Table) -> None:
    """A prober with a login, as monitors and the culler's own check are."""
    with closing(log_in(f"https://{machine.address}:8888", PASSWORD, "127.0.0.80")) as prober:
        table.until(lambda row: age(row, "input") >= 2, "the login is past")
        before = table.row
        end = time.monotonic() + 4
        while time.monotonic() < end:
            for path in ("/api/kernels", "/api/status", "/api/sessions", "/api/contents", "/api/terminals"):
                assert prober.get(path).status_code == 200
            time.sleep(0.2)
        row = table.until(lambda row: row["beat"] > before["beat"], "another heartbeat")
    assert age(row, "input") >= 5
    assert row["facts"]["browsers"]["visible"] + row["facts"]["browsers"]["hidden"] == 1, "Chromium's alone"


def test_a_window_that_was_hidden_is_none(chromium_page: Page, table: Table) -> None:
    table.until(lambda row: row["facts"]["browsers"] == {"visible": 0, "hidden": 1}, "it is hidden", 120)
    table.until(lambda row: age(row, "browser") >= 3, "it ages")


def test_the_monitor_goes_on_after_it_was_killed(machine: Machine, table: Table) -> None:
    before = table.row
    old = shell(machine, "systemctl show -P MainPID nod-monitor.service")
    shell(machine, f"kill -KILL {old}")
    row = table.until(lambda row: row["beat"] > before["beat"] + 1, "it beats again", 120)
    assert shell(machine, "systemctl show -P MainPID nod-monitor.service") != old
    assert age(row, "input") >= age(before, "input")
    assert row["boot_id"] == before["boot_id"]


def test_a_wrong_clock_costs_no_heartbeat(table: Table) -> None:
    """Machines here have the host's clock, which nobody may set: it is DynamoDB's that steps, which looks the same."""
    try:
        for ahead in (12 * 3600.0, -400 * 86400.0, 0.0):
            refused, table.ahead = table.refused, ahead
            row = table.until(lambda row: True, "it is signed for the right time", 30)
            at = datetime.fromisoformat(row["at"]).timestamp()
            assert abs(at - time.time() - ahead) < 10, "and dated by it"
            assert table.refused == refused + 1
    finally:
        table.ahead = 0.0


def used(machine: Machine, pid: str) -> float:
    """Core-seconds of a process and of all that it has started and seen end (proc(5): utime, stime, cutime, cstime)."""
    ticks = shell(machine, f"cut -d ' ' -f 14-17 /proc/{pid}/stat").split()
    return sum(int(number) for number in ticks) / os.sysconf("SC_CLK_TCK")


def restart(machine: Machine, minute: str) -> None:
    shell(machine, f"sed -i s/=[0-9.]*$/={minute}/ /etc/systemd/system/nod-monitor.service.d/test.conf")
    shell(machine, "systemctl daemon-reload; systemctl restart nod-monitor.service")


@pytest.mark.long
def test_the_monitor_is_small_and_cheap(machine: Machine, page: Callable[..., Any], kernel: str, table: Table) -> None:
    """In the rhythm that is deployed, with a heartbeat a minute, since a kernel is busy: less than 1 % of a core.

    With all that it starts (nft), probes of the notebook, the metadata service and heartbeats; over 65 seconds.
    """
    page({"do": "run", "kernel": kernel, "code": "import time; time.sleep(300)", "until": "busy"})
    restart(machine, "60")
    try:
        table.until(lambda row: True, "it has begun")
        pid = shell(machine, "systemctl show -P MainPID nod-monitor.service")
        beats, before, began = table.beats, used(machine, pid), time.monotonic()
        time.sleep(65)
        share = (used(machine, pid) - before) / (time.monotonic() - began)
        print(f"the monitor uses {share:.2%} of a core")
        assert table.beats > beats
        assert 0 < share < 0.01, f"{share:.2%} of a core"
        lines = shell(machine, f"cat /proc/{pid}/status").splitlines()
        assert int(dict(line.split(":", 1) for line in lines if ":" in line)["VmHWM"].split()[0]) < 40 * 1024
    finally:
        restart(machine, "1")


def test_a_probe_finds_a_monitor_that_beats_and_restarts_one_that_does_not(machine: Machine, table: Table) -> None:
    boot_id = shell(machine, "tr -d - </proc/sys/kernel/random/boot_id")
    assert execute(machine, "probe-monitor") == {"ok": True, "monitor": "beats", "boot_id": boot_id}
    shell(machine, "systemctl stop nod-monitor.service")
    assert execute(machine, "probe-monitor") == {"ok": True, "monitor": "restarted", "boot_id": boot_id}


def test_a_new_password_ends_logins_and_no_kernel(
    machine: Machine, kernel: str, chromium_page: Page, table: Table
) -> None:
    address = f"https://{machine.address}:8888"
    pid = shell(machine, "systemctl show -P MainPID jupyter.service")
    other = hashed("another-correct-horse")
    with closing(log_in(address, PASSWORD, "127.0.0.81")) as owner:
        assert owner.get("/api/status").status_code == 200
        # Where the server says which password counts, its user may write anything, and put nothing that never answers.
        counts = "/run/nod-password/counts"
        shell(machine, f"runuser -u jupyter -- sh -c 'rm -f {counts}; mkfifo {counts}; seq 99999 >{counts}'")
        assert shell(machine, f"stat -c '%F %U' {counts}; head -n 1 {counts}") == "regular file jupyter\n1"
        assert execute(machine, "set-password", PasswordHash=other) == {"ok": True}
        assert owner.get("/api/status").status_code == 403
        assert execute(machine, "set-password", PasswordHash=other) == {"ok": True}
    with closing(log_in(address, "another-correct-horse", "127.0.0.82")) as owner:
        assert [found["id"] for found in owner.get("/api/kernels").json()] == [kernel]
        # The cookie survives a restart, and the login by the password of before does not come back.
        assert execute(machine, "set-password", PasswordHash=hashed(PASSWORD)) == {"ok": True}
        assert owner.get("/api/kernels").status_code == 403
    assert shell(machine, "systemctl show -P MainPID jupyter.service") == pid
    # Its websockets were closed, and it may not come back.
    table.until(lambda row: row["facts"]["browsers"] == {"visible": 0, "hidden": 0}, "the page is out")


def test_a_server_that_hangs_makes_kernels_unknown_and_keeps_its_password(machine: Machine, table: Table) -> None:
    pid = shell(machine, "systemctl show -P MainPID jupyter.service")
    before = shell(machine, "cat /etc/nod/password_hash")
    shell(machine, f"kill -STOP {pid}")
    try:
        with ThreadPoolExecutor() as pool:
            change = pool.submit(execute, machine, "set-password", PasswordHash=hashed("never-taken-at-all"))
            table.until(lambda row: not row["answers"], "no answer", 120)
            row = table.until(lambda row: "kernels" in row["unknown"], "it hangs", 120)
            assert "kernels" not in row["facts"]
            refused = change.result()
        assert refused["code"] == "password_failed"
        assert shell(machine, "cat /etc/nod/password_hash") == before
    finally:
        shell(machine, f"kill -CONT {pid}")
    table.until(lambda row: row["answers"] and not row["unknown"], "it is back", 120)
    with httpx.Client(verify=False, base_url=f"https://{machine.address}:8888", trust_env=False) as stranger:
        assert stranger.get("/login").status_code == 200


def test_a_machine_that_nobody_uses_or_watches_ends_itself(machine: Machine, table: Table) -> None:
    """With a minute of 20 ms, three hours are 3.6 seconds, and the limit of this notebook is 2."""
    table.answer = {"limit_seconds": {"N": "2"}, "confirmed": {"S": "first"}}
    restart(machine, "0.02")
    began = time.monotonic()
    while time.monotonic() - began < 10:
        table.answer["confirmed"] = {"S": f"at {time.monotonic()}"}
        time.sleep(0.2)
    assert machine.running, "somebody watches"
    assert min(age(table.row, signal) for signal in ("input", "kernel", "terminal", "cpu")) >= 7.6
    wait_until(lambda: not machine.running, 60, "it does not end")
    assert time.monotonic() - began >= 10 + 7
