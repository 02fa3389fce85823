"""Idle on a real machine, from the launch to the wake: a minute of limits lasts a second, the schedules run."""

from __future__ import annotations

import io
import json
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.cloud import Cloud
from tests.local.clouds import ON_MACHINES
from tests.local.person import Person, log_in, wait_until

pytestmark = pytest.mark.machine

MINUTE = 1.0
PASSWORD = "correct horse battery 9"
DRIVE = Path(__file__).with_name("drive.py")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, image: Path, installer: Any) -> Iterator[Cloud]:
    state = tmp_path_factory.mktemp("cloud")
    with Cloud(
        state, image=image, installer=installer, api_port=0, aws_port=0, delays=ON_MACHINES, minute_seconds=MINUTE
    ) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def person(cloud: Cloud) -> Person:
    return Person(cloud.api_url, cloud.token)


@pytest.fixture(scope="module")
def notebook(cloud: Cloud, person: Person) -> dict[str, Any]:
    """A notebook that is ready and stops after 10 idle minutes; its owner's address is confirmed."""
    wait_until(cloud.inbox.messages, 60, "no confirmation mail")
    link = re.search(r"http://\S+ConfirmSubscription\S+", cloud.inbox.messages()[0].text)
    assert link
    assert httpx.get(link[0], trust_env=False).status_code == 200
    answer = person.request(name="nodding", password=PASSWORD, idle_minutes=10)
    assert answer.status_code == 202
    return person.wait(answer.json()["id"], "ready")


def mail(cloud: Cloud, word: str, seconds: float = 120) -> Any:
    return wait_until(
        lambda: next((m for m in cloud.inbox.messages() if word in m.subject), None),
        seconds,
        lambda: f"no mail {word!r} among {[m.subject for m in cloud.inbox.messages()]}",
    )


def run_cell(machine: Any, code: str) -> None:
    """A kernel in which a cell was begun; nobody waits for its end, and the page is gone."""
    machine.write_file("/root/drive.py", DRIVE.read_bytes())
    made = drive(machine, {"do": "kernel"})
    drive(machine, {"do": "run", "kernel": made, "code": code, "until": "busy"})


def drive(machine: Any, request: dict[str, Any]) -> Any:
    machine.write_file("/root/request", json.dumps(request).encode() + b"\n")
    done = machine.run(
        ["sh", "-c", f"/opt/anaconda3/bin/python /root/drive.py '{PASSWORD}' </root/request"], timeout=60
    )
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def as_user(machine: Any, command: str) -> Any:
    """In a login shell of the notebook's user."""
    done = machine.run(["su", "-", "jupyter", "-c", command], timeout=120)
    assert done.exit_code == 0, done.stderr
    return done


def install_package(machine: Any) -> None:
    """A package of the user's own, by pip. The machine has no way to an index, and the stand-in for Anaconda takes no
    --user."""
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mine.py", "WORD = 'kept'\n")
        about = "mine-1.0.dist-info"
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", f"mine.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    machine.write_file("/tmp/mine-1.0-py3-none-any.whl", wheel.getvalue(), 0o644)
    as_user(machine, "/opt/anaconda3/bin/pip install --target packages --no-index /tmp/mine-1.0-py3-none-any.whl")


def test_a_silent_cell_holds_it_then_it_is_warned_stopped_and_woken_with_everything_there(
    cloud: Cloud, person: Person, notebook: dict[str, Any]
) -> None:
    notebook_id = notebook["id"]
    machine = cloud.machine(notebook["instance_id"])
    # Longer than limit, grace and warning together, and it says nothing.
    ends = time.monotonic() + 50
    run_cell(machine, "import time; open('kept.txt', 'w').write('mine'); time.sleep(55)")
    # In a terminal that stays open until the machine stops, as a page of JupyterLab leaves it.
    drive(machine, {"do": "ask", "method": "POST", "path": "/api/terminals", "body": {}})
    drive(machine, {"do": "type", "terminal": "1", "text": "echo typed by me\r"})
    install_package(machine)
    wait_until(
        lambda: "kernel" in (person.show(notebook_id)["last_activity"] or ""), 45, "the kernel's work is not seen"
    )
    while time.monotonic() < ends:
        assert person.show(notebook_id)["state"] == "ready", "a silent cell was stopped"
        time.sleep(2)

    warned = mail(cloud, "will stop")
    assert "/extend?t=" in warned.text
    stopped = person.wait(notebook_id, "stopped", seconds=180)
    assert stopped["stop"]["by"] == "sweep"
    assert stopped["stop"]["reason"].startswith("idle since"), stopped["stop"]
    assert stopped["address"] is None
    assert stopped["url"] is None
    told = mail(cloud, "has stopped")
    assert "idle since" in " ".join(told.text.split())
    events = person.http.get(f"/notebooks/{notebook_id}/events").json()["events"]
    actions = [event["action"] for event in events]
    assert actions[0] == "stop", "newest first"
    assert "warn" in actions
    assert "a kernel is busy" in {event["reason"] for event in events}, events

    page = httpx.get(stopped["link"], trust_env=False)
    assert page.status_code == 200
    form = re.search(r'<form[^>]*action="([^"]+)"', page.text)
    token = re.search(r'name="f" value="([^"]+)"', page.text)
    key = re.search(r'name="k" value="([^"]+)"', page.text)
    assert form, page.text
    assert token, page.text
    assert key, page.text
    woken = httpx.post(httpx.URL(stopped["link"]).join(form[1]), data={"f": token[1], "k": key[1]}, trust_env=False)
    assert woken.status_code == 303, woken.text
    ready = person.wait(notebook_id, "ready", seconds=180)
    opened = httpx.get(ready["link"], trust_env=False)
    assert f'href="{ready["url"]}"' in opened.text
    assert ready["certificate_sha256"] in opened.text
    again = log_in(ready["url"], PASSWORD)
    assert again.get("/api/contents/kept.txt").json()["content"] == "mine"
    machine = cloud.machine(ready["instance_id"])
    assert "echo typed by me" in machine.read_file("/home/jupyter/.bash_history").decode().splitlines()
    found = as_user(machine, "PYTHONPATH=packages /opt/anaconda3/bin/python -c 'import mine; print(mine.WORD)'")
    assert found.stdout.strip() == "kept"
    started = mail(cloud, "is running again")
    assert ready["link"] in started.text
    assert ready["certificate_sha256"] in started.text
