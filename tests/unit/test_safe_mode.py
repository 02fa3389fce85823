"""When the notebook's server starts without its owner's configuration, and what is told of it."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from instance.files import notebook, safe_mode, server_causes, server_status
from instance.files.safe_mode import Ending, State


def ending(code: str | int, *, served: float | None = None, result: str = "exit-code", lived: float = 3.0) -> Ending:
    """A start that ended with the status of a cause, or with this status."""
    status = server_causes.CAUSES[code].status if isinstance(code, str) else code
    return Ending(result, "exited", str(status), lived if served is None else served, served)


SHUT_DOWN = ending(0, served=600.0, result="success")


def after(endings: Sequence[Ending], state: State | None = None) -> State:
    """The state for the start that follows these, each a minute after the other."""
    state, now = state or State(), 100.0
    for number, one in enumerate(endings):
        state = safe_mode.starting(state, now, f"start-{number}", 90.0)
        state = safe_mode.ended(state, one, now + one.lived)
        now += 60
    return safe_mode.starting(state, now, "last", 90.0)


def test_two_starts_that_fail_bring_safe_mode_and_its_reason() -> None:
    one, two = after([ending("configuration")]), after([ending("configuration")] * 2)
    assert (one.mode, one.since) == ("normal", None)
    assert (two.mode, two.code, two.failures, two.since) == ("safe", "configuration", 2, 220.0)


def test_one_failure_is_enough_where_the_home_cannot_be_used() -> None:
    assert (after([ending("home")]).mode, after([ending("home")]).code) == ("safe", "home")


@pytest.mark.parametrize("code", ["port_taken", "environment"])
def test_what_is_not_the_owners_configuration_brings_no_safe_mode(code: str) -> None:
    state = after([ending(code)] * 20)
    assert (state.mode, state.code, state.failures) == ("normal", code, 20)


def test_a_shut_down_in_safe_mode_tries_the_configuration_again() -> None:
    safe = after([ending("configuration")] * 2)
    assert safe.mode == "safe"
    again = after([SHUT_DOWN], safe)
    assert (again.mode, again.code, again.failures, again.since) == ("normal", None, 0, None)
    assert after([ending("configuration")] * 2, again).mode == "safe"


def test_safe_mode_that_fails_too_stays_with_its_reason() -> None:
    state = after([ending("root_dir")] * 2 + [ending(1)] * 3)
    assert (state.mode, state.code, state.failures, state.since) == ("safe", "root_dir", 5, 220.0)


def test_one_that_served_for_long_and_died_starts_as_the_first() -> None:
    died = ending(1, served=3600.0)
    assert after([ending("configuration"), died]).failures == 0
    assert after([died] * 10).mode == "normal"


def test_one_that_dies_again_and_again_soon_after_it_served_is_started_without_configuration() -> None:
    state = after([ending(1, served=5.0)] * 2)
    assert (state.mode, state.code) == ("safe", "crashes")


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_configuration_that_exits_before_it_serves_failed_whatever_its_status(status: int) -> None:
    result = "success" if status == 0 else "exit-code"
    assert after([ending(status, result=result)] * 2).mode == "safe"


def test_a_stop_by_systemctl_while_it_starts_says_nothing() -> None:
    stopped = Ending("success", "killed", "TERM", 1.0, None)
    assert after([stopped] * 5) == after([])._replace(changed=400.0)


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (ending("disk_full"), "disk_full"),
        (ending("port_taken"), "port_taken"),
        (ending(1, lived=90.0), "hangs"),
        (ending(1, lived=3.0), "ended"),
        (Ending("oom-kill", "killed", "KILL", 20.0, None), "out_of_memory"),
        (Ending("oom-kill", "killed", "KILL", 20.0, 10.0), "out_of_memory"),
        (Ending("signal", "killed", "SEGV", 2.0, None), "ended"),
        (ending(203), "environment"),
        (ending(238), "system"),
        (Ending("timeout", "killed", "KILL", 5.0, None), "hangs"),
        (Ending("", "", "", 5.0, None), "ended"),
    ],
)
def test_an_end_has_its_reason(one: Ending, code: str) -> None:
    assert safe_mode.cause(one, 90.0) == code
    assert code in server_causes.CAUSES


def test_each_cause_that_the_server_tells_has_a_status_of_its_own() -> None:
    statuses = [cause.status for cause in server_causes.CAUSES.values() if cause.status is not None]
    assert len(set(statuses)) == len(statuses)
    # 1 and 2 are Python's, from 128 on signals' and from 200 on systemd's.
    assert all(3 <= status < 128 for status in statuses)
    assert all(
        server_causes.code_of(cause.status or -1) in (code, None) for code, cause in server_causes.CAUSES.items()
    )


@pytest.mark.parametrize(
    "mark",
    ["", "{", "[" * 1024, "1", '{"invocation": "one"}', '{"invocation": "one", "at": null}']
    + [f'{{"invocation": "one", "at": {at}}}' for at in ("-1", "NaN", "1e999", "9" * 900)],
)
def test_what_the_notebooks_user_wrote_over_the_servers_mark_is_no_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    monkeypatch.setattr(safe_mode, "READY", tmp_path / "ready.json")
    (tmp_path / "ready.json").write_text(mark)
    assert safe_mode._served("one", 10.0, State(changed=5.0)) is None
    (tmp_path / "ready.json").write_text('{"invocation": "one", "at": 7.0}')
    assert safe_mode._served("one", 10.0, State(changed=5.0)) == 3.0


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"mode": "safe", "nonsense": 1}', "1"])
def test_a_state_that_cannot_be_read_is_a_new_one_or_what_can_be_read(text: str) -> None:
    assert isinstance(safe_mode.read_state(text), State)


@pytest.mark.parametrize(
    ("minute", "seconds"), [(None, 90.0), ("60", 90.0), ("1", 20.0), ("40", 60.0), ("x", 90.0), ("-1", 90.0)]
)
def test_a_start_may_take_so_long(minute: str | None, seconds: float) -> None:
    assert safe_mode.start_seconds({} if minute is None else {"NOD_MINUTE_SECONDS": minute}) == seconds


# What the server finds out before it starts.


def test_a_configuration_that_would_hold_up_its_reader_is_found(tmp_path: Path) -> None:
    folder = tmp_path / ".jupyter"
    assert notebook.unreadable_configuration(folder) is None
    (folder / "jupyter_server_config.d").mkdir(parents=True)
    (folder / "jupyter_server_config.d" / "a.json").write_text("{}")
    (folder / "jupyter_server_config.py").write_text("c = get_config()")
    (folder / "jupyter_lab_config.py").symlink_to("/nowhere")
    os.mkfifo(folder / "notes")
    assert notebook.unreadable_configuration(folder) is None
    os.mkfifo(folder / "jupyter_server_config.d" / "b.json")
    assert notebook.unreadable_configuration(folder) == folder / "jupyter_server_config.d" / "b.json"
    os.mkfifo(folder / "jupyter_config.py")
    assert notebook.unreadable_configuration(folder) == folder / "jupyter_config.py"


def test_a_device_for_a_configuration_is_found(tmp_path: Path) -> None:
    (tmp_path / "jupyter_server_config.py").symlink_to("/dev/zero")
    assert notebook.unreadable_configuration(tmp_path) is not None


@pytest.mark.parametrize("what", ["folder", "pipe", "empty", "huge", "missing", "whole"])
def test_the_key_of_the_cookies_is_used_or_made_whatever_lies_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    secret = tmp_path / "cookie_secret"
    monkeypatch.setattr(notebook, "COOKIE_SECRET", secret)
    monkeypatch.setattr(notebook, "RUN", tmp_path / "run")
    if what == "folder":
        secret.mkdir()
    elif what == "pipe":
        os.mkfifo(secret)
    elif what == "huge":
        secret.touch()
        os.truncate(secret, 1 << 40)
    elif what != "missing":
        secret.write_bytes(b"x" * (64 if what == "whole" else 0))
    found = notebook.cookie_secret_file()
    assert found == (tmp_path / "run/cookie_secret" if what == "folder" else secret)
    # Jupyter reads a file that is there, and makes one that is not.
    assert found.exists() == (what == "whole")


def test_a_data_folder_that_cannot_be_used_is_not_needed(tmp_path: Path) -> None:
    data = tmp_path / "jupyter"
    assert not notebook.signatures_are_usable(data)
    data.mkdir()
    assert notebook.signatures_are_usable(data)
    (data / "notebook_secret").touch()
    assert not notebook.signatures_are_usable(data)
    (data / "notebook_secret").write_text("secret")
    assert notebook.signatures_are_usable(data)
    os.truncate(data / "notebook_secret", 1 << 40)
    assert not notebook.signatures_are_usable(data)
    (data / "notebook_secret").unlink()
    os.mkfifo(data / "notebook_secret")
    assert not notebook.signatures_are_usable(data)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_another_program_has_is_seen(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((address, 0))
        monkeypatch.setattr(notebook, "PORT", other.getsockname()[1])
        other.listen()
        assert not notebook.port_is_free()
    assert notebook.port_is_free()


class TraitError(Exception):
    """As traitlets names it."""


def raised(error: BaseException, context: BaseException | None = None) -> BaseException:
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "full"), "disk_full"),
        (raised(SystemExit(1), OSError(errno.EDQUOT, "full")), "disk_full"),
        (OSError(errno.EADDRINUSE, "taken"), "port_taken"),
        (raised(SystemExit(1), TraitError("No such directory: '/nowhere'")), "root_dir"),
        (raised(SystemExit(1), TraitError("The port trait expects an int")), "configuration"),
        (json.JSONDecodeError("no", "{", 1), "configuration"),
        (ModuleNotFoundError("jupyterlab"), "environment"),
        (SystemExit(1), "ended"),
        (RuntimeError("?"), "ended"),
    ],
)
def test_an_exception_has_its_code(error: BaseException, code: str) -> None:
    assert notebook.code_of(error) == code


def test_what_a_file_of_the_home_raises_is_the_configurations(tmp_path: Path) -> None:
    for text in ("raise RuntimeError()", "import sys; sys.exit(0)", "import nowhere_to_be_found"):
        with pytest.raises(BaseException) as caught:
            exec(compile(text, str(tmp_path / ".jupyter/jupyter_server_config.py"), "exec"))
        assert notebook.code_of(caught.value, tmp_path) == "configuration"
        assert notebook.code_of(caught.value, tmp_path / "other") != "configuration"


# What the monitor tells.


class Machine:
    """The files that the server and safe_mode.py write."""

    def __init__(self, folder: Path) -> None:
        self.files = {name: folder / name for name in ("state", "words", "ready")}
        self.status = server_status.ServerStatus(**self.files)

    def told(self, now: float, *, answers: bool, foreign: bool = False, **state: Any) -> dict[str, Any]:
        self.files["state"].write_text(json.dumps(State(**state)._asdict()))
        return self.status.look(now, answers=answers, foreign=foreign)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_server_that_is_well_has_nothing_to_tell(machine: Machine) -> None:
    assert machine.told(1000, answers=True) == {}
    assert machine.told(1000, answers=True, failures=1, code="hangs") == {}


def test_safe_mode_is_told_with_its_reason_and_last_words(machine: Machine) -> None:
    machine.files["words"].write_text("Traceback …\n" + "x" * 5000)
    told = machine.told(1000, answers=True, mode="safe", code="configuration", failures=2, since=400.0)
    assert told["words"] == "x" * 2000
    del told["words"]
    assert told == {"mode": "safe", "code": "configuration", "safe_seconds": 600}


def test_extensions_that_are_left_out_are_told_with_bounds(machine: Machine) -> None:
    names = ["my_ext", 3, "x" * 500, "bad\nname", *(f"e{number}" for number in range(50))]
    machine.files["ready"].write_text(json.dumps({"left_out": names}))
    found = machine.told(1000, answers=True)["left_out"]
    assert found[:3] == ["my_ext", "x" * 40, "e0"]
    assert len(found) == 20
    machine.files["ready"].unlink()
    os.mkfifo(machine.files["ready"])
    began = time.monotonic()
    assert machine.told(1000, answers=True) == {}
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("state", "foreign", "code"),
    [
        ({}, False, "silent"),
        ({}, True, "port_taken"),
        ({"failures": 3, "code": "environment"}, False, "environment"),
        ({"phase": "ended", "changed": 900.0}, False, "stopped"),
        ({"phase": "ended", "changed": 995.0}, False, "silent"),
        ({"mode": "safe", "failures": 2, "code": "root_dir"}, False, "silent"),
        ({"mode": "safe", "phase": "ended", "failures": 4, "code": "root_dir", "changed": 995.0}, False, "root_dir"),
    ],
)
def test_a_server_that_does_not_answer_has_a_reason(
    machine: Machine, state: dict[str, Any], foreign: bool, code: str
) -> None:
    assert machine.told(1000, answers=False, foreign=foreign, **state)["code"] == code
    assert code in server_causes.CAUSES


def test_for_how_long_it_has_not_answered_is_counted_until_it_answers(machine: Machine) -> None:
    assert [machine.told(now, answers=False)["down_seconds"] for now in (1000, 1060)] == [0, 60]
    machine.told(1070, answers=True)
    assert machine.told(1080, answers=False)["down_seconds"] == 0


@pytest.mark.parametrize("what", ["nothing", "folder", "closed", "file", "link", "dangling"])
def test_the_folder_for_runtime_files_is_usable_whatever_is_in_its_place(tmp_path: Path, what: str) -> None:
    folder, elsewhere = tmp_path / "runtime", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    if what in ("folder", "closed"):
        folder.mkdir(mode=0o700 if what == "folder" else 0)
    elif what == "file":
        folder.touch()
    elif what != "nothing":
        folder.symlink_to(elsewhere if what == "link" else tmp_path / "nowhere")
    assert notebook.own_folder(folder) == folder
    assert (folder.is_symlink(), folder.is_dir(), stat.S_IMODE(folder.stat().st_mode)) == (False, True, 0o700)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


def test_without_a_folder_for_runtime_files_the_one_above_serves(tmp_path: Path) -> None:
    assert notebook.own_folder(tmp_path / "gone" / "runtime") == tmp_path / "gone"
