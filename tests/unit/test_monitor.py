"""The activity monitor: what it signs, what it writes, and that nothing stops it."""

from __future__ import annotations

import contextlib
import hmac
import http.server
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from boto3.dynamodb.types import TypeDeserializer
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.validate import validate_parameters
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import given
from hypothesis import strategies as st

from instance.files import looks, monitor
from instance.files.activity import Sample

UPDATE_ITEM = botocore.session.get_session().get_service_model("dynamodb").operation_model("UpdateItem").input_shape
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)
KEYS = monitor.Credentials("AKIDEXAMPLE", "secret/with+signs", "token/with+signs==")
ARN = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
INSTANCE = monitor.Instance(ARN, "203.0.113.7", KEYS)
VALUES: dict[str, Any] = {"at": "2026-01-02T03:04:05Z", "answers": True, "address": None}


class BotocoreSigner(SigV4Auth):
    """botocore's signer at a time of ours, and with our header x-amz-security-token signed as its own."""

    def add_auth(self, request: AWSRequest) -> None:
        request.context["timestamp"] = NOW.strftime("%Y%m%dT%H%M%SZ")
        self._modify_request_before_signing(request)
        text = self.string_to_sign(request, self.canonical_request(request))
        self._inject_signature_to_request(request, self.signature(text, request))


@given(
    body=st.binary(max_size=200),
    host=st.sampled_from(
        ["dynamodb.us-east-1.amazonaws.com", "127.0.0.1:5566", "dynamodb.cn-north-1.amazonaws.com.cn"]
    ),
    region=st.sampled_from(["us-east-1", "cn-north-1", "us-gov-west-1"]),
    extra=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30),
)
def test_a_signature_is_the_one_that_botocore_makes(body: bytes, host: str, region: str, extra: str) -> None:
    headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": extra}
    request = AWSRequest("POST", f"https://{host}/", headers=dict(headers), data=body)
    # The SDK leaves this one to the HTTP library; ours goes out as signed.
    request.headers["host"] = host
    BotocoreSigner(ReadOnlyCredentials(*KEYS), "dynamodb", region).add_auth(request)
    signed = monitor.sign(body, headers, region=region, host=host, credentials=KEYS, now=NOW)
    assert signed["authorization"] == request.headers["Authorization"]
    assert signed["x-amz-date"] == request.headers["X-Amz-Date"]
    assert signed["x-amz-security-token"] == request.headers["X-Amz-Security-Token"]


def test_the_secret_is_in_no_header() -> None:
    signed = monitor.sign(b"{}", {}, region="us-east-1", host="h", credentials=KEYS, now=NOW)
    assert KEYS.secret not in json.dumps(signed)


plain_values = st.recursive(
    st.booleans() | st.text(max_size=20) | st.integers(0, 10**9) | st.floats(0, 1e9).map(lambda x: round(x, 3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["boot_id", "answers", "address", "certificate_sha256", "version", "ages", "facts", "unknown"]),
        st.none() | plain_values,
    )
)
def test_a_heartbeat_is_a_valid_update_of_one_row(values: dict[str, Any]) -> None:
    given_values = {"at": "2026-01-02T03:04:05Z", **values}
    update = monitor.update_item("nod-local-heartbeats", ARN, given_values)
    validate_parameters(update, UPDATE_ITEM)
    assert update["Key"] == {"id": {"S": ARN}}
    for name, value in given_values.items():
        if value is not None:
            read = TypeDeserializer().deserialize(update["ExpressionAttributeValues"][f":{name}"])
            assert json.loads(json.dumps(read, default=float)) == json.loads(json.dumps(value))
    # Every name that is defined is used, and none else: DynamoDB refuses both.
    used = set(update["UpdateExpression"].replace(",", " ").split())
    assert {*update["ExpressionAttributeNames"], *update["ExpressionAttributeValues"]} == used - {"SET", "REMOVE", "="}


def test_what_is_unknown_is_removed_from_the_row() -> None:
    update = monitor.update_item("t", ARN, VALUES)
    assert update["UpdateExpression"] == "SET #at = :at, #answers = :answers REMOVE #address"
    assert update["ExpressionAttributeValues"][":answers"] == {"BOOL": True}


# --- outside parties, served on loopback ---


@contextlib.contextmanager
def serving(
    answer: Callable[[http.server.BaseHTTPRequestHandler], tuple[int, bytes]], context: ssl.SSLContext | None = None
) -> Iterator[tuple[str, int]]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST  # noqa: N815

        def log_message(self, *_: Any) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield ("127.0.0.1", server.server_port)
        finally:
            server.shutdown()
            thread.join()


METADATA = {
    "/latest/dynamic/instance-identity/document": json.dumps(
        {"region": "us-east-1", "accountId": "123456789012", "instanceId": "i-0123456789abcdef0"}
    ),
    "/latest/meta-data/iam/security-credentials/": "nod-role",
    "/latest/meta-data/iam/security-credentials/nod-role": json.dumps(
        {"AccessKeyId": KEYS.key, "SecretAccessKey": KEYS.secret, "Token": KEYS.token}
    ),
    "/latest/meta-data/public-ipv4": "203.0.113.7",
}


def imds(handler: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
    if handler.command == "PUT" and handler.path == "/latest/api/token":
        return (200, b"TOKEN") if handler.headers["X-aws-ec2-metadata-token-ttl-seconds"] else (400, b"")
    if handler.headers["X-aws-ec2-metadata-token"] != "TOKEN":
        return 401, b""
    found = METADATA.get(handler.path)
    return (200, found.encode()) if found else (404, b"")


def test_the_instance_is_asked_by_imdsv2() -> None:
    with serving(imds) as address:
        assert monitor.Metadata(address).instance() == INSTANCE


def test_an_instance_without_public_address_has_its_private_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(METADATA, "/latest/meta-data/public-ipv4")
    monkeypatch.setitem(METADATA, "/latest/meta-data/local-ipv4", "10.0.0.5")
    with serving(imds) as address:
        assert monitor.Metadata(address).instance().address == "10.0.0.5"


def test_an_instance_without_a_role_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(METADATA, "/latest/meta-data/iam/security-credentials/")
    with serving(imds) as address, pytest.raises(monitor.HeartbeatError, match="no role"):
        monitor.Metadata(address).instance()


def test_a_heartbeat_goes_to_the_endpoint_of_the_environment() -> None:
    seen: list[tuple[str, dict[str, str], Any]] = []

    def dynamodb(handler: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        seen.append((handler.path, {k.lower(): v for k, v in handler.headers.items()}, json.loads(body)))
        return 200, b'{"Attributes": {"confirmed": {"S": "2026"}}}'

    with serving(dynamodb) as (host, port):
        written = monitor.HeartbeatTable("beats", "eu-west-1", f"http://{host}:{port}").write(INSTANCE, VALUES, NOW)
        assert written.row == {"confirmed": {"S": "2026"}}
        assert written.date is not None
        assert abs((written.date - datetime.now(UTC)).total_seconds()) < 60
        ((path, headers, body),) = seen
        assert path == "/"
        assert headers["x-amz-target"] == "DynamoDB_20120810.UpdateItem"
        # Host and length are the HTTP library's: the signature must be of the host that went out.
        again = monitor.sign(
            json.dumps(body).encode(),
            {name: headers[name] for name in ("content-type", "x-amz-target")},
            region="eu-west-1",
            host=headers["host"],
            credentials=KEYS,
            now=NOW,
        )
        assert headers["authorization"] == again["authorization"]
        assert body["TableName"] == "beats"
        assert body["ReturnValues"] == "ALL_NEW"


def test_a_refusal_carries_dynamodbs_words() -> None:
    with (
        serving(lambda _: (400, b'{"__type":"AccessDeniedException"}')) as (host, port),
        pytest.raises(monitor.HeartbeatError, match=r"400.*AccessDenied"),
    ):
        monitor.HeartbeatTable("beats", "eu-west-1", f"http://{host}:{port}").write(INSTANCE, VALUES, NOW)


@pytest.mark.parametrize("text", [None, "", "now", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_what_is_no_date_says_nothing(text: str | None) -> None:
    assert monitor.http_date(text) is None


def test_a_date_is_utc() -> None:
    assert monitor.http_date("Fri, 02 Jan 2026 03:04:05 GMT") == NOW
    assert monitor.http_date("Fri, 02 Jan 2026 03:04:05 -0000") == NOW


@pytest.mark.parametrize(
    ("says", "taken"), [("Wed, 01 Jan 2020 12:00:00 GMT", True), ("Sat, 01 Jan 2022 12:00:00 GMT", False)]
)
def test_a_certificate_that_has_ended_by_the_machines_clock_must_hold_by_dynamodbs(
    tls: tuple[ssl.SSLContext, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, taken: bool
) -> None:
    """The machine's clock is years ahead: TLS itself fails, before any signature is looked at."""
    context, certificate = out_of_time(tls, tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def dynamodb(handler: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        handler.date_time_string = lambda timestamp=None: says  # type: ignore[method-assign]
        return 200, b"{}"

    with serving(dynamodb, context) as (_, port):
        table = monitor.HeartbeatTable("beats", "eu-west-1", f"https://localhost:{port}")
        if taken:
            assert table.write(INSTANCE, VALUES, NOW).date == monitor.http_date(says)
        else:
            with pytest.raises(monitor.HeartbeatError, match="not in its time"):
                table.write(INSTANCE, VALUES, NOW)


def test_an_old_certificate_is_refused_once_the_clock_is_known_to_be_right(
    tls: tuple[ssl.SSLContext, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has an old key of DynamoDB's and stands in between can say any Date."""
    at = datetime.now(UTC)
    date = format_datetime(at, usegmt=True)
    for name, times in (("good", (at - timedelta(days=1), at + timedelta(days=1))), ("old", PAST)):
        (tmp_path / name).mkdir()
        context, certificate = out_of_time(tls, tmp_path / name, "localhost", times)
        with (tmp_path / "trusted").open("a") as trusted:
            trusted.write(certificate.read_text())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trusted"))

    def show(name: str) -> None:
        context.load_cert_chain(tmp_path / name / "cert", tls[1].parent / "key")

    def dynamodb(handler: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        handler.date_time_string = lambda timestamp=None: date  # type: ignore[method-assign]
        return 200, b"{}"

    with serving(dynamodb, context) as (_, port):
        table = monitor.HeartbeatTable("beats", "eu-west-1", f"https://localhost:{port}")
        show("good")
        assert table.write(INSTANCE, VALUES, at).date is not None
        show("old")
        date = "Wed, 01 Jan 2020 12:00:00 GMT"
        with pytest.raises(ssl.SSLCertVerificationError):
            table.write(INSTANCE, VALUES, at)
        off = at - timedelta(days=400)
        assert table.write(INSTANCE, VALUES, off).date == monitor.http_date(date), "its clock is known to be wrong"


def test_a_certificate_of_another_name_is_refused_whatever_the_clock_says(
    tls: tuple[ssl.SSLContext, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, certificate = out_of_time(tls, tmp_path, "elsewhere")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(lambda _: (200, b"{}"), context) as (_, port), pytest.raises(ssl.SSLCertVerificationError):
        monitor.HeartbeatTable("beats", "eu-west-1", f"https://localhost:{port}").write(INSTANCE, VALUES, NOW)


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("us-east-1", "dynamodb.us-east-1.amazonaws.com"),
        ("cn-north-1", "dynamodb.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "dynamodb.us-gov-west-1.amazonaws.com"),
    ],
)
def test_without_an_endpoint_it_is_the_regions_own(region: str, host: str) -> None:
    client = botocore.session.get_session().create_client(
        "dynamodb", region, aws_access_key_id="x", aws_secret_access_key="x"
    )
    assert client.meta.endpoint_url == f"https://{host}"
    assert monitor.HeartbeatTable("beats", region, None)._endpoint.geturl() == f"https://{host}"


def certified(folder: Path, *more: str) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS with a self-signed certificate as certificate.py makes it, and the certificate's file."""
    pem = folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=notebook", "-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    command += ["-addext", "subjectAltName=DNS:notebook,IP:203.0.113.7", "-addext", "extendedKeyUsage=serverAuth"]
    command += ["-addext", "keyUsage=critical,digitalSignature", "-addext", "basicConstraints=critical,CA:FALSE", *more]
    subprocess.run(command, check=True, capture_output=True)
    pem.write_text((folder / "cert").read_text() + (folder / "key").read_text())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context, folder / "cert"


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return certified(tmp_path_factory.mktemp("tls"), "-days", "2")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """What only root and the notebook's user can read."""
    file = tmp_path / "key"
    file.write_text("ab" * 32 + "\n")
    return file


def ours(key: str, *, serving: bool = True) -> Callable[[http.server.BaseHTTPRequestHandler], tuple[int, bytes]]:
    """As nod_server.py answers, by a key."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        path, _, nonce = handler.path.partition("?nonce=")
        assert path == "/nod/identity"
        proof = hmac.new(bytes.fromhex(key), f"nod:{nonce}".encode(), "sha256").hexdigest()
        told = {"server": "notebook-on-demand", "serving": serving, "proof": proof}
        return 200, json.dumps(told).encode()

    return answer


def test_our_server_answers_and_shows_its_certificate(tls: tuple[ssl.SSLContext, Path], key: Path) -> None:
    context, certificate = tls
    with serving(ours("ab" * 32), context) as address:
        seen = monitor.probe(address, key=key)
    shown = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (seen.answers, seen.certificate_sha256) == (True, shown.stdout.strip().split("=")[1])
    assert not seen.foreign


@pytest.mark.parametrize(
    "answer",
    [
        (200, b'{"version": "2"}'),
        (200, b'<input type="password" name="password">'),
        (200, b'{"server": "notebook-on-demand", "serving": true, "proof": null}'),
        (200, b'{"server": "notebook-on-demand", "serving": true, "proof": "' + b"0" * 64 + b'"}'),
        (200, b"[" * 10000),
        (302, b""),
        (404, b""),
        (503, b""),
    ],
)
def test_what_is_not_our_server_is_another_program(
    tls: tuple[ssl.SSLContext, Path], key: Path, answer: tuple[int, bytes]
) -> None:
    """An older Jupyter has a field for a password too, and another notebook's server has another key."""
    with serving(lambda _: answer, tls[0]) as address:
        seen = monitor.probe(address, key=key)
    assert (seen.answers, seen.foreign) == (False, True)


def test_the_server_of_another_boot_or_notebook_is_another_program(tls: tuple[ssl.SSLContext, Path], key: Path) -> None:
    with serving(ours("cd" * 32), tls[0]) as address:
        assert monitor.probe(address, key=key).foreign


def test_a_program_without_tls_on_the_port_is_another_program(key: Path) -> None:
    with serving(lambda _: (200, b"")) as address:
        seen = monitor.probe(address, key=key)
    assert (seen.answers, seen.foreign) == (False, True)


def test_our_server_does_not_answer_until_it_serves(tls: tuple[ssl.SSLContext, Path], key: Path) -> None:
    with serving(ours("ab" * 32, serving=False), tls[0]) as address:
        seen = monitor.probe(address, key=key)
    assert (seen.answers, seen.foreign) == (False, False)


def test_nothing_on_the_port_is_no_answer() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert monitor.probe(closed.getsockname()) == monitor.Probe(False, None)


def test_a_notebook_that_hangs_costs_only_the_timeout() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        assert monitor.probe(silent.getsockname(), timeout=0.3) == monitor.Probe(False, None)
        assert time.monotonic() - started < 20


@pytest.mark.parametrize("pause", [0.05, 0.002])
def test_a_notebook_that_dribbles_costs_only_the_timeout(tls: tuple[ssl.SSLContext, Path], pause: float) -> None:
    stop = threading.Event()

    def dribble(handler: http.server.BaseHTTPRequestHandler) -> tuple[int, bytes]:
        with contextlib.suppress(OSError):
            while not stop.wait(pause):
                handler.wfile.write(b"H")
        return 200, b""

    with serving(dribble, tls[0]) as address:
        started = time.monotonic()
        seen = monitor.probe(address, timeout=0.5)
        took = time.monotonic() - started
        stop.set()
    assert not seen.answers
    assert took < 20


def valid(tls: tuple[ssl.SSLContext, Path], name: str) -> bool:
    with serving(lambda _: (200, b""), tls[0]) as address:
        return monitor.is_valid(ssl.PEM_cert_to_DER_cert(tls[1].read_text()), name, address)


@pytest.mark.parametrize(("name", "good"), [("203.0.113.7", True), ("notebook", True), ("203.0.113.8", False)])
def test_a_certificate_is_valid_for_the_names_in_it(tls: tuple[ssl.SSLContext, Path], name: str, good: bool) -> None:
    assert valid(tls, name) is good


def out_of_time(
    tls: tuple[ssl.SSLContext, Path], folder: Path, name: str | None = None, times: tuple[datetime, datetime] = PAST
) -> tuple[ssl.SSLContext, Path]:
    """The same with a certificate of one day in 2020, or other times, and for another name if one is given."""
    key = serialization.load_pem_private_key((tls[1].parent / "key").read_bytes(), None)
    old = x509.load_pem_x509_certificate(tls[1].read_bytes())
    extensions = list(old.extensions)
    if name is not None:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        extensions = [x509.Extension(names.oid, False, names) if one.oid == names.oid else one for one in extensions]
    # Certificates of different times stand side by side where they are trusted, and are told apart by who made them.
    maker = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"notebook of {times[0]:%Y}")])
    made = x509.CertificateBuilder(maker, maker, key.public_key(), 1, *times, extensions)
    (folder / "cert").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", tls[1].parent / "key")
    return context, folder / "cert"


def test_a_certificate_that_has_ended_is_not_valid(tls: tuple[ssl.SSLContext, Path], tmp_path: Path) -> None:
    assert not valid(out_of_time(tls, tmp_path), "203.0.113.7")


def test_another_certificate_than_the_one_seen_is_not_valid(tls: tuple[ssl.SSLContext, Path], tmp_path: Path) -> None:
    other = certified(tmp_path, "-days", "2")
    assert not valid((tls[0], other[1]), "203.0.113.7")


# --- the rhythm ---


def due(rhythm: monitor.Rhythm, urgent: object, active: bool, since: float = 0.0, step: float = 1.0) -> float:
    """The first time from `since` on at which a heartbeat is due."""
    now = since
    while not rhythm.is_due(now, urgent, active):
        now += step
        assert now < since + 10_000
    return now


def test_the_first_is_due_at_once() -> None:
    assert due(monitor.Rhythm(), "x", False, 7.0) == 7.0


@pytest.mark.parametrize(("active", "minutes"), [(True, 1), (False, 4)])
@pytest.mark.parametrize("minute", [60.0, 30.0])
def test_heartbeats_come_each_minute_or_each_four(active: bool, minutes: int, minute: float) -> None:
    rhythm = monitor.Rhythm(minute)
    rhythm.sent(100.0, "x")
    assert due(rhythm, "x", active, 100.0) == 100.0 + minutes * minute


def test_what_is_urgent_is_told_at_once() -> None:
    rhythm = monitor.Rhythm()
    rhythm.sent(100.0, (True, "address"))
    assert due(rhythm, (False, "address"), False, 101.0) == 101.0


@given(failures=st.integers(1, 1000), jitter=st.floats(0, 1, exclude_max=True))
def test_failures_are_tried_again_soon_and_then_once_a_minute(failures: int, jitter: float) -> None:
    rhythm = monitor.Rhythm()
    for _ in range(failures):
        rhythm.failed(0.0, jitter)
    assert rhythm.failures == failures
    wait = due(rhythm, "news", True, step=0.25)
    assert 1.0 <= wait <= 60.0
    if failures > 4:
        assert wait >= 45.0


@pytest.mark.parametrize(
    ("given_text", "seconds"),
    [("1", 1.0), ("0.05", 0.05), ("60", 60.0), ("0", 60.0), ("-3", 60.0), ("nan", 60.0), ("9999", 60.0), ("x", 60.0)],
)
def test_a_minute_is_what_the_machine_is_told(given_text: str, seconds: float) -> None:
    assert monitor.minute_of({"NOD_MINUTE_SECONDS": given_text}) == seconds
    assert monitor.minute_of({}) == 60.0


# --- the dead man ---


HOURS = 3600.0


def test_a_machine_ends_after_twice_its_limit_and_three_hours() -> None:
    dead_man = monitor.DeadMan(0.0)
    assert dead_man.patience() == 5 * HOURS
    dead_man.hear({"limit_seconds": {"N": "1800"}}, 0.0, NOW)
    assert dead_man.patience() == 4 * HOURS
    assert not dead_man.is_over(4 * HOURS - 1, 4 * HOURS - 1)
    assert dead_man.is_over(4 * HOURS, 4 * HOURS)


def test_neither_idleness_nor_silence_alone_ends_it() -> None:
    dead_man = monitor.DeadMan(0.0)
    assert not dead_man.is_over(0.0, 100 * HOURS)
    dead_man.hear({"confirmed": {"S": "a"}}, 99 * HOURS, NOW)
    assert not dead_man.is_over(100 * HOURS, 100 * HOURS)
    dead_man.hear({"confirmed": {"S": "a"}}, 102 * HOURS, NOW)
    assert dead_man.is_over(104 * HOURS, 104 * HOURS), "the same confirmation again is none"


def test_a_hold_is_measured_when_it_is_seen_first() -> None:
    dead_man = monitor.DeadMan(0.0)
    dead_man.hear({"hold_until": {"S": "2026-01-02T13:04:05Z"}}, 100.0, NOW)
    later = NOW.replace(year=2030)
    dead_man.hear({"hold_until": {"S": "2026-01-02T13:04:05Z"}}, 200.0, later)
    assert not dead_man.is_over(1e9, 100.0 + 10 * HOURS - 1)
    assert dead_man.is_over(1e9, 100.0 + 10 * HOURS)
    dead_man.hear({}, 300.0, NOW)
    assert dead_man.is_over(1e9, 5 * HOURS)


@given(
    st.dictionaries(
        st.sampled_from(["confirmed", "limit_seconds", "hold_until"]),
        st.recursive(
            st.none() | st.text(max_size=30) | st.floats() | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["S", "N", "M", "x"]), inner, max_size=2)
            ),
            max_leaves=4,
        ),
    )
)
def test_no_row_breaks_the_monitor_or_makes_it_patient_for_ever(row: dict[str, Any]) -> None:
    dead_man = monitor.DeadMan(0.0)
    dead_man.hear(row, 10.0, NOW)
    again = monitor.DeadMan(0.0)
    again.restore(json.loads(json.dumps(dead_man.state())), 20.0)
    assert again.patience() == dead_man.patience() >= 3 * HOURS
    assert again.is_over(1e9, 200 * 86400.0)


# --- all of it ---


class Machine:
    """What a monitor finds outside: looks, the metadata service, the table, the clocks: its own and the table's.

    As DynamoDB does, the table takes no row that is signed for a time five minutes off its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1000.0
        self.wall = NOW
        self.began = NOW - timedelta(seconds=self.now)
        self.refused = 0
        self.rows: list[dict[str, Any]] = []
        self.row: dict[str, Any] = {}
        self.errors: list[Exception] = []
        self.seen: dict[str, Any] = {}
        self.ended = 0
        self.address: str | None = "203.0.113.7"
        self.has_gpu = False
        self.busiest = ["python train.py"]

    def look(self) -> Sample:
        known = Sample(self.now, 0.0, [], [], 0.0, 0.0, 0.0, 0.0, (0, 0))
        return known._replace(**self.seen)

    def instance(self) -> monitor.Instance:
        if self.errors:
            raise self.errors.pop(0)
        return INSTANCE._replace(address=self.address)

    def true_time(self) -> datetime:
        return self.began + timedelta(seconds=self.now)

    def write(self, instance: monitor.Instance, values: dict[str, Any], now: datetime) -> monitor.Written:
        assert instance.arn == ARN
        if abs((now - self.true_time()).total_seconds()) > 300:
            self.refused += 1
            raise monitor.HeartbeatError('DynamoDB answered 400: {"__type":"…InvalidSignature…"}', self.true_time())
        self.rows.append(values)
        return monitor.Written(self.row, self.true_time())

    def end(self) -> None:
        self.ended += 1

    def monitor(self, notebook: tuple[str, int], **more: Any) -> monitor.Monitor:
        this: Any = self
        made = monitor.Monitor(
            this, this, this, "b" * 32, state=self.folder / "state.json", accepted=self.folder / "accepted",
            notebook=notebook, clock=lambda: self.now, wall=lambda: self.wall, end=self.end, **more,
        )  # fmt: skip
        made.begin()
        return made

    def run(self, monitored: monitor.Monitor, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += monitored.seconds_to_next()
            monitored.tick()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the notebook's port answers."""
    answer: dict[str, Any] = {"probe": monitor.Probe(True, b"certificate"), "asked": 0}

    def probe(address: tuple[str, int]) -> monitor.Probe:
        answer["asked"] += 1
        found: monitor.Probe = answer["probe"]
        return found

    monkeypatch.setattr(monitor, "probe", probe)
    monkeypatch.setattr(monitor, "is_valid", lambda certificate, name, address: name == "203.0.113.7")
    return answer


PORT = ("127.0.0.1", 1)


def test_a_heartbeat_says_what_the_contract_says(machine: Machine, notebook: dict[str, Any]) -> None:
    machine.seen = {"kernels": [(True, False)], "browsers": None}
    machine.run(machine.monitor(PORT), 5)
    (row,) = machine.rows
    assert row == {
        "at": "2026-01-02T03:04:05Z",
        "boot_id": "b" * 32,
        "beat": 1,
        "uptime": 1001,
        "answers": True,
        # Whatever a boot before told of its server is taken out of the row.
        "server": None,
        "address": "203.0.113.7",
        "certificate_sha256": monitor.Probe(True, b"certificate").certificate_sha256,
        "certificate_valid": True,
        "version": "2",
        "ages": {"kernel": 0},
        "facts": {
            "kernels": {"busy": 1, "waiting": 0, "idle": 0},
            "terminals": {"foreground": 0, "waiting": 0, "quiet": 0},
            "cpu_cores": 0.0,
            "disk_mib_s": 0.0,
            "network_kib_s": 0.0,
            "busiest": ["python train.py"],
        },
        "unknown": ["browsers"],
        "expires_at": int(datetime(2026, 4, 2, 3, 4, 5, tzinfo=UTC).timestamp()),
    }
    validate_parameters(monitor.update_item("t", ARN, row), UPDATE_ITEM)


def test_a_gpu_is_told_of_where_there_is_one(machine: Machine, notebook: dict[str, Any]) -> None:
    machine.has_gpu = True
    machine.run(machine.monitor(PORT), 5)
    assert machine.rows[0]["facts"]["gpu_percent"] == 0.0


def test_an_idle_machine_beats_each_four_minutes_and_a_busy_one_each(
    machine: Machine, notebook: dict[str, Any]
) -> None:
    monitored = machine.monitor(PORT)
    machine.run(monitored, 3600)
    assert 14 <= len(machine.rows) <= 17
    machine.seen = {"kernels": [(True, False)]}
    before = len(machine.rows)
    machine.run(monitored, 3600)
    assert 58 <= len(machine.rows) - before <= 61
    assert [row["beat"] for row in machine.rows] == list(range(1, len(machine.rows) + 1))


def test_an_idle_machine_beats_each_minute_once_it_may_be_stopped(machine: Machine, notebook: dict[str, Any]) -> None:
    monitored = machine.monitor(PORT)
    machine.row = {"limit_seconds": {"N": "1800"}}
    machine.run(monitored, 1790)
    calm = len(machine.rows)
    assert calm <= 9
    machine.run(monitored, 600)
    assert 9 <= len(machine.rows) - calm <= 11, "a sweep sees within a minute that the limit is reached"
    assert 0 <= machine.rows[calm]["uptime"] - 1000 - 1800 <= 10
    machine.run(monitored, 3600)
    late = len(machine.rows)
    machine.run(monitored, 1200)
    assert 4 <= len(machine.rows) - late <= 6, "something else keeps it by then"


def test_a_notebook_that_starts_is_asked_each_second_and_told_of_at_once(
    machine: Machine, notebook: dict[str, Any]
) -> None:
    notebook["probe"] = monitor.Probe(False, None)
    monitored = machine.monitor(PORT)
    machine.run(monitored, 20)
    assert notebook["asked"] == 20
    assert [row["answers"] for row in machine.rows] == [False]
    notebook["probe"] = monitor.Probe(True, b"certificate")
    machine.run(monitored, 1)
    assert [row["answers"] for row in machine.rows] == [False, True]
    asked = notebook["asked"]
    machine.run(monitored, 60)
    assert notebook["asked"] - asked == 4


def test_a_notebook_that_stays_away_costs_no_more_than_one_that_answers(
    machine: Machine, notebook: dict[str, Any]
) -> None:
    notebook["probe"] = monitor.Probe(False, None)
    monitored = machine.monitor(PORT)
    machine.run(monitored, 700)
    asked = notebook["asked"]
    machine.run(monitored, 60)
    assert notebook["asked"] - asked == 4


def test_another_address_is_told_within_a_minute(machine: Machine, notebook: dict[str, Any]) -> None:
    monitored = machine.monitor(PORT)
    machine.run(monitored, 300)
    machine.address = "198.51.100.1"
    before = len(machine.rows)
    machine.run(monitored, 65)
    assert [(row["address"], row["certificate_valid"]) for row in machine.rows[before:]] == [("198.51.100.1", False)]


def test_a_certificate_that_was_found_bad_is_looked_at_again_and_a_good_one_each_hour(
    machine: Machine, notebook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    good = False

    def is_valid(certificate: bytes, name: str, address: tuple[str, int]) -> bool:
        asked.append(machine.now)
        return good

    monkeypatch.setattr(monitor, "is_valid", is_valid)
    monitored = machine.monitor(PORT)
    machine.run(monitored, 300)
    assert [row["certificate_valid"] for row in machine.rows] == [False, False]
    good = True
    machine.run(monitored, 3 * 3600)
    assert {row["certificate_valid"] for row in machine.rows[2:]} == {True}
    assert len(asked) == 2 + 3
    good = False
    machine.run(monitored, 3600)
    assert machine.rows[-1]["certificate_valid"] is False, "a certificate can end"


def test_no_failure_of_a_heartbeat_ends_the_monitor(
    machine: Machine, notebook: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    monitored = machine.monitor(PORT)
    machine.errors = [
        ConnectionRefusedError(), TimeoutError(), http.client.BadStatusLine("x"), ValueError(), KeyError("region"),
        monitor.HeartbeatError("no"), ssl.SSLError(), OSError(), OSError(), OSError(), OSError(), OSError(), OSError(),
    ]  # fmt: skip
    machine.run(monitored, 1200)
    assert not machine.errors
    assert machine.rows
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert "heartbeat accepted again" in printed[-1]


def test_acceptance_is_left_for_the_documents_to_see(machine: Machine, notebook: dict[str, Any]) -> None:
    machine.errors = [OSError(), OSError()]
    monitored = machine.monitor(PORT)
    machine.run(monitored, 1)
    assert not (machine.folder / "accepted").exists()
    machine.run(monitored, 60)
    assert 1000 < int((machine.folder / "accepted").read_text()) <= machine.now


def test_a_restarted_monitor_goes_on(machine: Machine, notebook: dict[str, Any]) -> None:
    machine.seen = {"kernels": [(True, False)]}
    machine.run(machine.monitor(PORT), 5)
    machine.seen = {}
    machine.run(machine.monitor(PORT), 30)
    assert machine.rows[1]["beat"] == 2
    assert machine.rows[1]["ages"] == {"kernel": 1}


def test_a_new_boot_begins_anew(machine: Machine, notebook: dict[str, Any]) -> None:
    machine.seen = {"kernels": [(True, False)]}
    machine.run(machine.monitor(PORT), 5)
    kept = json.loads((machine.folder / "state.json").read_text())
    (machine.folder / "state.json").write_text(json.dumps({**kept, "boot_id": "c" * 32}))
    machine.seen = {}
    machine.run(machine.monitor(PORT), 5)
    assert (machine.rows[1]["beat"], machine.rows[1]["ages"]) == (1, {})


@pytest.mark.parametrize("state", ["", "{", "[]", '{"boot_id": "' + "b" * 32 + '", "beat": "x"}'])
def test_a_broken_state_is_as_good_as_none(machine: Machine, notebook: dict[str, Any], state: str) -> None:
    (machine.folder / "state.json").write_text(state)
    machine.run(machine.monitor(PORT), 5)
    assert machine.rows[0]["beat"] == 1


def test_a_state_that_cannot_be_kept_stops_nothing(machine: Machine, notebook: dict[str, Any]) -> None:
    machine.folder = machine.folder / "gone"
    machine.run(machine.monitor(PORT), 120)
    assert len(machine.rows) == 1


def test_a_clock_that_steps_changes_nothing(machine: Machine, notebook: dict[str, Any]) -> None:
    monitored = machine.monitor(PORT)
    machine.seen = {"kernels": [(True, False)]}
    machine.run(monitored, 5)
    machine.seen = {}
    machine.wall = NOW.replace(year=2031)
    machine.run(monitored, 120)
    machine.wall = NOW.replace(year=1999)
    machine.run(monitored, 240)
    ats = [datetime.fromisoformat(row["at"]) for row in machine.rows]
    assert [(at - ats[0]).total_seconds() - row["uptime"] for at, row in zip(ats, machine.rows, strict=True)] == (
        pytest.approx([-1001, -1001, -1001], abs=1.0)
    )
    assert [row["ages"]["kernel"] for row in machine.rows] == [0, 55, 295]
    assert (machine.refused, machine.ended) == (0, 0), "DynamoDB's time is known since the first heartbeat"


@pytest.mark.parametrize("off", [-43200.0, -302.0, 302.0, 43200.0, 1e9])
def test_a_monitor_that_starts_with_a_wrong_clock_signs_again_by_dynamodbs(
    machine: Machine, notebook: dict[str, Any], off: float
) -> None:
    machine.wall = NOW + timedelta(seconds=off)
    machine.row = {"hold_until": {"S": "2026-01-02T13:04:06Z"}}
    monitored = machine.monitor(PORT)
    machine.run(monitored, 1)
    (row,) = machine.rows
    assert (row["at"], row["beat"], machine.refused) == ("2026-01-02T03:04:06Z", 1, 1)
    assert monitored.dead_man.hold_at == pytest.approx(machine.now + 10 * HOURS), "and reads times by it"
    machine.run(monitored, 600)
    assert machine.refused == 1


def test_a_refusal_for_another_reason_is_not_tried_again_at_once(
    machine: Machine, notebook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def write(instance: monitor.Instance, values: dict[str, Any], now: datetime) -> monitor.Written:
        asked.append(now)
        raise monitor.HeartbeatError("DynamoDB answered 400: AccessDeniedException", machine.true_time())

    monkeypatch.setattr(machine, "write", write)
    machine.run(machine.monitor(PORT), 1)
    assert len(asked) == 1


def test_an_idle_machine_that_nobody_confirms_ends(machine: Machine, notebook: dict[str, Any]) -> None:
    machine.row = {"limit_seconds": {"N": "10"}, "confirmed": {"S": "a"}}
    monitored = machine.monitor(PORT, minute=1.0)
    machine.run(monitored, 3 * 60 + 20 - 10)
    assert not machine.ended
    machine.run(monitored, 30)
    assert machine.ended == 1
    machine.run(monitored, 310)
    assert machine.ended == 2, "it asks again"


@pytest.mark.parametrize("seen", [{"kernels": [(True, False)]}, {"cpu_seconds": 5.0}])
def test_one_that_works_does_not(machine: Machine, notebook: dict[str, Any], seen: dict[str, Any]) -> None:
    machine.seen = seen
    # Hours of minutes that last a second.
    machine.run(machine.monitor(PORT, minute=1.0), 20 * 60)
    assert not machine.ended


@pytest.mark.parametrize("unknown", ["kernels", "network_bytes", "cpu_seconds"])
@pytest.mark.parametrize(("limit", "cap"), [(60, 4 * 60), (5 * 60, 6 * 60)])
def test_one_that_cannot_tell_is_borne_as_long_as_by_the_sweep_and_then_ends(
    machine: Machine, notebook: dict[str, Any], unknown: str, limit: int, cap: int
) -> None:
    machine.row = {"limit_seconds": {"N": str(limit)}}
    monitored = machine.monitor(PORT, minute=1.0)
    machine.run(monitored, 60)
    machine.seen = {unknown: None}
    machine.run(monitored, cap + 2 * limit + 3 * 60 - 60 - 10)
    assert not machine.ended
    machine.run(monitored, 20)
    assert machine.ended == 1


def test_one_that_cannot_tell_now_and_then_ends_too(machine: Machine, notebook: dict[str, Any]) -> None:
    """A server that hangs again and again must not begin a new patience each time."""
    monitored = machine.monitor(PORT, minute=1.0)
    for _ in range(9 * 2 + 1):
        machine.seen = {"kernels": None}
        machine.run(monitored, 10)
        machine.seen = {}
        machine.run(monitored, 20)
    assert machine.ended == 1


def test_a_page_that_lies_open_does_not_keep_one_that_nobody_watches(
    machine: Machine, notebook: dict[str, Any]
) -> None:
    machine.seen = {"browsers": (1, 0)}
    monitored = machine.monitor(PORT, minute=1.0)
    machine.run(monitored, 5 * 60 - 10)
    assert not machine.ended
    machine.run(monitored, 20)
    assert machine.ended == 1


def test_one_that_is_confirmed_does_not(machine: Machine, notebook: dict[str, Any]) -> None:
    monitored = machine.monitor(PORT, minute=1.0)
    for hour in range(12):
        machine.row = {"confirmed": {"S": str(hour)}}
        machine.run(monitored, 60)
    assert not machine.ended


def test_one_that_never_reached_the_table_ends_too(machine: Machine, notebook: dict[str, Any]) -> None:
    machine.errors = [OSError()] * 10_000
    monitored = machine.monitor(PORT, minute=1.0)
    machine.run(monitored, 5 * 60 - 2)
    assert not machine.ended
    machine.run(monitored, 60)
    assert machine.ended == 1


def test_systemd_is_told_of_start_and_life(
    machine: Machine, notebook: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Ended(BaseException):
        """Ends `serve`, which never ends by itself."""

    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        machine.now += seconds
        if len(waits) == 3:
            raise Ended

    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        with pytest.raises(Ended):
            monitor.serve(machine.monitor(PORT), sleep)
        receiver.setblocking(False)
        assert [receiver.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
    assert waits == [1.0, 5.0, 5.0]


def test_looking_is_measured_as_the_service_looks() -> None:
    found = monitor.measure(0.3)
    assert found["looks"] >= 1
    assert 0 < found["cpu_seconds"] <= found["seconds"]
    assert found["rss_kib"] > 1000


def test_what_a_look_starts_is_part_of_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    monkeypatch.setattr(looks, "COUNTERS", (sys.executable, "-c", burn))
    assert monitor.measure(0.1)["cpu_seconds"] > 0.3


@pytest.mark.parametrize("since", [5, 20, 45])
def test_whoever_comes_back_is_told_of_at_once(machine: Machine, notebook: dict[str, Any], since: int) -> None:
    """However young the last heartbeat is: the sweep that read it may be about to stop the machine."""
    monitored = machine.monitor(PORT)
    machine.run(monitored, 600)
    beats = len(machine.rows)
    while len(machine.rows) == beats:
        machine.run(monitored, 1)
    machine.run(monitored, since)
    assert len(machine.rows) == beats + 1
    machine.seen = {"input_at": machine.now + 1}
    machine.run(monitored, 6)
    assert len(machine.rows) == beats + 2
    assert machine.rows[-1]["ages"]["input"] <= 5


def test_that_somebody_is_back_is_told_once_a_minute_at_most(machine: Machine, notebook: dict[str, Any]) -> None:
    monitored = machine.monitor(PORT)
    for period in (5, 61, 90):
        machine.run(monitored, 600)
        before, began = len(machine.rows), machine.now
        while machine.now < began + 1800:
            machine.seen = {"input_at": machine.now}
            machine.run(monitored, period)
        assert len(machine.rows) - before <= 1800 / 30


def test_a_heartbeat_says_when_jobs_are_due_and_looks_again_when_one_is_past(
    machine: Machine, notebook: dict[str, Any]
) -> None:
    asked: list[float] = []
    job = {"at": "2026-01-02T03:05:05Z", "what": "cron", "name": "backup.sh"}

    def due_jobs() -> list[dict[str, str]]:
        asked.append(machine.now)
        return [job] if machine.now < 1060 else []

    monitored = machine.monitor(PORT, due_jobs=due_jobs)
    machine.run(monitored, 5)
    assert machine.rows[0]["facts"]["due_jobs"] == [job]
    validate_parameters(monitor.update_item("t", ARN, machine.rows[0]), UPDATE_ITEM)
    machine.run(monitored, 600)
    assert "due_jobs" not in machine.rows[-1]["facts"]
    assert len(asked) <= 3


@pytest.mark.parametrize("printed", [None, b"", b"x", b"{}", b'{"a": 1}', b"[1]", b'[{"at": 1}]', b"[[]]"])
def test_what_the_program_for_jobs_prints_is_not_believed(monkeypatch: pytest.MonkeyPatch, printed: bytes) -> None:
    monkeypatch.setattr(monitor, "run", lambda _: printed)
    assert monitor.due_jobs() == []
