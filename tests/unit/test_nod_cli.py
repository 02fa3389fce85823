"""The client against a real HTTP server with scripted answers: in-process, as a subprocess, on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import termios
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nod import cli, refusal
from nod.clock import Clock

ROOT = Path(__file__).parents[2]
ID = "nb-0123456789abcdef0123"
TOKEN = "nod.ada.canary-token"
PASSWORD = "kumo-tave-riso-lupe-nami"
FINGERPRINT = ":".join(f"{n:02X}" for n in range(32))
STEPS = ("create_instance", "start_instance", "prepare_instance", "install_anaconda", "configure_tls",
         "start_monitor", "configure_notebook")  # fmt: skip

CHECK_ADDRESS = "  Check the address (`--url`, `NOD_URL`)."

Document = dict[str, Any]


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What the server does with one request: answer, or hang up without a word."""

    status: int = 200
    body: Document | bytes = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


Script = Callable[[Call], Answer]


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.calls: list[Call] = []
        self.script: Script = lambda call: Answer(500, {"detail": f"no script for {call.path}"})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was interrupted hangs up; that is no error of the server's."""

    def play(self, *answers: Answer | Script) -> None:
        """One answer a request; the last one for all that follow."""
        left = list(answers)

        def script(call: Call) -> Answer:
            answer = left.pop(0) if len(left) > 1 else left[0]
            return answer if isinstance(answer, Answer) else answer(call)

        self.script = script

    def paths(self) -> list[str]:
        return [f"{call.method} {call.path}" for call in self.calls]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def _any(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        call = Call(self.command, parts.path, parse_qs(parts.query), dict(self.headers), body)
        self.server.calls.append(call)
        answer = self.server.script(call)
        if answer.hang_up:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _any  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def environment(server: Server, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "SYSTEMROOT", "LANG")}
    return kept | {
        "NOD_URL": server.url,
        "NOD_TOKEN": TOKEN,
        "XDG_CONFIG_HOME": str(home),
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
    }


class FastClock(Clock):
    """Time that passes by sleeping only, at once."""

    slept: list[float]

    def __init__(self) -> None:
        self.slept = []

    def monotonic(self) -> float:
        return 1000 + sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@dataclass
class Result:
    code: int
    out: str
    err: str
    slept: list[float]

    def json(self) -> Any:
        """The one document of stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        return json.loads(lines[0])


Nod = Callable[..., Result]


@pytest.fixture
def nod(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nod:
    """Runs the command in this process; its waits take no time."""
    for name in list(os.environ):
        if name.startswith("NOD_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in environment(server, tmp_path).items():
        monkeypatch.setenv(name, value)
    clock = FastClock()
    monkeypatch.setattr(cli, "Clock", lambda: clock)

    def run(*arguments: str) -> Result:
        clock.slept.clear()
        try:
            code = cli.main(arguments)
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 1
        captured = capsys.readouterr()
        assert TOKEN not in captured.out + captured.err
        return Result(code, captured.out, captured.err, list(clock.slept))

    return run


def notebook(state: str, **fields: Any) -> Document:
    ready = state == "ready"
    return {
        "id": ID,
        "owner": "ada",
        "name": "thesis",
        "state": state,
        "steps": [{"name": name, "state": "waiting", "started_at": None, "finished_at": None} for name in STEPS],
        "url": "https://ec2-203-0-113-25.us-east-1.compute.amazonaws.com:8888" if ready else None,
        "link": None,
        "certificate_sha256": FINGERPRINT if ready else None,
        "instance_type": "t3.medium",
        "instance_id": "i-0123456789abcdef0",
        "address": None,
        "idle_minutes": 60,
        "max_hours": None,
        "created_at": "2026-01-02T12:00:00Z",
        "ready_at": None,
        "last_active_at": None,
        "last_activity": None,
        "stops_at": None,
        "run_started_at": None,
        "stopped_at": None,
        "stop": None,
        "hold_until": None,
        "cost": {"currency": "USD", "per_hour": "0.0499", "so_far": None},
        "notifications": [{"channel": "email", "state": "unconfirmed"}],
        "error": None,
    } | fields


def stopped(**fields: Any) -> Answer:
    return Answer(
        200,
        notebook(
            "stopped",
            steps=steps_until(7),
            certificate_sha256=FINGERPRINT,
            stop={"code": "idle", "reason": "idle since 14:05 UTC: no input, kernel idle", "by": "sweep"},
            cost={"currency": "USD", "per_hour": 0.0499, "so_far": 1.1},
            **({"stopped_at": "2026-01-02T15:00:00Z"} | fields),
        ),
    )


def moment(**distance: float) -> str:
    """A time as the API writes it, so far from now."""
    return (datetime.now(UTC) + timedelta(**distance)).isoformat().replace("+00:00", "Z")


def steps_until(count: int, *, running: int = 0) -> list[Document]:
    """`count` steps done after 2 s each, `running` after them under way."""
    begin = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
    found: list[Document] = []
    for number, name in enumerate(STEPS):
        started = (begin + timedelta(seconds=2 * number)).isoformat()
        finished = (begin + timedelta(seconds=2 * number + 2)).isoformat()
        state = "done" if number < count else "running" if number < count + running else "waiting"
        found.append({
            "name": name,
            "state": state,
            "started_at": None if state == "waiting" else started,
            "finished_at": finished if state == "done" else None,
        })  # fmt: skip
    return found


def accepted(**fields: Any) -> Answer:
    return Answer(202, {**notebook("requested"), "password": PASSWORD, **fields})


def problem(status: int, code: str, detail: str, **fields: Any) -> Answer:
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, **fields}
    return Answer(status, body, {"Content-Type": "application/problem+json"})


READY = Answer(200, notebook("ready", steps=steps_until(7)))


class TestRequest:
    def test_a_launch_is_followed_until_the_link(self, server: Server, nod: Nod) -> None:
        server.play(
            accepted(warnings=["t3.micro has 1 GiB of memory."]),
            Answer(200, notebook("launching", steps=steps_until(3, running=2))),
            READY,
        )
        result = nod("request", "--name", "thesis")
        assert result.code == 0
        assert server.paths() == ["POST /notebooks", f"GET /notebooks/{ID}", f"GET /notebooks/{ID}"]
        for words in (
            "https://ec2-203-0-113-25.us-east-1.compute.amazonaws.com:8888\n",
            f"{PASSWORD}\n",
            "Shown this once",
            f"SHA-256 {FINGERPRINT}\n",
            "compare its SHA-256 fingerprint",
            "t3.medium",
            "USD 0.0499 an hour",
            "after 1 h without use",
            f"nod stop {ID} stops it",
            "email: not confirmed. A mail from AWS asks to confirm",
        ):
            assert words in result.out
        assert "Warning: t3.micro has 1 GiB of memory." in result.err
        assert PASSWORD not in result.err
        assert "\x1b" not in result.out + result.err

    def test_plain_progress_has_a_line_for_each_change(self, server: Server, nod: Nod) -> None:
        half = Answer(200, notebook("launching", steps=steps_until(3, running=2)))
        server.play(accepted(), half, half, half, READY)
        lines = nod("request").err.splitlines()
        assert lines == [
            "[    0 s] thesis: requested",
            "[    0 s] Create Instance: done (2.0 s)",
            "[    0 s] Start Instance: done (2.0 s)",
            "[    0 s] Prepare Instance: done (2.0 s)",
            "[    0 s] Install Anaconda: running",
            "[    0 s] Configure TLS: running",
            "[    0 s] thesis: launching",
            "[    3 s] Install Anaconda: done (2.0 s)",
            "[    3 s] Configure TLS: done (2.0 s)",
            "[    3 s] Start Monitor: done (2.0 s)",
            "[    3 s] Configure Notebook: done (2.0 s)",
            "[    3 s] thesis: ready",
        ]

    def test_only_what_was_given_is_sent(self, server: Server, nod: Nod) -> None:
        server.play(accepted(), READY)
        nod("request")
        assert server.calls[0].json() == {}
        assert server.calls[0].headers["Authorization"] == f"Bearer {TOKEN}"
        assert len(server.calls[0].headers["Idempotency-Key"]) == 36
        server.play(accepted())
        server.calls.clear()
        nod("request", "--name", "thesis", "--type", "m5.large", "--volume-gib", "50", "--idle-minutes", "30",
            "--max-hours", "8", "--password-hash", "argon2:x", "--notify", "email", "slack:team", "--notify",
            "slack:lab", "--no-wait", "--idempotency-key", "abc")  # fmt: skip
        assert server.paths() == ["POST /notebooks"]
        assert server.calls[0].headers["Idempotency-Key"] == "abc"
        assert server.calls[0].json() == {
            "name": "thesis",
            "instance_type": "m5.large",
            "volume_gib": 50,
            "idle_minutes": 30,
            "max_hours": 8,
            "password_hash": "argon2:x",
            "notify": ["email", "slack:team", "slack:lab"],
        }

    def test_two_requests_have_two_keys(self, server: Server, nod: Nod) -> None:
        server.play(accepted())
        nod("request", "--no-wait")
        nod("request", "--no-wait")
        first, second = (call.headers["Idempotency-Key"] for call in server.calls)
        assert first != second

    def test_without_waiting_it_says_how_to_follow(self, server: Server, nod: Nod) -> None:
        server.play(accepted())
        result = nod("request", "--no-wait")
        assert result.code == 0
        assert PASSWORD in result.out
        assert f"nod show {ID} --watch" in result.err

    def test_json_is_one_document_with_the_password(self, server: Server, nod: Nod) -> None:
        server.play(accepted(warnings=["small"], message="Keep it."), Answer(200, notebook("launching")), READY)
        result = nod("request", "--json")
        assert result.json() == {
            **READY.body,  # type: ignore[dict-item]
            "password": PASSWORD,
            "warnings": ["small"],
            "message": "Keep it.",
        }
        assert "thesis: ready" in result.err

    def test_a_failed_launch_says_why(self, server: Server, nod: Nod) -> None:
        steps = steps_until(3)
        steps[3]["state"] = "failed"
        error = {"code": "disk_full", "message": "Ask for a volume of at least 20 GiB."}
        server.play(accepted(), Answer(200, notebook("failed", error=error, steps=steps)))
        result = nod("request")
        assert result.code == 1
        assert "thesis is failed: Ask for a volume of at least 20 GiB. (disk_full)" in result.err
        assert "It failed in: Install Anaconda." in result.err
        assert result.out == ""
        steps[4]["state"] = "cancelled"
        failed = notebook("failed", error=error, steps=steps)
        server.play(
            accepted(), Answer(200, notebook("launching", steps=steps_until(3, running=2))), Answer(200, failed)
        )
        result = nod("request")
        assert "It failed in: Install Anaconda." in result.err
        assert "Install Anaconda: failed" in result.err
        assert "Configure TLS: cancelled" in result.err
        server.play(Answer(200, failed))
        shown = nod("show", str(failed["id"])).out
        assert shown.count("Failed in") == 1
        assert "Configure TLS         cancelled" in shown
        server.play(accepted(), Answer(200, notebook("failed", error=error)))
        result = nod("request", "--json")
        assert result.code == 1
        assert result.json()["error"] == error

    def test_deleted_while_it_launched(self, server: Server, nod: Nod) -> None:
        server.play(accepted(), Answer(200, notebook("terminating")), Answer(200, notebook("terminated")))
        result = nod("request")
        assert result.code == 1
        assert "thesis is terminated." in result.err

    def test_the_timeout_ends_the_wait_and_keeps_the_password(self, server: Server, nod: Nod) -> None:
        server.play(accepted(), Answer(200, notebook("launching")))
        result = nod("request", "--timeout", "10")
        assert result.code == 4
        assert sum(result.slept) == pytest.approx(10)
        assert PASSWORD in result.out
        assert "still launching" in result.err
        assert "The launch goes on." in result.err
        assert f"nod delete {ID}" in result.err
        server.play(accepted(), Answer(200, notebook("launching")))
        result = nod("request", "--timeout", "10", "--json")
        assert (result.json()["state"], result.json()["password"]) == ("launching", PASSWORD)

    def test_a_refusal_names_field_and_bounds(self, server: Server, nod: Nod) -> None:
        errors = [{"field": "volume_gib", "message": "too small.", "allowed": "16 to 16384"}]
        server.play(problem(422, "invalid_fields", "One field is not valid.", errors=errors))
        result = nod("request", "--volume-gib", "1")
        assert result.code == 1
        assert len(server.calls) == 1
        assert result.err.splitlines() == [
            "nod: --volume-gib: too small. Allowed: 16 to 16384",
            "  (422 invalid_fields)",
        ]
        assert nod("request", "--json").json() == {
            "error": {
                "code": "invalid_fields",
                "message": "One field is not valid.",
                "hints": [],
                "status": 422,
                "fields": [{"field": "volume_gib", "message": "too small.", "allowed": "16 to 16384"}],
            }
        }

    def test_all_fields_are_named_as_they_were_typed(self, server: Server, nod: Nod) -> None:
        errors = [
            {"field": "idle_minutes", "message": "It is out of bounds.", "allowed": "5 to 1440"},
            {"field": "notify[1]", "message": "It does not have the right form.", "allowed": "email or slack:NAME"},
        ]
        detail = "idle_minutes: It is out of bounds. Allowed: 5 to 1440. And 1 more."
        server.play(problem(422, "invalid_fields", detail, errors=errors))
        assert nod("request").err.splitlines() == [
            "nod: --idle-minutes: It is out of bounds. Allowed: 5 to 1440",
            "     --notify (notify[1]): It does not have the right form. Allowed: email or slack:NAME",
            "  (422 invalid_fields)",
        ]

    def test_of_many_allowed_types_the_closest_are_shown(self, server: Server, nod: Nod) -> None:
        types = [f"{family}{n}.{size}" for family in "abcdmrt" for n in range(20) for size in ("medium", "large")]
        errors = [{"field": "instance_type", "message": "Not one of those known.", "allowed": ", ".join(types)}]
        server.play(problem(422, "invalid_fields", "instance_type: Not known.", errors=errors))
        line = nod("request", "--type", "m7.larg").err.splitlines()[0]
        shown, rest = line.removeprefix("nod: --type: Not one of those known. Allowed: ").split(" and ")
        found = shown.split(", ")
        assert found[0] == "m7.large"
        assert "t3.medium" in found
        assert len(found) == 8
        assert set(found) <= set(types)
        assert rest == f"{len(types) - 8} more; the same command with --json lists all."
        fields = nod("request", "--type", "m7.larg", "--json").json()["error"]["fields"]
        assert fields[0]["allowed"] == ", ".join(types)

    def test_a_forbidden_type_is_a_refusal_and_not_a_bad_token(self, server: Server, nod: Nod) -> None:
        server.play(problem(403, "not_allowed", "p3.2xlarge is not for you."))
        assert nod("request").code == 1
        server.play(Answer(403, {"message": "Forbidden"}))
        assert nod("request").code == 3


class TestRetry:
    def test_a_lost_answer_is_asked_for_again_with_the_same_key(self, server: Server, nod: Nod) -> None:
        server.play(Answer(hang_up=True), Answer(503, {}), accepted(password=None), READY)
        result = nod("request")
        assert result.code == 0
        assert server.paths()[:3] == ["POST /notebooks"] * 3
        assert len({call.headers["Idempotency-Key"] for call in server.calls[:3]}) == 1
        assert len({call.body for call in server.calls[:3]}) == 1
        assert "Trying again in" in result.err
        assert "Password     not known" in result.out
        assert "An answer got lost on the way" in result.out
        assert f"nod password {ID}" in result.out

    def test_a_replay_by_key_says_where_the_password_was(self, server: Server, nod: Nod) -> None:
        server.play(accepted(password=None), READY)
        assert "This request was made before" in nod("request", "--idempotency-key", "k").out

    def test_a_password_of_ones_own_is_not_missed(self, server: Server, nod: Nod) -> None:
        server.play(accepted(password=None), READY)
        result = nod("request", "--password-hash", "argon2:x")
        assert "the one you gave" in result.out
        assert "not known" not in result.out

    def test_retry_after_is_honoured(self, server: Server, nod: Nod) -> None:
        busy = problem(429, "throttled", "Too many requests.")
        busy.headers["Retry-After"] = "7"
        server.play(busy, accepted())
        result = nod("request", "--no-wait")
        assert result.code == 0
        assert result.slept == [7.0]
        assert "Too many requests. Trying again in 7.0 s." in result.err

    def test_a_server_that_asks_for_too_much_patience_is_left(self, server: Server, nod: Nod) -> None:
        server.play(Answer(503, {}, {"Retry-After": "3600"}))
        result = nod("request")
        assert (result.code, result.slept, len(server.calls)) == (3, [], 1)

    def test_when_all_fails_the_key_is_told(self, server: Server, nod: Nod) -> None:
        server.play(problem(500, "internal", "Something broke."))
        result = nod("request")
        assert result.code == 3
        assert len(server.calls) == 6
        key = server.calls[0].headers["Idempotency-Key"]
        assert f"--idempotency-key {key}" in result.err
        assert "Something broke." in result.err

    def test_where_nothing_was_sent_nothing_is_in_doubt(self, nod: Nod) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            result = nod("request", "--url", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert result.code == 3
        assert "Connection refused" in result.err
        assert CHECK_ADDRESS in result.err
        assert "--idempotency-key" not in result.err

    def test_a_lost_connection_is_borne_while_waiting(self, server: Server, nod: Nod) -> None:
        server.play(accepted(), *[Answer(502, b"<html>")] * 12, READY)
        result = nod("request")
        assert result.code == 0
        assert result.err.count("Trying again") == 12
        assert "Connected again" in result.err

    def test_a_connection_that_stays_lost_ends_with_the_timeout(self, server: Server, nod: Nod) -> None:
        server.play(accepted(), Answer(hang_up=True))
        result = nod("request", "--timeout", "60")
        assert result.code == 3
        assert sum(result.slept) <= 60
        assert PASSWORD in result.out
        assert "The launch goes on." in result.err

    def test_a_revoked_token_ends_the_wait_but_keeps_the_password(self, server: Server, nod: Nod) -> None:
        server.play(accepted(), problem(401, "not_authenticated", "The token is not valid."))
        result = nod("request")
        assert result.code == 3
        assert len(server.calls) == 2
        assert PASSWORD in result.out
        assert result.err.count("The API does not accept this token.") == 1
        assert "--token-file, NOD_TOKEN, the configuration file" in result.err

    def test_http_behind_an_https_address_is_said_at_once(self, server: Server, nod: Nod) -> None:
        result = nod("list", "--url", server.url.replace("http", "https"))
        assert result.code == 3
        assert result.err.splitlines() == [
            f"nod: {server.url.replace('http', 'https')} speaks no https; perhaps it is http.",
            CHECK_ADDRESS,
        ]
        assert result.slept == []

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(404, b"<html>Not here</html>"),
            Answer(404, {"message": "Not Found"}),
            Answer(403, {"message": "Missing Authentication Token"}),
            Answer(501, b"<html>Unsupported method</html>"),
            Answer(302, {}, {"Location": "https://example.org"}),
            problem(403, "no_route", "There is no such path or method here."),
        ],
    )
    def test_what_a_wrong_address_answers_leads_to_the_address(self, server: Server, nod: Nod, answer: Answer) -> None:
        server.play(answer)
        result = nod("list")
        assert result.code == 3
        assert result.err.splitlines()[-1] == CHECK_ADDRESS

    def test_an_untrusted_certificate_is_refused_at_once(self, server: Server, nod: Nod, tmp_path: Path) -> None:
        tls(server, tmp_path)
        result = nod("list", "--url", server.url.replace("http", "https"))
        assert result.code == 3
        assert "cannot be verified" in result.err
        assert result.slept == []
        assert server.calls == []

    def test_an_authority_of_ones_own(
        self, server: Server, nod: Nod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(tls(server, tmp_path)))
        server.play(Answer(200, {"notebooks": []}))
        assert nod("list", "--url", server.url.replace("http", "https")).code == 0

    def test_a_proxy_does_not_see_what_goes_to_this_machine(
        self, server: Server, nod: Nod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        server.play(Answer(200, {"notebooks": []}))
        assert nod("list").code == 0

    def test_a_redirect_does_not_carry_the_token_away(self, server: Server, nod: Nod) -> None:
        server.play(Answer(302, {}, {"Location": f"{server.url}/elsewhere"}))
        result = nod("list")
        assert result.code == 3
        assert server.paths() == ["GET /notebooks"]

    @pytest.mark.parametrize("body", [b"<html>Log in</html>", b"[]", b"\xff", b"", b'{"notebooks": 3}', b"[" * 100_000])
    def test_what_is_not_the_api_is_said(self, server: Server, nod: Nod, body: bytes) -> None:
        server.play(Answer(200, body))
        result = nod("list")
        assert result.code == 3
        assert result.err.startswith("nod: ")


def tls(server: Server, folder: Path) -> Path:
    """Puts the server behind a certificate of its own, for 127.0.0.1, and returns where that is."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "key").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path = folder / "certificate"
    path.write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, folder / "key")
    # The handshake belongs to the connection's thread: a client that refuses must not hold up accept().
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    return path


class TestListAndShow:
    def test_an_unknown_id_leads_to_the_list(self, server: Server, nod: Nod) -> None:
        server.play(problem(404, "not_found", "There is no such notebook."))
        result = nod("show", ID)
        assert result.code == 1
        assert "`nod list` shows them." in result.err

    def test_all_pages(self, server: Server, nod: Nod) -> None:
        server.play(
            Answer(200, {"notebooks": [notebook("ready")], "next": "a b&c"}),
            Answer(200, {"notebooks": [notebook("failed", name="second", cost={})], "next": None}),
        )
        result = nod("list")
        assert server.calls[1].query == {"next": ["a b&c"]}
        head, first, second = result.out.splitlines()
        assert head.split() == [
            "NAME", "ID", "STATE", "TYPE", "STOPS", "SO", "FAR", "ACTIVE", "PRICE/H", "AGE", "ADDRESS",
        ]  # fmt: skip
        assert first.split()[:4] == ["thesis", ID, "ready", "t3.medium"]
        assert first.rstrip().endswith("https://ec2-203-0-113-25.us-east-1.compute.amazonaws.com:8888")
        assert second.split()[:3] == ["second", ID, "failed"]

    def test_pages_that_go_in_a_circle_end(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, {"notebooks": [notebook("ready")], "next": "again"}))
        assert len(nod("--json", "list").json()["notebooks"]) == 2

    def test_none(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, {"notebooks": [], "next": None}))
        result = nod("list")
        assert (result.code, result.out) == (0, "")
        assert "nod request" in result.err
        assert nod("list", "--json").json() == {"notebooks": []}

    def test_show(self, server: Server, nod: Nod) -> None:
        server.play(READY)
        result = nod("show", ID)
        assert result.code == 0
        assert FINGERPRINT in result.out
        assert "Password" not in result.out
        assert nod("show", ID, "--json").json() == READY.body

    def test_show_of_a_launch_has_its_steps(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, notebook("launching", steps=steps_until(1, running=1))))
        out = nod("show", ID).out
        assert re.search(r"Create Instance +done +2\.0 s", out)
        assert re.search(r"Start Instance +running", out)
        assert re.search(r"Configure Notebook +waiting\n", out)

    def test_what_is_not_there(self, server: Server, nod: Nod) -> None:
        server.play(problem(404, "not_found", "There is no such notebook."))
        result = nod("show", ID)
        assert result.code == 1
        assert "There is no such notebook." in result.err

    @pytest.mark.parametrize("wrong", ["../health", "", "nb-0123456789ABCDEF0123", "%2e", "-", "a" * 41, "a_b"])
    def test_what_is_neither_id_nor_name_is_not_sent(self, server: Server, nod: Nod, wrong: str) -> None:
        for command in ("show", "delete", "stop", "start", "password", "link", "open", "events"):
            assert nod(command, "--", wrong).code == 2
        assert nod("extend", "--", wrong, "2").code == 2
        assert server.calls == []

    @pytest.mark.parametrize("name", ["thesis", "nb-0"])
    def test_deleting_takes_the_id_only(self, server: Server, nod: Nod, name: str) -> None:
        result = nod("delete", name, "--yes")
        assert result.code == 2
        assert "not a notebook's id" in result.err
        assert server.calls == []

    def test_show_tells_use_stop_hold_and_cost(self, server: Server, nod: Nod) -> None:
        link = f"https://api.example.org/n/{ID}?k=abc"
        server.play(
            Answer(
                200,
                notebook(
                    "ready",
                    link=link,
                    last_active_at=moment(minutes=-37),
                    last_activity="a kernel was busy",
                    stops_at=moment(minutes=23, seconds=20),
                    disk={"free_gib": 0.05, "size_gib": 29.0},
                    hold_until=moment(minutes=-1),
                    cost={"currency": "USD", "per_hour": 0.0499, "so_far": 0.2412},
                ),
            )
        )
        out = nod("show", ID).out
        assert f"Link         {link}\n" in out
        assert "Address      https://ec2-203-0-113-25.us-east-1.compute.amazonaws.com:8888\n" in out
        assert re.search(r"Last active  \d{4}-\d\d-\d\d \d\d:\d\d \(37 min ago\): a kernel was busy\n", out)
        assert re.search(r"Stops        \d{4}-\d\d-\d\d \d\d:\d\d at the earliest \(in 23 min\)\n", out)
        assert "USD 0.0499 an hour while it runs; USD 0.2412 so far" in out
        assert "Disk         0.05 GiB free of 29 GiB\n" in out
        # What is over holds nothing.
        assert "Held" not in out
        server.play(Answer(200, notebook("ready", stops_at=moment(hours=3), hold_until=moment(hours=2, seconds=30))))
        out = nod("show", ID).out
        assert re.search(r"Held         until .* \(in 2 h\)\n", out)
        assert "Disk" not in out

    def test_show_of_a_stopped_one_tells_why(self, server: Server, nod: Nod) -> None:
        server.play(stopped(stopped_at=moment(hours=-3, minutes=-10)))
        out = nod("show", ID).out
        assert re.search(r"Stopped      .* \(3 h 10 min ago\)\n", out)
        assert "Why          idle since 14:05 UTC: no input, kernel idle (by itself)\n" in out
        assert f"nod start {ID}" in out
        assert "now for its disk only" in out
        # No machine is there that could show a certificate, and nothing will stop.
        assert "SHA-256" not in out
        assert "Stops" not in out

    def test_list_tells_when_each_stops_or_why_it_stopped(self, server: Server, nod: Nod) -> None:
        running = notebook("ready", stops_at=moment(minutes=23, seconds=20), last_active_at=moment(minutes=-37))
        kept = notebook("ready", stops_at=moment(hours=2, seconds=30), hold_until=moment(hours=2, seconds=30))
        server.play(Answer(200, {"notebooks": [running, kept, stopped(stopped_at=moment(hours=-3)).body]}))
        _, first, second, third = nod("list").out.splitlines()
        assert re.search(r"t3.medium +in 23 min +- +37 min ago +USD 0.0499", first)
        assert re.search(r"t3.medium +in 2 h, held +", second)
        assert re.search(r"stopped +t3.medium +3 h ago: idle +USD 1.1 +", third)

    def test_watch_ends_when_nothing_will_change(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, notebook("launching")), READY)
        result = nod("show", ID, "--watch")
        assert result.code == 0
        assert "thesis: ready" in result.err
        assert FINGERPRINT in result.out

    def test_watch_of_a_failure_fails(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, notebook("failed", error={"code": "c", "message": "m"})))
        assert nod("show", ID, "--watch").code == 1

    def test_watch_of_a_deletion_ends_with_it(self, server: Server, nod: Nod) -> None:
        going = Answer(200, notebook("terminating"))
        server.play(going, problem(404, "not_found", "Gone."))
        result = nod("show", ID, "--watch")
        assert result.code == 0
        assert "thesis is gone." in result.err
        server.play(going, Answer(200, notebook("terminated")))
        assert nod("show", ID, "--watch").code == 0

    def test_watch_in_json_has_a_line_for_each_change(self, server: Server, nod: Nod) -> None:
        launching = Answer(200, notebook("launching"))
        server.play(launching, launching, READY)
        lines = nod("show", ID, "--watch", "--json").out.splitlines()
        assert [json.loads(line)["state"] for line in lines] == ["launching", "ready"]

    def test_hostile_text_does_not_reach_the_terminal(self, server: Server, nod: Nod) -> None:
        evil = "a\x1b[2J\x9b1m\r\n\x07\u202eb\x7f"
        error = {"code": evil, "message": evil}
        server.play(Answer(200, notebook("failed", name=evil, url=evil, error=error, certificate_sha256=evil)))
        for arguments in (("show", ID), ("show", ID, "--watch"), ("show", ID, "--json")):
            result = nod(*arguments)
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.out + result.err)
        server.play(problem(422, evil, evil, errors=[{"field": evil, "message": evil, "allowed": [evil]}]))
        result = nod("request")
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.out + result.err)
        assert "a[2J1m  b" in result.err


class TestStopAndStart:
    def test_stop(self, server: Server, nod: Nod) -> None:
        server.play(Answer(202, notebook("stopping")))
        result = nod("stop", ID)
        assert result.code == 0
        assert server.paths() == [f"POST /notebooks/{ID}/stop"]
        assert server.calls[0].body == b""
        assert "thesis is being stopped" in result.out
        assert f"nod show {ID} --watch" in result.out
        assert f"nod start {ID}" in result.out
        assert all(re.match(r"  [A-Z]", line) for line in result.out.splitlines()[1:])
        assert nod("stop", ID, "--json").json()["state"] == "stopping"

    def test_cancelling_a_launch_removes_it_without_a_question(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, notebook("launching")), Answer(202, notebook("terminating")))
        done = nod("cancel", ID)
        assert done.code == 0
        assert server.paths() == [f"GET /notebooks/{ID}", f"DELETE /notebooks/{ID}"]
        assert server.calls[1].query == {"confirm": ["thesis"]}
        assert "The launch of thesis is cancelled" in done.out
        assert f"nod show {ID} --watch" in done.out

    @pytest.mark.parametrize(
        ("state", "ways"),
        [
            ("ready", ("nod stop", "nod delete")),
            ("stopped", ("nod delete",)),
            ("failed", ("nod delete",)),
            ("terminated", ()),
        ],
    )
    def test_what_is_no_launch_is_not_cancelled(
        self, server: Server, nod: Nod, state: str, ways: tuple[str, ...]
    ) -> None:
        server.play(Answer(200, notebook(state)))
        done = nod("cancel", ID)
        assert done.code == 1
        assert server.paths() == [f"GET /notebooks/{ID}"], "data may be on its disk"
        assert f"thesis is {state}" in done.err
        assert [way for way in ("nod stop", "nod delete") if way in done.err] == list(ways)

    def test_stop_of_a_stopped_one_is_refused_in_the_apis_words(self, server: Server, nod: Nod) -> None:
        server.play(problem(409, "wrong_state", "It is stopped already."))
        result = nod("stop", ID)
        assert result.code == 1
        assert result.err.splitlines() == ["nod: It is stopped already.", "  (409 wrong_state)"]
        errors = [{"field": "state", "message": "It is stopped.", "allowed": "ready"}]
        server.play(problem(409, "wrong_state", "It is stopped already.", errors=errors))
        assert nod("stop", ID).err == result.err
        server.calls.pop()
        assert len(server.calls) == 1

    def test_a_start_is_followed_until_the_link(self, server: Server, nod: Nod) -> None:
        starting = notebook("starting", steps=steps_until(7))
        link = f"https://api.example.org/n/{ID}?k=abc"
        ready = Answer(200, notebook("ready", steps=steps_until(7), link=link))
        server.play(Answer(202, starting), Answer(200, starting), ready)
        result = nod("start", ID)
        assert result.code == 0
        assert server.paths() == [f"POST /notebooks/{ID}/start", f"GET /notebooks/{ID}", f"GET /notebooks/{ID}"]
        assert f"{link}\n" in result.out
        assert FINGERPRINT in result.out
        # The steps of the launch are long past, and are not told as if they were the start's.
        assert result.err.splitlines() == ["[    0 s] thesis: starting", "[    1 s] thesis: ready"]
        server.play(Answer(202, starting), ready)
        assert nod("start", ID, "--json").json() == ready.body

    def test_a_start_without_waiting(self, server: Server, nod: Nod) -> None:
        server.play(Answer(202, notebook("starting")))
        result = nod("start", ID, "--no-wait")
        assert result.code == 0
        assert len(server.calls) == 1
        assert f"nod show {ID} --watch" in result.err
        assert nod("start", ID, "--no-wait", "--json").json()["state"] == "starting"

    def test_a_start_that_fails_says_why(self, server: Server, nod: Nod) -> None:
        error = {"code": "no_capacity", "message": "EC2 has no t3.medium now. The disk is untouched."}
        for arguments in (("start", ID), ("show", ID, "--watch")):
            server.play(Answer(202, notebook("starting")), stopped(error=error))
            result = nod(*arguments)
            assert result.code == 1
            assert "thesis is stopped: EC2 has no t3.medium now. The disk is untouched. (no_capacity)" in result.err
            assert f"nod show {ID}" in result.err
        server.play(Answer(202, notebook("starting")), stopped(error=error))
        result = nod("start", ID, "--json")
        assert (result.code, result.json()["error"]) == (1, error)

    def test_a_stop_that_fails_fails_the_watch(self, server: Server, nod: Nod) -> None:
        error = {"code": "stop_failed", "message": "EC2 refused."}
        server.play(Answer(200, notebook("stopping")), Answer(200, notebook("ready", error=error)))
        result = nod("show", ID, "--watch")
        assert result.code == 1
        assert "thesis is ready: EC2 refused. (stop_failed)" in result.err
        server.play(Answer(200, notebook("stopping")), stopped())
        assert nod("show", ID, "--watch").code == 0

    def test_stopped_while_it_starts(self, server: Server, nod: Nod) -> None:
        server.play(Answer(202, notebook("starting")), Answer(200, notebook("stopping")), stopped())
        result = nod("start", ID)
        assert result.code == 1
        assert "thesis is stopped: idle since 14:05 UTC" in result.err

    def test_the_timeout_ends_the_wait_not_the_start(self, server: Server, nod: Nod) -> None:
        server.play(Answer(202, notebook("starting")))
        result = nod("start", ID, "--timeout", "10")
        assert result.code == 4
        assert "The start goes on." in result.err
        server.play(Answer(202, notebook("starting")), problem(404, "not_found", "There is no such notebook."))
        result = nod("start", ID)
        assert result.code == 1
        assert "The start goes on." not in result.err

    def test_beyond_the_quota(self, server: Server, nod: Nod) -> None:
        server.play(problem(409, "quota_exceeded", "Two of your notebooks run, as many as may."))
        result = nod("start", ID)
        assert result.code == 1
        assert "(409 quota_exceeded)" in result.err

    @pytest.mark.parametrize(
        ("command", "state", "code"),
        [("stop", "stopping", 0), ("stop", "ready", 1), ("start", "ready", 0), ("start", "stopped", 1)],
    )
    def test_a_lost_answer_is_not_taken_for_a_refusal(
        self, server: Server, nod: Nod, command: str, state: str, code: int
    ) -> None:
        """The try whose answer got lost was heard, so the second one is refused: what counts is the state."""
        refusal = problem(409, "wrong_state", "Not in this state.")
        server.play(Answer(hang_up=True), refusal, Answer(200, notebook(state)))
        result = nod(command, ID)
        assert result.code == code
        assert server.paths()[:3] == [f"POST /notebooks/{ID}/{command}"] * 2 + [f"GET /notebooks/{ID}"]

    def test_a_refusal_after_throttling_is_a_refusal(self, server: Server, nod: Nod) -> None:
        server.play(problem(429, "throttled", "Too many."), problem(409, "wrong_state", "It is ready."))
        assert nod("start", ID).code == 1
        assert len(server.calls) == 2


class TestNames:
    OTHER = "nb-ffffffffffffffffffff"

    def test_a_name_stands_for_its_id(self, server: Server, nod: Nod) -> None:
        listed = Answer(200, {"notebooks": [notebook("ready", id=self.OTHER, name="other"), notebook("ready")]})
        server.play(listed, Answer(202, notebook("stopping")))
        assert nod("stop", "thesis").code == 0
        assert server.paths() == ["GET /notebooks", f"POST /notebooks/{ID}/stop"]

    def test_the_one_that_can_run_is_meant(self, server: Server, nod: Nod) -> None:
        gone = [notebook(state, id=self.OTHER) for state in ("failed", "terminating", "terminated")]
        server.play(Answer(200, {"notebooks": [*gone, notebook("stopped")]}), Answer(202, notebook("starting")))
        assert nod("start", "thesis", "--no-wait").code == 0
        assert server.paths()[1] == f"POST /notebooks/{ID}/start"

    def test_two_of_a_name_are_not_guessed(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, {"notebooks": [notebook("ready"), notebook("stopped", id=self.OTHER)]}))
        result = nod("stop", "thesis")
        assert result.code == 1
        assert f"{ID}  ready" in result.err
        assert f"{self.OTHER}  stopped" in result.err
        assert server.paths() == ["GET /notebooks"]
        assert nod("stop", "thesis", "--json").json()["error"]["code"] == "ambiguous_name"

    def test_a_name_that_nobody_has(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, {"notebooks": [notebook("ready")]}))
        result = nod("show", "other")
        assert result.code == 1
        assert "None of your notebooks is called other." in result.err

    def test_of_those_that_are_gone_the_newest(self, server: Server, nod: Nod) -> None:
        gone = [notebook("failed"), notebook("terminated", id=self.OTHER)]
        server.play(Answer(200, {"notebooks": gone}), Answer(200, notebook("failed")))
        assert nod("show", "thesis").code == 0
        assert server.paths()[1] == f"GET /notebooks/{ID}"


class TestExtend:
    def test_it_says_until_when_it_is_kept(self, server: Server, nod: Nod) -> None:
        kept = moment(hours=2, seconds=30)
        server.play(Answer(202, notebook("ready", hold_until=kept, stops_at=kept)))
        result = nod("extend", ID, "1.5")
        assert result.code == 0
        assert server.paths() == [f"POST /notebooks/{ID}/extend"]
        assert server.calls[0].json() == {"hours": 1.5}
        assert re.search(r"Held         until .* \(in 2 h\)\n", result.out)
        assert nod("extend", ID, "2", "--json").json()["hold_until"] == kept

    def test_an_earlier_longer_hold_is_said_to_stay(self, server: Server, nod: Nod) -> None:
        kept = moment(hours=5)
        server.play(Answer(202, notebook("ready", hold_until=kept, stops_at=kept)))
        assert "An earlier extension holds longer" in nod("extend", ID, "2").out
        assert "An earlier extension" not in nod("extend", ID, "5").out

    @pytest.mark.parametrize("hours", ["3h", "1,5", "nan"])
    def test_hours_that_are_no_number_get_an_example(self, server: Server, nod: Nod, hours: str) -> None:
        result = nod("extend", ID, hours)
        assert (result.code, server.calls) == (2, [])
        assert result.err == f"nod: '{hours}' is not a number: give the hours as a number, for example 1.5.\n"

    @pytest.mark.parametrize("hours", ["-1", "0", "1000000"])
    def test_the_bounds_are_the_apis(self, server: Server, nod: Nod, hours: str) -> None:
        errors = [{"field": "hours", "message": "It is out of bounds.", "allowed": "0.25 to 24"}]
        server.play(problem(422, "invalid_fields", "One field is not valid.", errors=errors))
        result = nod("extend", ID, hours)
        assert result.code == 1
        assert server.calls[0].json() == {"hours": float(hours)}
        assert "HOURS: It is out of bounds. Allowed: 0.25 to 24" in result.err


class TestPassword:
    def test_one_is_made_and_shown_once(self, server: Server, nod: Nod) -> None:
        server.play(Answer(202, notebook("ready", password=None)))
        result = nod("password", ID, "--generate")
        assert result.code == 0
        assert server.paths() == [f"POST /notebooks/{ID}/password"]
        made = server.calls[0].json()["password"]
        assert re.fullmatch(r"([2-9a-km-np-z]{4}-){6}[2-9a-km-np-z]{4}", made)
        assert f"Password     {made}\n" in result.out
        assert made not in result.err
        again = nod("password", ID, "--generate", "--json").json()
        assert again["password"] == server.calls[1].json()["password"] != made

    def test_what_is_sent_twice_sets_the_same_twice(self, server: Server, nod: Nod) -> None:
        server.play(Answer(hang_up=True), Answer(503, {}), Answer(202, notebook("ready")))
        result = nod("password", ID, "--generate")
        assert result.code == 0
        (made,) = {call.json()["password"] for call in server.calls}
        assert made in result.out

    def test_in_doubt_it_says_so_and_shows_none(self, server: Server, nod: Nod) -> None:
        server.play(Answer(hang_up=True))
        result = nod("password", ID, "--generate")
        assert result.code == 3
        assert "Run the command again." in result.err
        assert server.calls[0].json()["password"] not in result.out + result.err

    def test_a_hash(self, server: Server, nod: Nod) -> None:
        server.play(Answer(202, notebook("ready")))
        result = nod("password", ID, "--password-hash", "argon2:x")
        assert server.calls[0].json() == {"password_hash": "argon2:x"}
        assert "the one you gave" in result.out

    def test_a_refused_password_is_not_shown(self, server: Server, nod: Nod) -> None:
        server.play(problem(409, "wrong_state", "It is stopped."))
        result = nod("password", ID, "--generate")
        assert result.code == 1
        assert server.calls[0].json()["password"] not in result.out + result.err

    def test_from_stdin(self, server: Server, tmp_path: Path) -> None:
        server.play(Answer(202, notebook("ready")))
        done = run(server, tmp_path, "password", ID, "--password-stdin", stdin="grüne Wälder 7\n".encode())
        assert done.returncode == 0
        assert server.calls[0].json() == {"password": "grüne Wälder 7"}
        assert "grüne".encode() not in done.stdout + done.stderr

    def test_without_a_terminal_one_is_made(self, server: Server, tmp_path: Path) -> None:
        server.play(Answer(202, notebook("ready")))
        done = run(server, tmp_path, "password", ID)
        assert done.returncode == 0
        assert server.calls[0].json()["password"] in done.stdout.decode()


class TestLink:
    LINK = f"https://api.example.org/prod/n/{ID}?k=abc-_"

    def test_it_stands_alone_on_stdout(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, notebook("stopped", link=self.LINK)))
        result = nod("link", ID)
        assert (result.code, result.out) == (0, f"{self.LINK}\n")
        assert server.paths() == [f"GET /notebooks/{ID}"]
        assert nod("link", ID, "--json").json()["link"] == self.LINK

    def test_a_new_one_ends_the_old(self, server: Server, nod: Nod) -> None:
        server.play(Answer(202, notebook("ready", link=self.LINK)))
        result = nod("link", ID, "--new")
        assert (result.code, result.out) == (0, f"{self.LINK}\n")
        assert server.paths() == [f"POST /notebooks/{ID}/link"]
        assert "leads nowhere now" in result.err

    def test_none(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, notebook("failed")))
        for command in ("link", "open"):
            result = nod(command, ID)
            assert (result.code, result.out) == (1, "")
            assert "thesis has no link: it is failed." in result.err

    def test_open_prefers_the_address_that_holds_no_key(
        self, server: Server, nod: Nod, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []

        def browser(address: str) -> bool:
            opened.append(address)
            return True

        monkeypatch.setattr(webbrowser, "open", browser)
        ready = notebook("ready", link=self.LINK)
        server.play(Answer(200, ready))
        result = nod("open", ID)
        assert (result.code, result.out) == (0, f"{ready['url']}\n")
        assert FINGERPRINT in result.err
        server.play(Answer(200, notebook("stopped", link=self.LINK)))
        result = nod("open", ID)
        assert (result.code, result.out) == (0, f"{self.LINK}\n")
        local = self.LINK.replace("https://api.example.org", "http://127.0.0.1:8000")
        server.play(Answer(200, notebook("stopped", link=local)))
        assert nod("open", ID, "--json").json()["link"] == local
        assert opened == [ready["url"], self.LINK, local]

    @pytest.mark.parametrize(
        "address",
        ["file:///etc/passwd", "--profile=x", "http://example.org", "javascript:alert(1)", "https://", "https://[x"],
    )
    def test_a_browser_is_handed_nothing_but_pages(
        self, server: Server, nod: Nod, monkeypatch: pytest.MonkeyPatch, address: str
    ) -> None:
        opened: list[str] = []
        monkeypatch.setattr(webbrowser, "open", opened.append)
        server.play(Answer(200, notebook("ready", url=address)))
        assert nod("open", ID).code == 3
        assert opened == []

    def test_a_real_browser_gets_the_address(self, server: Server, tmp_path: Path) -> None:
        browser = tmp_path / "browser"
        browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opened\n')
        browser.chmod(0o700)
        server.play(Answer(200, notebook("stopped", link=self.LINK)))
        for command, code in ((f"{browser} %s", 0), ("/nowhere/browser %s", 1)):
            done = subprocess.run(
                [sys.executable, "-m", "nod", "open", ID],
                env=environment(server, tmp_path) | {"BROWSER": command, "PATH": str(tmp_path)},
                capture_output=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == code, done.stderr
            assert done.stdout.decode() == f"{self.LINK}\n"
            if code == 0:
                until(lambda: (tmp_path / "opened").exists() and (tmp_path / "opened").read_text() == self.LINK)
            else:
                assert b"No browser could be opened here." in done.stderr


def event(number: int, **fields: Any) -> Document:
    return {
        "at": f"2026-01-02T14:{number % 60:02}:00.123Z",
        "action": "keep",
        "code": "active",
        "by": "sweep",
        "reason": f"a kernel is busy, number {number}",
        "stops_at": None,
        "signals": {"ages": {"kernel": 0.4, "input": 3720}, "unknown": ["gpu"], "facts": {"kernels": {"busy": 1}}},
    } | fields


class TestEvents:
    def test_each_decision_with_its_signals(self, server: Server, nod: Nod) -> None:
        warned = event(5, action="warn", code="idle", reason="idle since 13:05", stops_at="2026-01-02T14:15:00Z")
        server.play(Answer(200, {"events": [warned, event(0)], "next": None}))
        result = nod("events", ID)
        assert result.code == 0
        assert server.paths() == [f"GET /notebooks/{ID}/events"]
        first, why, signals, second, *_ = result.out.splitlines()
        assert re.fullmatch(r"2026-01-0\d \d\d:05  warn  by sweep  stops 2026-01-0\d \d\d:15", first)
        assert why == "  Why          idle since 13:05 (idle)"
        assert signals == "  Signals      kernel now; input 1 h 2 min ago; not known: gpu; kernels 1 busy"
        assert re.fullmatch(r"2026-01-0\d \d\d:00  keep  by sweep", second)

    def test_the_newest_of_many_pages(self, server: Server, nod: Nod) -> None:
        pages = [Answer(200, {"events": [event(n) for n in range(50)], "next": f"page {n}"}) for n in range(3)]
        server.play(*pages)
        result = nod("events", ID, "--limit", "70")
        assert [call.query for call in server.calls] == [
            {"limit": ["50"]},
            {"limit": ["20"], "next": ["page 0"]},
        ]
        assert result.out.count("  keep  by sweep\n") == 70
        assert f"nod events {ID} --limit 700" in result.err
        server.play(*pages[:1])
        assert len(nod("events", ID, "--json").json()["events"]) == 50

    def test_json_has_what_the_api_said(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, {"events": [event(0)], "next": None}))
        result = nod("events", ID, "--json")
        assert result.json() == {"events": [event(0)]}
        assert result.err == ""

    def test_none_yet(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, {"events": [], "next": None}))
        result = nod("events", ID)
        assert (result.code, result.out) == (0, "")
        assert "Nothing has been decided yet." in result.err

    def test_hostile_signals_do_not_reach_the_terminal(self, server: Server, nod: Nod) -> None:
        """Whoever is root on the machine writes them."""
        evil = "a\x1b[2J\x9b1m\r\n\x07\u202eb\x7f"
        signals = {evil: evil, "ages": {evil: 1}, "unknown": [evil], "facts": {evil: {evil: [evil, {evil: evil}]}}}
        server.play(Answer(200, {"events": [event(0, action=evil, reason=evil, by=evil, code=evil, signals=signals)]}))
        for arguments in (("events", ID), ("events", ID, "--json")):
            result = nod(*arguments)
            assert result.code == 0
            assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.out + result.err)

    @pytest.mark.parametrize("body", [{}, {"events": 3}, {"events": [3]}, {"events": [{"at": "x"}]}])
    def test_what_is_no_ledger_is_said(self, server: Server, nod: Nod, body: Document) -> None:
        server.play(Answer(200, body))
        assert nod("events", ID).code == 3


class TestDelete:
    def test_yes_asks_nothing(self, server: Server, nod: Nod) -> None:
        server.play(READY, Answer(202, notebook("terminating")))
        result = nod("delete", ID, "--yes")
        assert result.code == 0
        assert server.paths() == [f"GET /notebooks/{ID}", f"DELETE /notebooks/{ID}"]
        assert server.calls[1].query == {"confirm": ["thesis"]}
        assert f"nod show {ID} --watch" in result.out

    def test_confirm_leaves_the_comparison_to_the_api(self, server: Server, nod: Nod) -> None:
        server.play(problem(409, "confirmation_needed", "This would delete thesis and its disk of 30 GiB."))
        result = nod("delete", ID, "--confirm", "thesus & co")
        assert result.code == 1
        assert server.calls[0].query == {"confirm": ["thesus & co"]}
        assert "30 GiB" in result.err

    def test_a_wrong_name_is_answered_with_the_option(self, server: Server, nod: Nod) -> None:
        errors = [{"field": "confirm", "message": "It is not the notebook's name.", "allowed": "demo"}]
        detail = "It has a disk of 30 GiB. To go on, repeat with ?confirm=demo."
        server.play(problem(409, "confirmation_needed", detail, errors=errors))
        assert nod("delete", ID, "--confirm", "wrong").err.splitlines() == [
            "nod: It has a disk of 30 GiB. To go on, repeat with --confirm demo.",
            "  (409 confirmation_needed)",
        ]

    def test_what_is_deleted_is_said_to_be(self, server: Server, nod: Nod) -> None:
        server.play(Answer(200, notebook("terminated")))
        result = nod("delete", ID, "--confirm", "x")
        assert (result.code, result.out) == (0, "thesis is deleted already\n")

    def test_without_a_terminal_it_wants_a_confirmation(
        self, server: Server, nod: Nod, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").write_text("thesis\n")
        with (tmp_path / "empty").open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            result = nod("delete", ID)
        assert result.code == 2
        assert "--confirm NAME" in result.err
        assert server.calls == []

    def test_json(self, server: Server, nod: Nod) -> None:
        server.play(Answer(202, notebook("terminating")))
        assert nod("delete", ID, "--confirm", "thesis", "--json").json()["state"] == "terminating"


class TestOptions:
    def test_refusals_name_options_that_there_are(self, nod: Nod) -> None:
        usage = "".join(nod(command, "--help").out for command in ("request", "extend", "events"))
        assert all(f"{option} " in usage for option in refusal.OPTIONS.values())

    def test_a_name_without_its_option_is_told_the_option(self, server: Server, nod: Nod) -> None:
        result = nod("request", "thesis", "--type", "t3.medium")
        assert (result.code, server.calls) == (2, [])
        assert result.err.startswith("usage: nod request ")
        assert result.err.endswith("unrecognized arguments: thesis (its name: --name thesis)\n")

    def test_version(self, nod: Nod) -> None:
        assert nod("--version").out == "nod 0.1.0\n"

    @pytest.mark.parametrize(
        "arguments",
        [
            (),
            ("wake", ID),
            ("start",),
            ("extend", ID),
            ("extend", ID, "long"),
            ("extend", ID, "nan"),
            ("extend", ID, "inf"),
            ("events", ID, "--limit", "0"),
            ("events", ID, "--limit", "1.5"),
            ("start", ID, "--timeout", "soon"),
            ("password", ID, "--generate", "--password-stdin"),
            ("request", "--volume-gib", "many"),
            ("request", "--timeout", "0"),
            ("request", "--timeout", "nan"),
            ("request", "--vol", "30"),
            ("request", "--idempotency-key", "two words"),
            ("request", "--name", "\udcff"),
            ("request", "--notify", "\udcff"),
            ("request", "--password-stdin", "--password-hash", "x"),
            ("delete", ID, "--yes", "--confirm", "x"),
            ("list", "--url", "http://example.org"),
            ("list", "--url", "https://a..b"),
            ("list", "--token-file", "/nowhere"),
        ],
    )
    def test_wrong_use_is_2_and_sends_nothing(self, server: Server, nod: Nod, arguments: tuple[str]) -> None:
        assert nod(*arguments).code == 2
        assert server.calls == []

    @pytest.mark.parametrize("option", ["--token", "--password"])
    def test_a_secret_on_the_command_line_is_refused_and_not_repeated(self, nod: Nod, option: str) -> None:
        for command in (("request",), ("password", ID)):
            for arguments in ((option, "canary"), (f"{option}=canary",)):
                result = nod(*command, *arguments)
                assert result.code == 2
                assert "can see a command line" in result.err
                assert "canary" not in result.err

    @pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\n"])
    def test_a_password_that_cannot_be_read_is_not_sent(self, server: Server, tmp_path: Path, content: bytes) -> None:
        done = run(server, tmp_path, "request", "--password-stdin", stdin=content)
        assert done.returncode == 2
        assert server.calls == []


def run(server: Server, home: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "nod", *arguments],
        env=environment(server, home),
        cwd=home,
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )


class TestProcess:
    def test_the_password_goes_from_stdin_to_the_api_and_nowhere_else(self, server: Server, tmp_path: Path) -> None:
        server.play(accepted(password=None), READY)
        done = run(server, tmp_path, "request", "--password-stdin", stdin="grüne Wälder 7\r\n".encode())
        assert done.returncode == 0
        assert server.calls[0].json() == {"password": "grüne Wälder 7"}
        assert "grüne".encode() not in done.stdout + done.stderr

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_an_interrupted_wait_keeps_the_password(
        self, server: Server, tmp_path: Path, number: signal.Signals, code: int
    ) -> None:
        server.play(accepted(), Answer(200, notebook("launching", steps=steps_until(1, running=1))))
        with started(server, tmp_path, "request") as process:
            until(lambda: len(server.calls) >= 2)
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
        assert process.returncode == code
        assert PASSWORD in out.decode()
        assert "The launch goes on." in err.decode()
        assert f"nod show {ID} --watch" in err.decode()
        assert f"nod delete {ID}" in err.decode()
        assert b"Traceback" not in err

    def test_interrupted_before_the_answer_it_tells_the_key(self, server: Server, tmp_path: Path) -> None:
        hold = threading.Event()

        def slow(_call: Call) -> Answer:
            hold.wait(10)
            return accepted()

        server.play(slow)
        try:
            with started(server, tmp_path, "request") as process:
                until(lambda: len(server.calls) >= 1)
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=10)
        finally:
            hold.set()
        assert process.returncode == 130
        assert f"--idempotency-key {server.calls[0].headers['Idempotency-Key']}" in err.decode()
        assert b"Traceback" not in err

    def test_an_old_code_page_stops_nothing(self, server: Server, tmp_path: Path) -> None:
        server.play(Answer(200, notebook("ready", name="東京 ✓")))
        done = subprocess.run(
            [sys.executable, "-m", "nod", "show", ID],
            env=environment(server, tmp_path) | {"PYTHONIOENCODING": "cp1252"},
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0
        assert b"?? ?: ready" in done.stdout

    def test_a_reader_that_leaves_causes_no_traceback(self, server: Server, tmp_path: Path) -> None:
        server.play(Answer(200, {"notebooks": [notebook("ready")] * 300}))
        for arguments in (("list",), ("list", "--json")):
            with started(server, tmp_path, *arguments) as process:
                assert process.stdout is not None
                process.stdout.close()
                process.wait(timeout=20)
                assert process.stderr is not None
                assert b"Traceback" not in process.stderr.read()
                assert process.returncode == 1

    @pytest.mark.parametrize("arguments", [("list",), ("list", "--json"), ("show", ID), ("--help",), ("--version",)])
    def test_a_full_disk_behind_stdout_is_said_and_no_traceback(
        self, server: Server, tmp_path: Path, arguments: tuple[str, ...]
    ) -> None:
        server.play(lambda call: READY if ID in call.path else Answer(200, {"notebooks": [notebook("ready")]}))
        with Path("/dev/full").open("wb") as full:
            done = shell(server, tmp_path, *arguments, stdout=full)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        assert b"Exception" not in done.stderr
        if arguments[0] in ("list", "show"):
            assert b"No space left on device" in done.stderr
            assert ID.encode() in done.stderr, "what was for stdout is not lost"

    def test_a_password_is_not_lost_to_a_full_disk(self, server: Server, tmp_path: Path) -> None:
        for option in ((), ("--json",)):
            server.play(accepted(), READY)
            with Path("/dev/full").open("wb") as full:
                done = shell(server, tmp_path, "request", "--no-wait", *option, stdout=full)
            assert done.returncode == 1
            assert PASSWORD.encode() in done.stderr

    def test_a_password_is_not_lost_to_a_reader_that_left(self, server: Server, tmp_path: Path) -> None:
        server.play(accepted(), READY)
        read, write = os.pipe()
        os.close(read)
        done = shell(server, tmp_path, "request", "--no-wait", stdout=write)
        os.close(write)
        assert done.returncode == 1
        assert PASSWORD.encode() in done.stderr

    def test_a_watch_ends_when_its_reader_leaves(self, server: Server, tmp_path: Path) -> None:
        states = iter(range(10_000))
        server.script = lambda call: Answer(200, notebook("launching", name=f"n{next(states)}"))
        with started(server, tmp_path, "show", ID, "--watch", "--json") as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(timeout=60) == 1

    def test_with_stdout_closed_the_results_go_to_stderr(self, server: Server, tmp_path: Path) -> None:
        server.play(accepted(), READY)
        done = shell(server, tmp_path, "request", "--no-wait", closing=">&-")
        assert done.returncode == 0, done.stderr
        assert PASSWORD.encode() in done.stderr

    @pytest.mark.parametrize(
        "arguments", [("list",), ("stop", ID), ("--help",), ("--version",), ("list", "--nonsense")]
    )
    @pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
    def test_closed_streams_stop_nothing(
        self, server: Server, tmp_path: Path, arguments: tuple[str, ...], closing: str
    ) -> None:
        server.play(lambda call: stopped() if ID in call.path else Answer(200, {"notebooks": []}))
        done = shell(server, tmp_path, *arguments, closing=closing)
        assert done.returncode == (2 if "--nonsense" in arguments else 0)
        assert b"Traceback" not in done.stdout + done.stderr
        if arguments[0] == "stop":
            assert server.paths() == [f"POST /notebooks/{ID}/stop"]

    def test_a_full_stderr_stops_nothing(self, server: Server, tmp_path: Path) -> None:
        server.play(accepted(), READY)
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [sys.executable, "-m", "nod", "request"],
                env=environment(server, tmp_path),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=full,
                timeout=60,
                check=False,
            )
        assert done.returncode == 0
        assert PASSWORD.encode() in done.stdout

    @pytest.mark.parametrize("package", ["httpx", "rich", "nod.cli"])
    def test_a_ctrl_c_while_it_loads_causes_no_traceback(self, server: Server, tmp_path: Path, package: str) -> None:
        """The process interrupts itself at the moment at which it begins to load the package."""
        (tmp_path / "sitecustomize.py").write_text(
            "import os, signal, sys\n"
            "class Interrupt:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {package!r}:\n"
            "            sys.meta_path.remove(self)\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupt())\n"
        )
        env = environment(server, tmp_path)
        done = subprocess.run(
            [sys.executable, "-m", "nod", "list"],
            env=env | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == b""
        assert done.returncode in (-signal.SIGINT, 130)
        assert server.calls == []


def shell(
    server: Server, home: Path, *arguments: str, closing: str = "", stdout: Any = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """The command as a shell starts it, with streams closed as `closing` says."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", sys.executable, "-m", "nod", *arguments],
        env=environment(server, home),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )


@contextmanager
def started(server: Server, home: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "nod", *arguments],
        env=environment(server, home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@dataclass
class Terminal:
    """A process on a pseudo terminal."""

    process: subprocess.Popen[bytes]
    keyboard: IO[bytes]
    seen: bytearray

    def text(self) -> str:
        return self.seen.decode(errors="replace")

    def type(self, text: str) -> None:
        self.keyboard.write(text.encode())
        self.keyboard.flush()


@contextmanager
def terminal(server: Server, home: Path, *arguments: str, columns: int = 90, **env: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "nod", *arguments],
        env=environment(server, home) | {"TERM": "xterm-256color"} | env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        # Linux ends a terminal whose other side is closed with an error.
        with os.fdopen(os.dup(ours), "rb", buffering=0) as screen:
            try:
                while data := screen.read(4096):
                    seen.extend(data)
            except OSError:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(ours, "wb", buffering=0) as keyboard:
            yield Terminal(process, keyboard, seen)
            process.wait(timeout=20)
            reader.join(timeout=5)
    finally:
        process.kill()
        process.wait()
        reader.join(timeout=5)


def plain(text: str) -> str:
    """What a terminal was sent, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


class TestTerminal:
    @pytest.mark.parametrize("columns", [30, 40, 60, 80, 90, 120, 200])
    def test_names_and_ids_are_never_cut(self, server: Server, tmp_path: Path, columns: int) -> None:
        """They may run on in the terminal's next line, but nothing is left out of them."""
        name = "a-name-that-is-as-long-as-names-may-be-x"
        assert len(name) == 40
        url = "https://ec2-203-0-113-25.us-east-1.compute.amazonaws.com:8888"
        entries = [notebook("ready", name=name), notebook("terminating", name="b"), notebook("stopped", name="c")]
        server.play(Answer(200, {"notebooks": entries}))
        with terminal(server, tmp_path, "list", columns=columns) as shown:
            pass
        text = plain(shown.text())
        assert name in text
        assert text.count(ID) == 3
        assert "…" not in text
        assert (url in text) == ("ADDRESS" in text)
        if columns >= 90:
            assert all(line.count(ID) < 2 for line in text.splitlines())
            assert "STOPS" in text

        server.play(
            accepted(name=name),
            Answer(200, notebook("launching", name=name)),
            Answer(200, notebook("ready", name=name)),
        )
        with terminal(server, tmp_path, "request", columns=columns) as shown:
            pass
        text = plain(shown.text()).replace("\r", "").replace("\n", "")
        assert name in text
        assert ID in text

    def test_the_view_is_drawn_and_stays(self, server: Server, tmp_path: Path) -> None:
        half = Answer(200, notebook("launching", steps=steps_until(3, running=2)))
        server.play(accepted(), half, half, READY)
        with terminal(server, tmp_path, "request") as screen:
            until(lambda: "Shown this once" in screen.text())
            until(lambda: screen.process.poll() is not None)
        shown = screen.text()
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
        assert screen.process.returncode == 0
        assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] Install Anaconda.*[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] Configure TLS", plain)
        assert "% estimate" in plain
        assert plain.count("✓ Install Anaconda") >= 1
        # The cursor is hidden while it draws and must be back.
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
        assert "\x1b[3" in shown
        assert "https://ec2-203-0-113-25.us-east-1.compute.amazonaws.com:8888\r\n" in plain
        # Whole pairs on each line: half a pair cannot be compared.
        assert FINGERPRINT[:48] + "\r\n" in plain
        assert FINGERPRINT[48:] + "\r\n" in plain

    def test_no_colour_where_none_is_wanted(self, server: Server, tmp_path: Path) -> None:
        server.play(accepted(), READY)
        with terminal(server, tmp_path, "request", NO_COLOR="1") as screen:
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 0
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", screen.text())

    def test_a_dumb_terminal_gets_lines(self, server: Server, tmp_path: Path) -> None:
        server.play(accepted(), READY)
        with terminal(server, tmp_path, "request", TERM="dumb") as screen:
            until(lambda: screen.process.poll() is not None)
        assert re.search(r"\[ +\d+ s\] thesis: ready", screen.text())
        assert "\x1b" not in screen.text()

    def test_ctrl_c_gives_the_terminal_back(self, server: Server, tmp_path: Path) -> None:
        server.play(accepted(), Answer(200, notebook("launching", steps=steps_until(1, running=1))))
        with terminal(server, tmp_path, "request") as screen:
            until(lambda: "Start Instance" in screen.text())
            screen.process.send_signal(signal.SIGINT)
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 130
        shown = screen.text()
        assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
        assert PASSWORD in shown
        assert "The launch goes on." in shown

    def test_deleting_asks_for_the_name(self, server: Server, tmp_path: Path) -> None:
        server.play(Answer(200, notebook("ready", volume_gib=30)), Answer(202, notebook("terminating")))
        with terminal(server, tmp_path, "delete", ID) as screen:
            until(lambda: "Type its name (thesis)" in screen.text())
            assert "disk (30 GiB) with everything on it" in screen.text().replace("\r\n", "")
            screen.type("thesis\n")
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 0
        assert server.paths() == [f"GET /notebooks/{ID}", f"DELETE /notebooks/{ID}"]

    def test_a_wrong_name_deletes_nothing(self, server: Server, tmp_path: Path) -> None:
        server.play(READY)
        with terminal(server, tmp_path, "delete", ID) as screen:
            until(lambda: "Type its name (thesis)" in screen.text())
            screen.type("y\n")
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 1
        assert "Nothing was deleted." in screen.text()
        assert server.paths() == [f"GET /notebooks/{ID}"]

    def test_a_typed_password_is_not_shown(self, server: Server, tmp_path: Path) -> None:
        server.play(accepted(password=None))
        with terminal(server, tmp_path, "request", "--password-stdin", "--no-wait") as screen:
            until(lambda: "Password for the notebook:" in screen.text())
            screen.type("canary-password\n")
            until(lambda: "Once more:" in screen.text())
            screen.type("canary-password\n")
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 0
        assert server.calls[0].json() == {"password": "canary-password"}
        assert "canary" not in screen.text()

    def test_a_start_has_a_clock_and_no_steps_of_the_launch(self, server: Server, tmp_path: Path) -> None:
        starting = Answer(202, notebook("starting", steps=steps_until(7)))
        server.play(starting, starting, starting, READY)
        with terminal(server, tmp_path, "start", ID) as screen:
            until(lambda: screen.process.poll() is not None)
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.text())
        assert screen.process.returncode == 0
        assert "The machine starts; then the notebook has to answer there." in plain
        assert "Install Anaconda" not in plain
        assert "https://ec2-203-0-113-25.us-east-1.compute.amazonaws.com:8888\r\n" in plain

    def test_ctrl_c_ends_the_wait_for_a_start(self, server: Server, tmp_path: Path) -> None:
        server.play(Answer(202, notebook("starting")))
        with terminal(server, tmp_path, "start", ID) as screen:
            until(lambda: "The machine starts" in screen.text())
            screen.process.send_signal(signal.SIGINT)
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 130
        assert "The start goes on." in screen.text()
        assert f"nod show {ID} --watch" in screen.text()

    def test_a_new_password_is_asked_for(self, server: Server, tmp_path: Path) -> None:
        server.play(Answer(202, notebook("ready")))
        with terminal(server, tmp_path, "password", ID) as screen:
            until(lambda: "New password" in screen.text())
            screen.type("canary-password\n")
            until(lambda: "Once more:" in screen.text())
            screen.type("canary-password\n")
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 0
        assert server.calls[0].json() == {"password": "canary-password"}
        assert "canary" not in screen.text()

    def test_two_passwords_that_differ_are_not_sent(self, server: Server, tmp_path: Path) -> None:
        with terminal(server, tmp_path, "password", ID) as screen:
            until(lambda: "New password" in screen.text())
            screen.type("canary-password\n")
            until(lambda: "Once more:" in screen.text())
            screen.type("canary-passwort\n")
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 2
        assert "The two passwords differ." in screen.text()
        assert server.calls == []

    def test_no_password_makes_one(self, server: Server, tmp_path: Path) -> None:
        server.play(Answer(202, notebook("ready")))
        with terminal(server, tmp_path, "password", ID) as screen:
            until(lambda: "empty: one is made" in screen.text())
            screen.type("\n")
            until(lambda: screen.process.poll() is not None)
        assert screen.process.returncode == 0
        assert server.calls[0].json()["password"] in screen.text()
