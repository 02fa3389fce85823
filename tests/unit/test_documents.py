"""The SSM documents: complete, small enough, and closed to hostile parameters."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib import passwords
from instance import build

ROOT = Path(__file__).parents[2]
DOCUMENTS = build.documents()
# docs/contracts.md, "Workflow → documents".
PARAMETERS = {
    "prepare-instance": set(),
    "install-anaconda": {"InstallerUrl", "InstallerSha256"},
    "configure-tls": set(),
    "start-monitor": {"HeartbeatsTable", "Region"},
    "configure-notebook": {"PasswordHash", "NotebookName"},
    "set-password": {"PasswordHash", "Number"},
    "probe-monitor": set(),
}
HASH = "argon2:$argon2id$v=19$m=10240,t=10,p=8$8Tv1p9wCR1VpIbIuakoHvg$eUgOcA2kKvySRBh1agPGXciV+BxytXfgHdlrcf9NXQY"
GOOD = {
    "TaskToken": "AQCEAAAAKgAAAAMAAAAAAAAAAa/bc+de==",
    "InstallerUrl": "https://repo.anaconda.com/archive/Anaconda3-2026.07-1-Linux-x86_64.sh",
    "InstallerSha256": "9f49042048e9a8220c1cddf9192054290724052d3b2a86f938f9f5edd911db8f",
    "HeartbeatsTable": "nod-prod-heartbeats",
    "Region": "us-gov-west-1",
    "PasswordHash": HASH,
    "NotebookName": "thesis-2",
    "Number": "3",
}
HOSTILE = ["$(touch /x)", "`touch /x`", "'; touch /x; '", '"', "'", "\n", "\\", "{{ssm:x}}", "{{", " ", ";", "\x00"]
each_document = pytest.mark.parametrize("name", sorted(DOCUMENTS))
each_parameter = pytest.mark.parametrize(
    ("name", "parameter"),
    [(name, parameter) for name, document in DOCUMENTS.items() for parameter in document["parameters"]],
)


def script(name: str) -> str:
    (step,) = DOCUMENTS[name]["mainSteps"]
    return "\n".join(step["inputs"]["runCommand"]) + "\n"


def archive(name: str) -> dict[str, bytes]:
    """The files that a document carries, by their path in the room."""
    text = script(name)
    payload = text.split("<<'ARCHIVE'")[1].split("\n", 1)[1].split("\nARCHIVE\n", 1)[0]
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(payload))) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]


def accepts(name: str, parameter: str, value: str) -> bool:
    """As the agent decides: Go's MatchString looks for a match anywhere, and its `$` is the end of the text only."""
    declared = DOCUMENTS[name]["parameters"][parameter]
    pattern = re.sub(r"\$$", r"\\Z", declared["allowedPattern"])
    return re.search(pattern, value) is not None and len(value) <= declared.get("maxChars", 10**6)


def test_there_are_the_documents_of_the_contract_with_its_parameters() -> None:
    found = {name: set(document["parameters"]) for name, document in DOCUMENTS.items()}
    assert found == {name: {*parameters, "TaskToken"} for name, parameters in PARAMETERS.items()}


@each_document
def test_a_document_is_a_linux_command_of_schema_2_2(name: str) -> None:
    document = DOCUMENTS[name]
    assert document["schemaVersion"] == "2.2"
    (step,) = document["mainSteps"]
    assert step["action"] == "aws:runShellScript"
    assert step["precondition"] == {"StringEquals": ["platformType", "Linux"]}
    assert 60 <= int(step["inputs"]["timeoutSeconds"]) <= 3600
    assert re.fullmatch(r"[A-Za-z0-9]+", step["name"])


@each_document
def test_a_document_with_the_longest_parameters_is_within_48_kb(name: str) -> None:
    declared = DOCUMENTS[name]["parameters"]
    longest = {parameter: "x" * declared[parameter].get("maxChars", 2048) for parameter in declared}
    assert len(json.dumps(DOCUMENTS[name])) + len(json.dumps(longest)) <= 48 * 1024


@each_document
def test_a_document_pastes_nothing_into_its_script(name: str) -> None:
    """The agent replaces `{{ Name }}` as text, and `{{ssm:…}}` by a parameter of the account."""
    assert "{{" not in script(name)


@each_parameter
def test_a_parameter_comes_as_environment_variable_and_has_a_pattern_for_all_of_it(name: str, parameter: str) -> None:
    declared = DOCUMENTS[name]["parameters"][parameter]
    assert declared["type"] == "String"
    assert declared["interpolationType"] == "ENV_VAR"
    assert declared["allowedPattern"].startswith("^")
    assert declared["allowedPattern"].endswith("$")
    assert declared["description"]


@each_parameter
def test_a_pattern_is_one_that_go_compiles(name: str, parameter: str) -> None:
    """The agent is written in Go: its patterns know no look-around and no repetition above 1,000."""
    pattern = DOCUMENTS[name]["parameters"][parameter]["allowedPattern"]
    assert not re.search(r"\(\?|\\\d", pattern)
    assert all(int(number) <= 1000 for number in re.findall(r"\{(?:\d+,)?(\d+)\}", pattern))


@each_parameter
def test_a_pattern_lets_the_products_own_values_through(name: str, parameter: str) -> None:
    assert accepts(name, parameter, GOOD[parameter])


@each_parameter
@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_pattern_refuses_what_a_shell_could_read_as_its_own(name: str, parameter: str, hostile: str) -> None:
    good = GOOD[parameter]
    for value in (hostile, good + hostile, hostile + good, good[:12] + hostile + good[12:]):
        assert not accepts(name, parameter, value), value


@pytest.mark.parametrize(
    ("memory", "passes", "taken"),
    [
        (10240, 10, True),
        (19456, 2, True),
        (19455, 2, False),
        (47104, 1, True),
        (47103, 1, False),
        (12287, 3, False),
        (9216, 4, True),
        (8192, 5, True),
        (8191, 16, False),
        (262144, 16, True),
        (262145, 2, False),
        (10240, 17, False),
    ],
)
@pytest.mark.parametrize("name", ["configure-notebook", "set-password"])
def test_a_hash_that_is_too_weak_or_too_dear_is_refused_as_the_api_does(
    name: str, memory: int, passes: int, taken: bool
) -> None:
    value = HASH.replace("m=10240,t=10", f"m={memory},t={passes}")
    text = archive(name)["scripts/common.sh"].decode()
    assert "\naffordable_hash\n" in archive(name)[f"scripts/{name}.sh"].decode()
    assert accepts(name, "PasswordHash", value)
    check = text[text.index("affordable_hash() {") :].split("\n}\n")[0] + "\n}\naffordable_hash\n"
    run = ["bash", "-euc", f'fail() {{ echo "$1: $2"; exit 1; }}\nPasswordHash=$1\n{check}', "bash", value]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0 if taken else 1, "")
    assert ("invalid_parameter" in done.stdout) is not taken
    assert bool(re.fullmatch(passwords.HASH_PATTERN, value)) is taken


def test_the_installer_comes_over_https_or_from_the_machine_itself() -> None:
    assert accepts("install-anaconda", "InstallerUrl", "http://127.0.0.1:5566/_local/installer.sh")
    for url in (
        "http://example.org/a.sh",
        "http://127.0.0.1.example.org/a.sh",
        "http://127.0.0.1@example.org/a.sh",
        "file:///etc/shadow",
        "ftp://example.org/a",
        "https://",
        "-o/x",
    ):
        assert not accepts("install-anaconda", "InstallerUrl", url), url


@each_document
def test_a_document_holds_its_files_as_they_are_in_the_repository(name: str) -> None:
    files = archive(name)
    assert f"scripts/{name}.sh" in files
    assert "scripts/common.sh" in files
    for path, content in files.items():
        assert content == (ROOT / "instance" / path).read_bytes()


@pytest.mark.parametrize("unit", sorted((ROOT / "instance/files").glob("*.service")), ids=lambda path: path.name)
def test_a_units_programs_are_looked_for_in_roots_folders_alone(unit: Path) -> None:
    """What a unit runs as root although it has a user (+) has the unit's environment."""
    assignments = [
        word
        for line in unit.read_text().splitlines()
        if line.startswith("Environment=")
        for word in line.removeprefix("Environment=").split()
    ]
    folders = [folder for word in assignments if word.startswith("PATH=") for folder in word[5:].split(":")]
    assert all(folder.startswith(("/usr/", "/sbin", "/bin")) for folder in folders)
    assert folders or not re.search(r"^User=", unit.read_text(), re.MULTILINE)


def test_every_script_and_file_is_in_some_document() -> None:
    carried = {path for name in DOCUMENTS for path in archive(name)}
    there = {
        str(path.relative_to(ROOT / "instance"))
        for folder in ("scripts", "files")
        for path in (ROOT / "instance" / folder).iterdir()
        if path.is_file()
    }
    assert there == carried


@each_document
def test_a_script_installs_no_file_that_its_document_does_not_carry(name: str) -> None:
    files = archive(name)
    text = files[f"scripts/{name}.sh"].decode()
    named = re.findall(r"\$(?:FILES|NOD_WORK/files)/([\w.-]+\.\w+)", text)
    named += " ".join(re.findall(r"^for file in (.+); do$", text, re.MULTILINE)).split()
    assert {f"files/{file}" for file in named} <= set(files)


def test_a_document_is_the_same_each_time_it_is_built() -> None:
    assert build.documents() == DOCUMENTS


@pytest.mark.parametrize("path", sorted((ROOT / "instance" / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_a_script_says_what_for_and_stops_at_the_first_error(path: Path) -> None:
    text = path.read_text()
    assert "# Purpose:" in text
    assert "# Constraints:" in text
    assert "set -Eeuo pipefail" in text or 'source "$NOD_WORK/scripts/common.sh"' in text
    assert not re.search(r"\beval\b", text)
    subprocess.run(["bash", "-n", path], check=True)


@each_document
def test_a_script_checks_its_parameters_by_the_documents_own_patterns(name: str) -> None:
    text = archive(name)[f"scripts/{name}.sh"].decode().replace("\\\n", " ")
    checked = dict(re.findall(r"^parameter (\w+)\s+'([^']+)'", text, re.MULTILINE))
    declared = DOCUMENTS[name]["parameters"]
    assert {parameter: pattern.replace(r"\&", "&") for parameter, pattern in checked.items()} == {
        parameter: declared[parameter]["allowedPattern"] for parameter in PARAMETERS[name]
    }


def test_the_bundle_tag_builds_plain_values_only() -> None:
    with pytest.raises(yaml.YAMLError):
        yaml.load("!!python/object/apply:os.system ['true']", Loader=build._Loader)


# --- common.sh: what every script says when something goes wrong ---


def run(body: str, folder: Path, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Runs a script that sources common.sh; its log and locks go into `folder`. Exit status, stdout, log."""
    common = (ROOT / "instance/scripts/common.sh").read_text()
    common = common.replace("/var/log/nod", f"{folder}/log").replace("/run/nod", f"{folder}/run")
    (folder / "scripts").mkdir(exist_ok=True)
    (folder / "scripts/common.sh").write_text(common)
    text = f'NAME=test\nDEFAULT_CODE=test_failed\nsource "$NOD_WORK/scripts/common.sh"\n{body}\n'
    (folder / "test.sh").write_text(text)
    done = subprocess.run(
        ["bash", folder / "test.sh"],
        env={"PATH": os.environ["PATH"], "NOD_WORK": str(folder), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    log = folder / "log/test.log"
    assert done.stderr == ""
    return done.returncode, done.stdout, log.read_text(errors="replace") if log.exists() else ""


def line(stdout: str) -> dict[str, Any]:
    (only,) = stdout.splitlines()
    parsed: dict[str, Any] = json.loads(only)
    return parsed


def test_success_is_one_line_and_noise_goes_to_the_log(tmp_path: Path) -> None:
    status, stdout, log = run('echo noise; echo more >&2; succeed free_mib:=12 prefix="a b"', tmp_path)
    assert (status, line(stdout)) == (0, {"ok": True, "free_mib": 12, "prefix": "a b"})
    assert "noise" in log
    assert "more" in log
    assert (tmp_path / "log/test.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "body",
    [
        "false",
        "x=$(false)",
        "true | false",
        "cat /does/not/exist",
        "echo $UNSET",
        "f() { false; }; f",
        "exit 0",
        "exit 7",
    ],
)
def test_what_nobody_foresaw_is_a_failure_with_code_and_place(body: str, tmp_path: Path) -> None:
    status, stdout, _ = run(body, tmp_path)
    assert status == 1
    found = line(stdout)
    assert (found["ok"], found["code"]) == (False, "test_failed")
    assert "line" in found["message"]


def test_sigterm_ends_the_children_and_says_so(tmp_path: Path) -> None:
    body = f"( sleep 0.3; kill -TERM $$ ) &\nrun sh -c 'sleep 60; touch {tmp_path}/survived'\nsucceed"
    status, stdout, _ = run(body, tmp_path)
    assert status == 1
    assert line(stdout)["code"] == "test_failed"
    assert "stopped from outside" in line(stdout)["message"]
    assert not (tmp_path / "survived").exists()
    left = subprocess.run(["pgrep", "-f", f"{tmp_path}/survived"], capture_output=True, check=False)
    assert left.returncode == 1


def test_a_message_is_json_whatever_it_holds(tmp_path: Path) -> None:
    status, stdout, _ = run("fail test_failed $'quote \" back \\\\ line\\nesc \\e byte \\xff end'", tmp_path)
    assert status == 1
    assert line(stdout)["message"].startswith('quote " back \\ line\nesc  byte ')
    assert line(stdout)["message"].endswith("end")


def test_an_agent_that_sets_no_variables_is_named(tmp_path: Path) -> None:
    _, stdout, _ = run("parameter Region '^[a-z]+$' 'a Region'; succeed", tmp_path)
    assert line(stdout)["code"] == "unsupported_system"
    assert "3.3.2746.0" in line(stdout)["message"]


@settings(deadline=None, max_examples=40)
@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40))
def test_a_parameter_is_taken_whole_or_refused(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    folder = tmp_path_factory.mktemp("parameter")
    _, stdout, _ = run('parameter Value "^[a-z]+$" "lower case"; succeed value="$Value"', folder, {"SSM_Value": value})
    if re.fullmatch("[a-z]+", value):
        assert line(stdout) == {"ok": True, "value": value}
    else:
        assert line(stdout)["code"] == "invalid_parameter"


def test_a_parameter_is_gone_from_the_environment_of_what_the_script_starts(tmp_path: Path) -> None:
    body = 'parameter PasswordHash "^.*$" "x"; env | grep -c SSM_ || true; succeed'
    _, _, log = run(body, tmp_path, {"SSM_PasswordHash": "canary", "SSM_TaskToken": "canary"})
    assert "\n0\n" in log
    assert "canary" not in log


def test_runs_of_one_document_follow_each_other(tmp_path: Path) -> None:
    body = f"one_at_a_time 20; [ ! -e {tmp_path}/in ]; touch {tmp_path}/in; sleep 0.3; rm {tmp_path}/in; succeed"
    (tmp_path / "scripts").mkdir()
    assert line(run(body, tmp_path)[1])["ok"]
    command = ["bash", str(tmp_path / "test.sh")]
    environment = {"PATH": os.environ["PATH"], "NOD_WORK": str(tmp_path)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert [line(process.communicate(timeout=30)[0])["ok"] for process in running] == [True] * 4


def test_documents_that_work_on_the_same_thing_follow_each_other_and_share_no_half_made_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("one")
    owner = f"{os.getuid()}:{os.getgid()}"
    body = f"""
        NAME=$SSM_NAME; one_at_a_time 20 password
        [ ! -e {tmp_path}/in ]; touch {tmp_path}/in
        mv() {{ ls {tmp_path}/etc >&2; command mv "$@"; }}
        put {tmp_path}/source {tmp_path}/etc/$NAME 0640 {owner}
        put {tmp_path}/source {tmp_path}/etc/shared 0640 {owner}; rm {tmp_path}/etc/shared
        sleep 0.3; rm {tmp_path}/in; succeed
    """
    assert line(run(body, tmp_path, {"SSM_NAME": "first"})[1])["ok"]
    environment = {"PATH": os.environ["PATH"], "NOD_WORK": str(tmp_path)}
    running = [
        subprocess.Popen(
            ["bash", str(tmp_path / "test.sh")],
            env={**environment, "SSM_NAME": name},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("configure-notebook", "set-password")
    ]
    assert [line(process.communicate(timeout=30)[0])["ok"] for process in running] == [True] * 2
    made = re.findall(r"^shared\.\S+$", (tmp_path / "log/test.log").read_text(), re.MULTILINE)
    assert len(set(made)) == 3
    for name in ("configure-notebook", "set-password"):
        assert re.search(r"^one_at_a_time \d+ password$", archive(name)[f"scripts/{name}.sh"].decode(), re.MULTILINE)


def test_a_file_is_put_once_and_marks_the_restart_it_asks_for(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("one")
    owner = f"{os.getuid()}:{os.getgid()}"
    body = f"""
        put {tmp_path}/source {tmp_path}/etc/target 0640 {owner}; [ -e "$PENDING" ]; rm "$PENDING"
        put {tmp_path}/source {tmp_path}/etc/target 0640 {owner}; [ ! -e "$PENDING" ]
        succeed mode="$(stat -c %a {tmp_path}/etc/target)"
    """
    assert line(run(body, tmp_path)[1]) == {"ok": True, "mode": "640"}


def installed_by(name: str, folder: str) -> set[str]:
    """The files that a document's script installs into a folder of /opt/nod."""
    text = archive(name)[f"scripts/{name}.sh"].decode()
    lists = re.findall(rf'^for file in (.+); do\n    put "\$FILES/\$file" "/opt/nod/{folder}/', text, re.MULTILINE)
    return {file for one in lists for file in one.split()}


def test_every_module_that_a_module_of_ours_imports_is_installed_beside_it() -> None:
    """The monitor's lie in a package, the server's in a folder that is on its path."""
    for name, folder, imports, start in (
        ("start-monitor", "nod_monitor", r"from \.(\w+) import", "monitor.py"),
        ("configure-notebook", "notebook", r"^\s*(?:from|import) (\w+)(?: import|$)", "notebook.py"),
    ):
        installed = installed_by(name, folder) | installed_by("prepare-instance", folder)
        assert start in installed_by(name, folder)
        ours = {path.stem for path in (ROOT / "instance/files").glob("*.py")}
        for file in installed:
            source = (ROOT / "instance/files" / file).read_text()
            imported = set(re.findall(imports, source, re.MULTILINE)) & ours
            assert {f"{module}.py" for module in imported} <= installed, file


def test_jupyter_server_proxy_comes_pinned_and_verified_and_in_the_stand_ins_version() -> None:
    lines = [line for line in (ROOT / "instance/files/server-proxy.txt").read_text().splitlines() if line[0] != "#"]
    pinned = [re.fullmatch(r"([a-z-]+==[0-9.]+) --hash=sha256:[0-9a-f]{64}", line) for line in lines]
    stand_in = (ROOT / "local/stand-in-requirements.txt").read_text().splitlines()
    assert {found[1] for found in pinned if found} <= set(stand_in)
    assert len([found for found in pinned if found]) == len(lines) == 2
    assert "--require-hashes" in archive("install-anaconda")["scripts/install-anaconda.sh"].decode()


def set_password(folder: Path, number: int, value: str) -> dict[str, object]:
    """Runs the script on files of its own, beside a server that is off and reads them when it starts."""
    text = archive("set-password")["scripts/set-password.sh"].decode()
    owner = f"{os.getuid()}:{os.getgid()}"
    body = (
        text.partition('source "$NOD_WORK/scripts/common.sh"')[2]
        .replace("/etc/nod/", f"{folder}/etc/")
        .replace("/run/nod-password/", f"{folder}/")
        .replace("root:jupyter", owner)
        .replace("systemctl is-active --quiet jupyter.service", "false")
    )
    hashed = f"argon2:$argon2id$v=19$m=19456,t=2,p=1${value * 22}${value * 43}"
    _, stdout, _ = run(body, folder, {"SSM_PasswordHash": hashed, "SSM_Number": str(number)})
    return line(stdout)


def test_an_older_password_never_comes_in_place_of_a_newer_one(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/password_hash").write_text("of the launch\n")

    def in_force() -> str:
        return (tmp_path / "etc/password_hash").read_text().strip()[-1]

    assert set_password(tmp_path, 2, "b") == {"ok": True}
    assert in_force() == "b"
    assert set_password(tmp_path, 1, "a") == {"ok": True, "overtaken": True}
    assert in_force() == "b"
    # Delivered twice, and after one that is newer.
    assert set_password(tmp_path, 2, "b") == {"ok": True}
    assert set_password(tmp_path, 10, "c") == {"ok": True}
    assert set_password(tmp_path, 9, "d") == {"ok": True, "overtaken": True}
    assert in_force() == "c"
    (tmp_path / "etc/password_number").write_text("what a broken disk left")
    assert set_password(tmp_path, 3, "e") == {"ok": True}
    assert in_force() == "e"
