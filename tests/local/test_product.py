"""The whole product on real machines: launched over HTTP, used over TLS, looked at from all sides."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from playwright.sync_api import sync_playwright

from instance.build import documents
from local.agent import Agents, Outcome
from local.cloud import Cloud
from tests.local.clouds import ON_MACHINES
from tests.local.person import Person, fingerprint, log_in, wait_until

pytestmark = pytest.mark.machine

CANARY = "canary-Pa55word-4711"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, image: Path, installer: Any) -> Iterator[Cloud]:
    state = tmp_path_factory.mktemp("cloud")
    with Cloud(state, image=image, installer=installer, api_port=0, aws_port=0, delays=ON_MACHINES) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def person(cloud: Cloud) -> Person:
    return Person(cloud.api_url, cloud.token)


@pytest.fixture(scope="module")
def notebook(cloud: Cloud, person: Person) -> dict[str, Any]:
    """A notebook that is ready, with the canary as its password, its email confirmed before."""
    wait_until(cloud.inbox.messages, 60, "no confirmation mail")
    link = re.search(r"http://\S+ConfirmSubscription\S+", cloud.inbox.messages()[0].text)
    assert link
    assert httpx.get(link[0], trust_env=False).status_code == 200
    answer = person.request(name="canary", password=CANARY)
    assert answer.status_code == 202
    assert answer.json()["password"] is None
    return person.wait(answer.json()["id"], "ready")


def machine_of(cloud: Cloud, notebook: dict[str, Any]) -> Any:
    return cloud.machine(notebook["instance_id"])


def test_link_shows_a_login_page_with_the_certificate_that_was_told(notebook: dict[str, Any]) -> None:
    assert fingerprint(notebook["address"]) == notebook["certificate_sha256"]
    page = httpx.get(f"{notebook['url']}/login", verify=False, trust_env=False).text
    assert f"Log in to {notebook['name']}</h1>" in page
    assert f"<code>nod password {notebook['name']}</code>" in page
    session = log_in(notebook["url"], CANARY)
    assert session.login.status_code == 302  # type: ignore[attr-defined]
    assert session.get("/api/status").status_code == 200


def test_wrong_password_and_no_password_open_nothing(notebook: dict[str, Any]) -> None:
    session = log_in(notebook["url"], "wrong-password-0", source="127.0.0.90")
    assert session.login.status_code == 401  # type: ignore[attr-defined]
    assert session.get("/api/kernels").status_code == 403


def test_guesses_are_slowed_for_their_address_alone_and_sessions_stay_open(notebook: dict[str, Any]) -> None:
    owner = log_in(notebook["url"], CANARY)
    answers = [log_in(notebook["url"], f"guess-{i}", source="127.0.0.91").login.status_code for i in range(12)]  # type: ignore[attr-defined]
    assert answers.count(401) <= 5
    assert 429 in answers
    right = log_in(notebook["url"], CANARY, source="127.0.0.91")
    assert right.login.status_code == 429, "the right guess tells nothing while the address waits"  # type: ignore[attr-defined]
    assert owner.get("/api/kernels").status_code == 200
    assert log_in(notebook["url"], CANARY, source="127.0.0.92").login.status_code == 302  # type: ignore[attr-defined]


def test_mail_carries_link_fingerprint_type_and_price_and_no_password(cloud: Cloud, notebook: dict[str, Any]) -> None:
    def mails() -> list[Any]:
        return [m for m in cloud.inbox.messages() if notebook["link"] in m.text]

    wait_until(mails, 60, "no mail with the link")
    mail = mails()[0]
    assert notebook["certificate_sha256"] in mail.text
    assert notebook["instance_type"] in mail.text
    assert f"{notebook['cost']['per_hour']:.4f}" in mail.text, mail.text
    assert CANARY not in mail.text
    assert "<" not in mail.text.split("--\n")[0], "plain text"
    assert all(len(line) <= 998 for line in mail.text.splitlines())


def test_heartbeat_comes_from_the_machine(cloud: Cloud, notebook: dict[str, Any]) -> None:
    tables = boto3.client("dynamodb", endpoint_url=cloud.aws_url)
    row: dict[str, Any] = {}

    def answers() -> bool:
        items = tables.scan(TableName="nod-local-heartbeats")["Items"]
        row.update(next((i for i in items if i["id"]["S"].endswith(notebook["instance_id"])), {}))
        return row.get("answers", {}).get("BOOL") is True

    wait_until(answers, 130, f"no heartbeat that says it answers: {row}")
    assert row["address"]["S"] == notebook["address"]
    assert row["certificate_sha256"]["S"] == notebook["certificate_sha256"]
    assert row["boot_id"]["S"]


def test_user_of_the_notebook_is_nobody_special(cloud: Cloud, notebook: dict[str, Any]) -> None:
    machine = machine_of(cloud, notebook)
    as_user = ["runuser", "-u", "jupyter", "--", "sh", "-c"]
    assert machine.run([*as_user, "sudo -n true || exit 9"]).exit_code == 9
    ask = (
        "import urllib.request as u; "
        "q = u.Request('http://169.254.169.254/latest/api/token', method='PUT'); "
        "q.add_header('X-aws-ec2-metadata-token-ttl-seconds', '60'); "
        "print(len(u.urlopen(q, timeout=5).read()))"
    )
    assert int(machine.run(["python3", "-c", ask]).stdout) > 0, "root reaches it, so the question is right"
    reached = machine.run(["runuser", "-u", "jupyter", "--", "python3", "-c", ask])
    assert reached.exit_code != 0, "IMDS is open to the notebook's user"
    assert "URLError" in reached.stderr or "TimeoutError" in reached.stderr, reached.stderr
    processes = machine.run(["ps", "-eo", "user,args"]).stdout
    assert re.search(r"^jupyter\s.*/opt/nod/notebook/notebook.py", processes, re.MULTILINE)
    assert not re.search(r"^root\s.*(jupyter-?(lab|server)|notebook.py)", processes, re.MULTILINE)


@pytest.mark.long
def test_second_notebook_runs_beside_the_first(cloud: Cloud, person: Person, notebook: dict[str, Any]) -> None:
    answer = person.request(name="second").json()
    assert len(answer["password"]) >= 20
    second = person.wait(answer["id"], "ready")
    assert second["address"] != notebook["address"]
    assert log_in(second["url"], answer["password"]).login.status_code == 302  # type: ignore[attr-defined]
    assert log_in(notebook["url"], CANARY).login.status_code == 302  # type: ignore[attr-defined]
    machine = machine_of(cloud, second)
    assert person.delete(second["id"], "second").status_code == 202
    person.wait(second["id"], "terminated")
    assert not machine.running


def test_notebook_comes_back_after_a_crash_and_after_a_reboot(cloud: Cloud, notebook: dict[str, Any]) -> None:
    machine = machine_of(cloud, notebook)
    session = log_in(notebook["url"], CANARY)

    def answers() -> bool:
        try:
            return bool(session.get("/api/status").status_code == 200)
        except httpx.HTTPError:
            return False

    machine.run(["systemctl", "kill", "-s", "KILL", "jupyter.service"])
    wait_until(answers, 60, "Jupyter was not restarted")
    ec2 = boto3.client("ec2", endpoint_url=cloud.aws_url)
    ec2.reboot_instances(InstanceIds=[notebook["instance_id"]])
    time.sleep(1)
    wait_until(answers, 60, "not back after the reboot, or the session was lost")
    assert fingerprint(notebook["address"]) == notebook["certificate_sha256"]


def test_page_logs_in_over_tls_and_runs_a_cell_that_prints(notebook: dict[str, Any], tmp_path: Path) -> None:
    session = log_in(notebook["url"], CANARY)
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": []}
    content = {
        "cells": [{**cell, "source": "print('six times seven is', 6 * 7)"}],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    saved = session.put(
        "/api/contents/page.ipynb",
        json={"type": "notebook", "content": content},
        headers={"X-XSRFToken": session.cookies["_xsrf"]},
    )
    assert saved.status_code == 201, saved.text
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"],
        )
        try:
            page = browser.new_context(ignore_https_errors=True, locale="en-US").new_page()
            page.goto(f"{notebook['url']}/login?next=%2Flab%2Ftree%2Fpage.ipynb")
            page.fill("input[type=password]", CANARY)
            page.click("button[type=submit]")
            page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
            output = page.locator(".jp-OutputArea-output")

            def printed() -> bool:
                # Without a look at it nothing is drawn, and JupyterLab draws outputs only when they are in view.
                page.screenshot(path=tmp_path / "page.png")
                return any("six times seven is 42" in text for text in output.all_inner_texts())

            def ran() -> bool:
                # What is run before the kernel is connected is lost, and a person runs it again.
                page.locator(".jp-CodeCell .cm-content").first.click()
                page.keyboard.press("Shift+Enter")
                page.wait_for_timeout(3000)
                return printed()

            page.wait_for_selector("text=Python 3 (ipykernel) | Idle", timeout=60_000)
            wait_until(ran, 60, lambda: f"the cell printed nothing; see {tmp_path}/page.png")
        finally:
            browser.close()


def test_slack_channel_gets_the_link(cloud: Cloud) -> None:
    def admin(*arguments: str, given: str = "") -> str:
        run = subprocess.run(
            [sys.executable, "-m", "admin", *arguments],
            cwd=ROOT,
            env={**os.environ, **cloud.environment()},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    address = f"{cloud.aws_url}/_local/slack/services/TLOCAL/BLOCAL/team"
    admin("slack", "add", "team", "--origin", cloud.aws_url, given=address)
    token = re.search(r"nod\.us-\S+", admin("user", "add", "sue", "--slack", "team"))
    assert token
    sue = Person(cloud.api_url, token[0])
    ready = sue.wait(sue.request(name="slacky").json()["id"], "ready")
    wait_until(lambda: any(ready["link"] in json.dumps(m) for m in cloud.slack.messages()), 60, "nothing in Slack")
    wait_until(
        lambda: sue.show(ready["id"])["notifications"] == [{"channel": "slack:team", "state": "sent"}],
        60,
        "not sent",
    )
    assert sue.delete(ready["id"], "slacky").status_code == 202
    sue.wait(ready["id"], "terminated")


def test_hundred_equal_posts_make_one_notebook_one_execution_one_machine(cloud: Cloud, person: Person) -> None:
    with ThreadPoolExecutor(100) as pool:
        answers = list(
            pool.map(lambda _: Person(cloud.api_url, cloud.token).request(key="same", name="hundred"), range(100))
        )
    assert {a.status_code for a in answers} == {202}
    bodies = [a.json() for a in answers]
    assert len({b["id"] for b in bodies}) == 1
    assert sum(b["password"] is not None for b in bodies) == 1, "the password is shown once"
    notebook = person.wait(bodies[0]["id"], "ready")
    sfn = boto3.client("stepfunctions", endpoint_url=cloud.aws_url)
    arn = "arn:aws:states:us-east-1:123456789012:stateMachine:nod-local-launch"
    names = [e["name"] for e in sfn.list_executions(stateMachineArn=arn)["executions"]]
    assert names.count(notebook["id"]) == 1
    ec2 = boto3.client("ec2", endpoint_url=cloud.aws_url)
    found = ec2.describe_instances(Filters=[{"Name": "tag:nod:notebook", "Values": [notebook["id"]]}])
    assert sum(len(r["Instances"]) for r in found["Reservations"]) == 1
    assert person.request(key="same", name="another").status_code == 422
    person.delete(notebook["id"], "hundred")
    person.wait(notebook["id"], "terminated")


@pytest.mark.parametrize(
    ("fault", "code"),
    [("installer_checksum", "installer_checksum"), ("disk_full", "disk_full")],
)
def test_fault_on_the_machine_is_told_and_undone(
    cloud: Cloud, person: Person, notebook: dict[str, Any], fault: str, code: str
) -> None:
    # `notebook` was launched after its owner's address was confirmed: until then there is no mail.
    cloud.faults.on(fault)
    try:
        seen = person.wait(person.request().json()["id"], "failed")
    finally:
        cloud.faults.clear()
    assert seen["error"]["code"] == code
    ec2 = boto3.client("ec2", endpoint_url=cloud.aws_url)
    found = ec2.describe_instances(Filters=[{"Name": "tag:nod:notebook", "Values": [seen["id"]]}])
    assert [i["State"]["Name"] for r in found["Reservations"] for i in r["Instances"]] == ["terminated"]
    disks = ec2.describe_volumes(Filters=[{"Name": "tag:nod:notebook", "Values": [seen["id"]]}])["Volumes"]
    assert disks == []
    wait_until(
        lambda: any(code in m.text and seen["id"] in m.text for m in cloud.inbox.messages()),
        20,
        "its owner was not told",
    )


@pytest.mark.long
def test_every_document_may_be_run_twice_at_once_the_first_time_too(
    cloud: Cloud, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: dict[str, list[tuple[float, float, Outcome]]] = {}
    run = Agents.run

    def watched(agents: Agents, registration: Any, command_id: str, *more: Any) -> Outcome:
        began = time.monotonic()
        outcome = run(agents, registration, command_id, *more)
        runs.setdefault(command_id.partition(".")[0], []).append((began, time.monotonic(), outcome))
        return outcome

    monkeypatch.setattr(Agents, "run", watched)
    ssm = boto3.client("ssm", endpoint_url=cloud.aws_url)
    cloud.faults.on("command_twice")
    try:
        twice = person.wait(person.request(name="twice").json()["id"], "ready")

        def commands() -> dict[str, str]:
            """The ids of those whose two runs are over, by document."""
            made = ssm.list_commands(InstanceId=twice["instance_id"])["Commands"]
            over = [each for each in made if len(runs.get(each["CommandId"], [])) == 2]
            return {each["DocumentName"].removeprefix("nod-local-"): each["CommandId"] for each in over}

        answer = person.http.post(f"/notebooks/{twice['id']}/password", json={})
        assert answer.status_code == 202
        machine_of(cloud, twice).run(["systemctl", "stop", "nod-monitor.service"])
        ssm.send_command(InstanceIds=[twice["instance_id"]], DocumentName="nod-local-probe-monitor")
        wait_until(lambda: set(commands()) == set(documents()), 180, lambda: f"run twice: {set(commands())}")
    finally:
        cloud.faults.clear()
    for document, command_id in commands().items():
        (began, ended, _), (other_began, other_ended, _) = runs[command_id]
        assert max(began, other_began) < min(ended, other_ended), f"{document}: one after the other"
        for *_, outcome in runs[command_id]:
            assert (outcome.status, outcome.exit_code, outcome.stderr) == ("Success", 0, ""), (document, outcome)
            (line,) = outcome.stdout.splitlines()
            assert json.loads(line)["ok"], (document, outcome)
    machine = machine_of(cloud, twice)
    assert machine.run(["systemctl", "--failed", "--no-legend"]).stdout == ""
    assert machine.run(["sh", "-c", "ls -d /run/nod-work* /opt/anaconda3.* /var/cache/nod/* 2>/dev/null"]).stdout == ""
    assert fingerprint(twice["address"]) == twice["certificate_sha256"]
    assert log_in(twice["url"], answer.json()["password"]).login.status_code == 302  # type: ignore[attr-defined]
    assert person.delete(twice["id"], "twice").status_code == 202
    person.wait(twice["id"], "terminated")


def test_secrets_are_nowhere(cloud: Cloud, person: Person, notebook: dict[str, Any]) -> None:
    """Neither the passwords nor the token: tables, histories, commands, logs, messages, the machines. The keys of the
    links for life where links are told, and nowhere else."""
    answer = person.request(name="generated").json()
    generated = person.wait(answer["id"], "ready")
    secrets = [CANARY, answer["password"], cloud.token.rsplit(".", 1)[1]]
    assert log_in(generated["url"], answer["password"]).login.status_code == 302  # type: ignore[attr-defined]
    # A visit leaves its address in every log that takes addresses.
    assert httpx.get(notebook["link"], trust_env=False).status_code == 200
    keys = {one["name"]: one["link"].rpartition("?k=")[2] for one in (notebook, generated)}
    assert {len(key) for key in keys.values()} == {32}
    wait_until(lambda: any(generated["link"] in mail.text for mail in cloud.inbox.messages()), 60, "no mail")
    wait_until(lambda: generated["link"] in json.dumps(cloud.slack.messages()), 60, "nothing in Slack")

    places = everywhere(cloud)
    for one in (notebook, generated):
        places[f"answer {one['name']}"] = str(person.show(one["id"]))
        places |= on_its_machine(cloud, one, [*secrets, *keys.values()])
    assert len(places) > 24
    for one in (notebook, generated):
        assert "jupyter" in places[f"processes {one['name']}"]
        assert "jupyter" in places[f"journal {one['name']}"]
        assert one["link"] in places["mail"]
    for secret in secrets:
        assert [place for place, text in places.items() if secret in text] == []
    for name, key in keys.items():
        found = {place for place, text in places.items() if key in text}
        assert found == {"published", "mail", "slack", f"answer {name}"}


def everywhere(cloud: Cloud) -> dict[str, str]:
    """What AWS, the outside parties and the logs keep, by place."""
    aws = {"endpoint_url": cloud.aws_url}
    places: dict[str, str] = {}
    tables = boto3.client("dynamodb", **aws)
    for table in tables.list_tables()["TableNames"]:
        places[f"table {table}"] = str(tables.scan(TableName=table)["Items"])
    sfn = boto3.client("stepfunctions", **aws)
    for machine in sfn.list_state_machines()["stateMachines"]:
        for e in sfn.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]:
            history = sfn.get_execution_history(executionArn=e["executionArn"], maxResults=1000)["events"]
            places[f"history {e['executionArn']}"] = str(history)
    places["published"] = str(cloud.published())
    places["mail"] = str([m.text for m in cloud.inbox.messages()])
    places["slack"] = str(cloud.slack.messages())
    for file in cloud.state.rglob("*"):
        if file.is_file() and "machines" not in file.parts and file.name != "token":
            places[str(file)] = file.read_text(errors="replace")
    return places


def on_its_machine(cloud: Cloud, notebook: dict[str, Any], wanted: list[str]) -> dict[str, str]:
    """What runs and is kept on a notebook's machine, and the commands that it was sent, by place. None of its files
    has any of what is `wanted`."""
    ssm = boto3.client("ssm", endpoint_url=cloud.aws_url)
    places: dict[str, str] = {}
    for command in ssm.list_commands(InstanceId=notebook["instance_id"])["Commands"]:
        places[f"command {command['CommandId']}"] = str(command)
        places[f"output {command['CommandId']}"] = str(
            ssm.get_command_invocation(CommandId=command["CommandId"], InstanceId=notebook["instance_id"])
        )
    machine = machine_of(cloud, notebook)
    running = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null"
    places[f"processes {notebook['name']}"] = machine.run(["sh", "-c", running]).stdout
    places[f"journal {notebook['name']}"] = machine.run(["journalctl", "--no-pager"]).stdout
    folders = ["/etc", "/opt/nod", "/var/log", "/var/lib", "/home", "/tmp", "/root"]
    patterns = [word for each in wanted for word in ("-e", each)]
    assert machine.run(["grep", "-rlF", *patterns, *folders]).stdout == ""
    return places
