"""What outlives what on a real machine: detached jobs the server, a kernel Ubuntu's updates, the notebook a full disk.

One machine with a small disk of its own. A minute lasts a second, as in test_signals.py.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from instance import build
from local.installer import Installer
from local.machines import Completed, Machine, Machines
from tests.local.person import log_in, wait_until
from tests.local.test_signals import DRIVE, ENVIRONMENT, PASSWORD, PYTHON, Table, hashed

pytestmark = pytest.mark.machine

INSTANCE_ID = "i-0b1a2c3d4e5f6a7b8"
DISK_MIB = 1900
AS_USER = "runuser -u jupyter -- sh -c"


def execute(machine: Machine, name: str, **given: str) -> dict[str, Any]:
    """Runs a document as the agent does; from /run, where this test never fills anything up."""
    document = build.documents()[name]
    script = "\n".join(document["mainSteps"][0]["inputs"]["runCommand"]) + "\n"
    path = f"/run/{name}-{time.monotonic_ns()}.sh"
    machine.write_file(path, script.encode(), 0o700)
    defaults = {key: declared["default"] for key, declared in document["parameters"].items() if "default" in declared}
    environment = {f"SSM_{key}": value for key, value in (defaults | given).items()}
    done = machine.run(["sh", "-c", path], env={**ENVIRONMENT, **environment}, timeout=300)
    (line,) = done.stdout.splitlines()
    return dict(json.loads(line))


def shell(machine: Machine, command: str) -> str:
    done: Completed = machine.run(["bash", "-c", command], timeout=60)
    return done.stdout.strip()


def main_pid(machine: Machine, unit: str = "jupyter.service") -> str:
    return shell(machine, f"systemctl show -P MainPID {unit}")


def commands(machine: Machine) -> list[str]:
    """Of the notebook's user's processes."""
    return shell(machine, "ps -u jupyter -o args=").splitlines()


def until_it_answers(machine: Machine) -> None:
    wait_until(
        lambda: machine.run(["python3", "-I", "/opt/nod/check_notebook.py"]).exit_code == 0,
        120,
        lambda: shell(machine, "journalctl -u jupyter -n 30 --no-pager -o cat"),
    )


@pytest.fixture(scope="module")
def table(aws_port: int, installer: Installer) -> Iterator[Table]:
    made = Table(aws_port, installer.path)
    yield made
    made.close()


SNAP = """#!/bin/sh
echo "$(cut -d ' ' -f 1 /proc/uptime) $*" >>/root/snap-calls
"""
CLOUD_INIT = """#!/bin/sh
echo "$(cut -d ' ' -f 1 /proc/uptime) cloud-init $*" >>/root/snap-calls
"""


@pytest.fixture(scope="module")
def machine(
    machines: Machines, new_address: Callable[[], str], table: Table, installer: Installer, aws_port: int
) -> Machine:
    """A notebook, launched by the documents, on a machine that has snapd as Ubuntu has it (a stand-in that writes down
    how it is called), and needrestart in Ubuntu's configuration."""
    address = new_address()
    keys = {"AccessKeyId": "AKID", "SecretAccessKey": "secret", "Token": "token"}
    identity = {"region": "us-east-1", "accountId": "123456789012", "instanceId": INSTANCE_ID}
    metadata = {
        "latest/meta-data/public-ipv4": address,
        "latest/meta-data/iam/security-credentials/": "nod",
        "latest/meta-data/iam/security-credentials/nod": json.dumps(keys),
        "latest/dynamic/instance-identity/document": json.dumps(identity),
    }
    made = machines.create(INSTANCE_ID, address, lambda path: metadata.get(path.lstrip("/")), disk_mib=DISK_MIB)
    made.boot()
    made.write_file(
        "/etc/systemd/system/nod-monitor.service.d/test.conf",
        b"[Service]\nEnvironment=NOD_MINUTE_SECONDS=1\n",
        0o644,
    )
    made.write_file("/usr/local/bin/snap", SNAP.encode(), 0o755)
    made.write_file("/usr/local/bin/cloud-init", CLOUD_INIT.encode(), 0o755)
    # What /usr/sbin/needrestart sets on Ubuntu when it is called from apt's hook.
    made.write_file("/etc/needrestart/conf.d/00-ubuntu.conf", b"$nrconf{restart} = 'a';\n", 0o644)
    assert execute(made, "prepare-instance")["ok"]
    url = f"http://127.0.0.1:{aws_port}/installer.sh"
    with ThreadPoolExecutor() as pool:
        install = pool.submit(execute, made, "install-anaconda", InstallerUrl=url, InstallerSha256=installer.sha256)
        assert execute(made, "configure-tls")["ok"]
        assert execute(made, "start-monitor", HeartbeatsTable="nod-local-heartbeats", Region="us-east-1")["ok"]
        done = install.result()
        assert done["ok"], done
    assert execute(made, "configure-notebook", PasswordHash=hashed(PASSWORD))["ok"]
    made.write_file("/run/drive.py", DRIVE.read_bytes())
    return made


@pytest.fixture(scope="module")
def page(machine: Machine) -> Callable[..., Any]:
    """What somebody at a page does: see drive.py."""

    def do(*requests: dict[str, Any]) -> list[Any]:
        lines = "\n".join(json.dumps(request) for request in requests) + "\n"
        machine.write_file("/run/requests", lines.encode())
        done = machine.run(["sh", "-c", f"{PYTHON} /run/drive.py {PASSWORD} </run/requests"], timeout=90)
        assert done.exit_code == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return do


# --- what Ubuntu does by itself ---


def test_the_agents_refresh_is_held_before_anything_else(machine: Machine) -> None:
    first, then = shell(machine, "head -n 2 /root/snap-calls").splitlines()
    assert first.split(" ", 1)[1] == "refresh --hold=2h amazon-ssm-agent"
    assert then.split(" ", 1)[1] == "cloud-init status --wait"


def test_needrestart_does_not_look_into_what_people_run(machine: Machine) -> None:
    """What uses a library that was replaced is looked at for its name alone: this comes before there is any."""
    said = shell(machine, "needrestart -v -v -b -r l -u NeedRestart::UI::stdio 2>&1")
    assert "NEEDRESTART-VER" in said
    assert "NeedRestart::Interp" not in said


def test_a_busy_kernel_outlives_a_replaced_libc(machine: Machine, page: Callable[..., Any]) -> None:
    """With apt's own hook. What has no work of people's to lose is restarted as Ubuntu does it."""
    (kernel,) = page({"do": "kernel"})
    page({"do": "run", "kernel": kernel, "code": "import time; time.sleep(600)", "until": "busy"})
    before = {unit: main_pid(machine, unit) for unit in ("jupyter", "nod-monitor", "systemd-journald")}
    library = shell(machine, "ldconfig -p | sed -n 's/.*libc.so.6 .*=> //p' | head -n 1")
    shell(machine, f"cp --preserve {library} {library}.new && mv {library}.new {library}")
    assert "libc.so.6 (deleted)" in shell(machine, f"cat /proc/{before['jupyter']}/maps")
    hook = shell(machine, "sed -n 's/^DPkg::Post-Invoke {\"\\(.*\\)\"; };/\\1/p' /etc/apt/apt.conf.d/99needrestart")
    said = shell(machine, f"mkdir -p /run/needrestart; touch /run/needrestart/unpacked; {hook} 2>&1")
    after = {unit: main_pid(machine, unit) for unit in before}
    assert after["systemd-journald"] != before["systemd-journald"], said
    assert after["jupyter"] == before["jupyter"], said
    assert after["nod-monitor"] == before["nod-monitor"], said
    (found,) = page({"do": "ask", "method": "GET", "path": f"/api/kernels/{kernel}"})
    assert found["execution_state"] == "busy"
    page({"do": "ask", "method": "DELETE", "path": f"/api/kernels/{kernel}"})


def test_upgrades_reboot_no_machine_by_themselves(machine: Machine) -> None:
    machine.write_file("/etc/apt/apt.conf.d/52own", b'Unattended-Upgrade::Automatic-Reboot "true";\n', 0o644)
    assert shell(machine, "apt-config shell R Unattended-Upgrade::Automatic-Reboot") == "R='false'"


def test_the_journal_takes_a_bounded_part_of_the_disk(machine: Machine) -> None:
    settings = shell(machine, "systemd-analyze cat-config systemd/journald.conf | grep ^SystemMaxUse")
    assert settings.splitlines()[-1] == "SystemMaxUse=256M"


def test_the_metadata_service_stays_closed_when_the_firewall_is_set_anew(machine: Machine) -> None:
    """/etc/nftables.conf begins with `flush ruleset`."""
    pid = main_pid(machine)
    for verb in ("start", "reload", "restart", "stop"):
        shell(machine, f"systemctl {verb} nftables.service")
        tables = shell(machine, "nft list tables")
        assert "inet nod_imds" in tables, verb
        assert "inet nod_traffic" in tables, verb
    assert main_pid(machine) == pid


def test_a_launch_that_was_cut_off_before_there_was_a_home_makes_one(machine: Machine) -> None:
    shell(machine, "mv /home/jupyter /home/away")
    try:
        assert execute(machine, "prepare-instance")["ok"]
        assert shell(machine, "stat -c '%U %G %a' /home/jupyter") == "jupyter jupyter 750"
    finally:
        shell(machine, "rmdir /home/jupyter; mv /home/away /home/jupyter")


# --- detached jobs ---

DETACHING = """
import os, subprocess
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
subprocess.Popen(["nohup", "sleep", "10001"], **quiet)
os.system("nohup sleep 10002 >/dev/null 2>&1 &")
subprocess.Popen(["setsid", "sleep", "10003"])
subprocess.Popen(["sleep", "10004"], start_new_session=True)
subprocess.Popen(["tmux", "new-session", "-d", "sleep 10005"])
subprocess.Popen(["sh", "-c", "(setsid sleep 10006 &)"])
subprocess.Popen(["sleep", "20001"])
os.system("sleep 20002 &")
"""
TYPED = (
    "nohup sleep 10007 >/dev/null 2>&1 &\rsetsid -f sleep 10008\rtmux new-session -d 'sleep 10009'\r"
    "sleep 20003 &\rsleep 20004\r"
)


def sleeping(machine: Machine) -> set[int]:
    """The seconds of the user's `sleep`s, which are their names here; tmux's own server is called as its first one."""
    words = [line.split() for line in commands(machine)]
    return {int(each[1]) for each in words if each[0] == "sleep" and each[1].isdigit() and int(each[1]) > 10000}


DETACHED = set(range(10001, 10010))
ATTACHED = set(range(20001, 20005))


@pytest.fixture
def jobs(machine: Machine, page: Callable[..., Any]) -> Iterator[str]:
    """Jobs of all kinds, begun in a cell and in a terminal; the kernel's id."""
    until_it_answers(machine)
    (kernel, terminal) = page({"do": "kernel"}, {"do": "ask", "method": "POST", "path": "/api/terminals"})
    page(
        {"do": "run", "kernel": kernel, "code": DETACHING, "until": "idle"},
        {"do": "type", "terminal": terminal["name"], "text": TYPED},
    )
    wait_until(lambda: sleeping(machine) == DETACHED | ATTACHED, 60, lambda: f"{commands(machine)}")
    yield kernel
    shell(machine, "pkill -KILL -u jupyter sleep; pkill -KILL -u jupyter tmux")


def new_server(machine: Machine, before: str) -> None:
    """Waits for the next server."""
    wait_until(lambda: main_pid(machine) not in ("0", before), 60, lambda: f"{commands(machine)}")
    until_it_answers(machine)


@pytest.mark.parametrize("way", ["menu", "crash", "restart"])
def test_detached_jobs_outlive_the_server_and_nothing_else_does(
    machine: Machine, page: Callable[..., Any], jobs: str, way: str, table: Table
) -> None:
    before = main_pid(machine)
    if way == "menu":
        page({"do": "ask", "method": "POST", "path": "/api/shutdown"})
    elif way == "restart":
        shell(machine, "systemctl restart jupyter.service")
    else:
        # The kernel is one that does not see its parent die, as one that is busy in C, or another language's.
        shell(machine, "pkill -STOP -u jupyter -f ipykernel_launcher")
        shell(machine, f"kill -KILL {before}")
    new_server(machine, before)
    assert sleeping(machine) == DETACHED
    assert not [line for line in commands(machine) if "ipykernel" in line or line.endswith("bash -l")]
    # What they use counts, and the new server is told from them although they are older.
    table.until(
        lambda row: row["answers"] and not row["unknown"] and row["facts"]["kernels"]["idle"] == 0, "it is known"
    )
    busy = f"{AS_USER} 'setsid -f sh -c \"while :; do :; done\"'"
    shell(machine, busy)
    try:
        table.until(lambda row: row["ages"].get("cpu", 99) <= 2, "a job works", 60)
    finally:
        shell(machine, "pkill -KILL -u jupyter -f 'while :'")


def test_a_kernel_that_is_restarted_leaves_detached_jobs_alone(
    machine: Machine, page: Callable[..., Any], jobs: str
) -> None:
    page({"do": "ask", "method": "POST", "path": f"/api/kernels/{jobs}/restart"})
    wait_until(lambda: not sleeping(machine) & {20001, 20002}, 30, lambda: f"{sleeping(machine)}")
    assert sleeping(machine) >= DETACHED
    page({"do": "ask", "method": "DELETE", "path": f"/api/kernels/{jobs}"})
    assert sleeping(machine) >= DETACHED


def test_a_machine_that_stops_waits_for_no_job(machine: Machine, page: Callable[..., Any], jobs: str) -> None:
    shell(machine, f"{AS_USER} \"setsid -f sh -c 'trap : TERM HUP; while :; do sleep 1; done'\"")
    shell(machine, f"{AS_USER} 'tmux new-session -d bash'")
    began = time.monotonic()
    # By force after 60 seconds, of which systemd would wait 90.
    machine.shut_down(timeout=60)
    took = time.monotonic() - began
    machine.boot()
    until_it_answers(machine)
    assert took < 45
    machine.write_file("/run/drive.py", DRIVE.read_bytes())


# --- shared places ---

FILL = """
import contextlib, itertools, os, sys
os.chdir(sys.argv[1])
def grow(path):
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        block = bytes(1 << 20)
        while block:
            try:
                file.write(block)
            except OSError:
                block = block[: len(block) // 2]
grow("full")
with contextlib.suppress(OSError):
    for number in itertools.count():
        os.mkdir(f"d{number}")
grow("full.too")
for name in os.listdir():
    if os.path.isfile(name) and name not in ("full", "big"):
        grow(name)
"""


def fill(machine: Machine, folder: str) -> None:
    """Space and inodes, as far as the notebook's user gets, by new files and by those that it may write to."""
    machine.write_file("/run/fill.py", FILL.encode(), 0o644)
    done = machine.run(["runuser", "-u", "jupyter", "--", "python3", "-I", "/run/fill.py", folder], timeout=120)
    assert done.exit_code == 0, done.stderr


CHANGES = itertools.count(1)


def works(machine: Machine, table: Table) -> None:
    """The documents that serve a notebook later, and the monitor."""
    for password in ("for-a-moment", PASSWORD):
        number = str(next(CHANGES))
        assert execute(machine, "set-password", PasswordHash=hashed(password), Number=number) == {"ok": True}
        assert shell(machine, "cat /etc/nod/password_number") == number
    older = execute(machine, "set-password", PasswordHash=hashed("too-late"), Number="0")
    assert older == {"ok": True, "overtaken": True}
    shell(machine, "systemctl stop nod-monitor.service")
    assert execute(machine, "probe-monitor")["monitor"] == "restarted"
    table.until(lambda row: row["answers"] and not row["unknown"], "all is known", 60)


def test_nobody_but_root_can_fill_run(machine: Machine, table: Table) -> None:
    writable = "find /run -xdev -mindepth 1 ! -type s ! -type l -writable ! -exec mountpoint -q {} \\; -print"
    found = shell(machine, f"{AS_USER} '{writable} 2>/dev/null'")
    assert found == ""
    # After more than one start of the server.
    shell(machine, "systemctl restart jupyter.service nod-runtime.service")
    until_it_answers(machine)
    assert shell(machine, "stat -c '%U %a' /run/nod-jupyter") == "jupyter 700"
    free = int(shell(machine, "df --output=avail -k /run | tail -n 1"))
    for place in ("nod-jupyter", "nod-activity", "nod-password", "nod-ready"):
        fill(machine, f"/run/{place}")
    try:
        assert int(shell(machine, "df --output=avail -k /run | tail -n 1")) > free - 1024
        works(machine, table)
        shell(machine, "systemctl restart jupyter.service")
        until_it_answers(machine)
    finally:
        shell(machine, "find /run/nod-jupyter -name 'd*[0-9]' -delete; rm -f /run/nod-jupyter/full*")


def test_jupyter_knows_each_of_our_settings(machine: Machine) -> None:
    """One that it does not know it only warns of."""
    until_it_answers(machine)
    said = shell(machine, "journalctl -u jupyter --no-pager -o cat")
    assert "ServerApp" in said
    assert "not recognized" not in said
    assert shell(machine, "ls /run/nod-jupyter/runtime | grep open.html") == ""


def test_root_follows_no_link_of_the_notebooks_user(machine: Machine) -> None:
    """Root prepares the server's folders before each start, and the notebook's user may have put anything there."""
    until_it_answers(machine)
    before = shell(machine, "stat -c '%U %a' /opt/nod")
    shell(machine, f"{AS_USER} 'cd /run/nod-jupyter && rm -rf runtime && ln -s /opt/nod runtime && chmod 0500 .'")
    shell(machine, "systemctl restart jupyter.service")
    until_it_answers(machine)
    assert shell(machine, "stat -c '%U %a' /opt/nod") == before == "root 755"
    assert shell(machine, "stat -c '%F %U %a' /run/nod-jupyter/runtime") == "directory jupyter 700"
    assert shell(machine, "ls /run/nod-jupyter/runtime | grep ^jpserver-")


PLANT = """
mkdir -p ~jupyter/.local/bin; cd ~jupyter/.local/bin
for name in bash cat chmod chown df env find id install journalctl mkdir mount mountpoint python3 rm sh stat tail tr; do
    printf '#!/bin/sh\\n/usr/bin/id -u >>/home/jupyter/ran\\nexec /usr/bin/%s "$@"\\n' $name >$name
    chmod 0755 $name
done
"""


def test_root_runs_no_program_of_the_notebooks_user(machine: Machine, page: Callable[..., Any]) -> None:
    """Before and after each start of the server, root runs scripts of ours in the server's environment."""
    until_it_answers(machine)
    machine.write_file("/run/plant.sh", PLANT.encode(), 0o755)
    shell(machine, f"{AS_USER} /run/plant.sh")
    try:
        shell(machine, "systemctl restart jupyter.service")
        until_it_answers(machine)
        (kernel,) = page({"do": "kernel"})
        code = "import os; open('path', 'w').write(os.environ['PATH']); os.system('df >/dev/null')"
        page({"do": "run", "kernel": kernel, "code": code, "until": "idle"})
        page({"do": "ask", "method": "DELETE", "path": f"/api/kernels/{kernel}"})
        first = shell(machine, "cat /home/jupyter/path").split(":")[:2]
        ran = set(shell(machine, "cat /home/jupyter/ran").split())
    finally:
        shell(machine, "rm -rf /home/jupyter/.local/bin /home/jupyter/ran /home/jupyter/path")
    assert first == ["/opt/anaconda3/bin", "/home/jupyter/.local/bin"]
    assert ran == {shell(machine, "id -u jupyter")}


def test_a_folder_for_everybody_in_run_gets_a_limit(machine: Machine) -> None:
    """As screen makes one."""
    shell(machine, "mkdir -m 1777 /run/screen; systemctl restart nod-runtime.service")
    assert shell(machine, "findmnt -n -o FSTYPE /run/screen; stat -c %a /run/screen") == "tmpfs\n1777"


def test_a_runaway_number_of_processes_leaves_root_some(machine: Machine) -> None:
    assert shell(machine, "systemctl show -P TasksMax jupyter.service").isdigit()
    assert shell(machine, f"cat /proc/{main_pid(machine)}/oom_score_adj") == "200"
    # A container may not lower it.
    assert shell(machine, "systemctl show -P OOMScoreAdjust nod-monitor.service") == "-500"


# --- a full disk; last, since it stops the server meanwhile ---


@pytest.fixture
def full(machine: Machine) -> Iterator[None]:
    """Not a block is left, for root neither, nor on /tmp, which lies on the disk on Ubuntu."""
    shell(machine, "runuser -u jupyter -- sh -c 'mkdir -p ~jupyter/.jupyter; touch ~jupyter/.jupyter/migrated'")
    shell(machine, "mount -t tmpfs -o size=4k,nr_inodes=1 nod /tmp")
    free = int(shell(machine, "df --output=avail -k / | tail -n 1"))
    shell(machine, f"runuser -u jupyter -- fallocate -l {free - 4096}K /home/jupyter/big")
    fill(machine, "/home/jupyter")
    shell(machine, "dd if=/dev/zero of=/root/full bs=4k")
    yield
    shell(machine, "rm -rf /home/jupyter/big /home/jupyter/full* /home/jupyter/d* /root/full; umount /tmp")


@pytest.mark.parametrize("history", ["kept", "gone"])
def test_on_a_full_disk_a_kernel_starts_and_deleting_frees(
    machine: Machine, page: Callable[..., Any], table: Table, full: None, history: str
) -> None:
    table.until(lambda row: row["facts"]["disk"]["free_mib"] == 0, "it is told", 60)
    assert DISK_MIB * 0.8 < table.row["facts"]["disk"]["size_mib"] <= DISK_MIB
    if history == "gone":
        shell(machine, "rm -rf /home/jupyter/.ipython; dd if=/dev/zero of=/root/more bs=4k")
        shell(machine, "systemctl restart jupyter.service")
        until_it_answers(machine)
    (kernel,) = page({"do": "kernel"})
    page({"do": "run", "kernel": kernel, "code": "import tempfile; tempfile.NamedTemporaryFile()", "until": "idle"})
    (found,) = page({"do": "ask", "method": "GET", "path": f"/api/kernels/{kernel}"})
    assert found["execution_state"] == "idle"
    page(
        {"do": "ask", "method": "DELETE", "path": f"/api/kernels/{kernel}"},
        {"do": "ask", "method": "DELETE", "path": "/api/contents/big"},
    )
    shell(machine, "rm -f /root/more")
    table.until(lambda row: row["facts"]["disk"]["free_mib"] > 200, "there is room", 60)
    assert shell(machine, "ls -A /home/jupyter/.local/share/Trash 2>/dev/null") == ""


def test_a_folder_is_deleted_with_what_is_in_it(machine: Machine, page: Callable[..., Any]) -> None:
    until_it_answers(machine)
    shell(machine, f"{AS_USER} 'mkdir -p ~/old/deep && echo x >~/old/deep/file'")
    page({"do": "ask", "method": "DELETE", "path": "/api/contents/old"})
    assert shell(machine, "ls -d /home/jupyter/old") == ""


def test_on_a_full_disk_password_monitor_and_certificate_can_change(machine: Machine, table: Table, full: None) -> None:
    works(machine, table)
    before = shell(machine, "python3 -I /opt/nod/certificate.py --show")
    shell(machine, "rm /etc/nod/tls/notebook.pem; systemctl restart nod-certificate.service")
    assert shell(machine, "python3 -I /opt/nod/certificate.py --show").split()[0] != before.split()[0]
    with closing(log_in(f"https://{machine.address}:8888", PASSWORD, "127.0.0.91")) as owner:
        assert owner.get("/api/status").status_code == 200


def test_a_machine_starts_with_a_full_disk(machine: Machine, table: Table, full: None) -> None:
    machine.reboot()
    table.until(lambda row: row["answers"] and row["certificate_valid"], "it is back", 120)
