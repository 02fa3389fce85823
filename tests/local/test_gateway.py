"""What API Gateway does around the app, and the pages of the local cloud."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from local.cloud import Cloud
from tests.local.clouds import cloud, no_faults  # noqa: F401


@pytest.fixture
def api(cloud: Cloud) -> Iterator[http.client.HTTPConnection]:  # noqa: F811
    connection = http.client.HTTPConnection("127.0.0.1", cloud.api_port, timeout=10)
    yield connection
    connection.close()


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def raw(cloud: Cloud, data: bytes) -> bytes:  # noqa: F811
    with socket.create_connection(("127.0.0.1", cloud.api_port), timeout=10) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return received


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/no/such/path", 403),
        ("TRACE", "/", 403),
        ("PUT", "/notebooks", 401),
        ("HEAD", "/health", 405),
        ("OPTIONS", "/openapi.json", 405),
        ("TRACE", "/health", 405),
        ("PURGE", "/notebooks/nb-1", 405),
    ],
)
def test_what_has_no_route_or_method_is_a_problem_detail(
    api: http.client.HTTPConnection, method: str, path: str, expected: int
) -> None:
    status, headers, body = ask(api, method, path)
    assert status == expected
    assert headers["content-type"] == "application/problem+json"
    if expected == 405:
        assert headers["allow"] == ("DELETE, GET" if "nb-" in path else "GET")
    if method != "HEAD":
        assert json.loads(body)["status"] == expected
    else:
        assert body == b""


def test_a_connection_serves_many_requests(api: http.client.HTTPConnection) -> None:
    assert ask(api, "GET", "/health")[0] == 200
    first = api.sock
    assert ask(api, "GET", "/health")[0] == 200
    assert ask(api, "GET", "/nowhere")[0] == 403
    assert api.sock is first


def test_ten_megabytes_are_too_much_and_are_not_read(cloud: Cloud) -> None:  # noqa: F811
    head = b"POST /notebooks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    answer = raw(cloud, head % (10 * 1024 * 1024 + 1) + b"x" * 100_000)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


def test_what_lambda_cannot_take_is_413_too(api: http.client.HTTPConnection) -> None:
    status, headers, _ = ask(api, "POST", "/notebooks", b"x" * (7 * 1024 * 1024), Content_Type="application/json")
    assert (status, headers["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /notebooks HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /notebooks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /health HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(200)) + b"\r\n",
    ],
)
def test_what_is_no_http_is_a_problem_detail_and_the_next_one_is_served(
    cloud: Cloud,  # noqa: F811
    api: http.client.HTTPConnection,
    data: bytes,
) -> None:
    answer = raw(cloud, data)
    assert b" 4" in answer[:13] or b" 505 " in answer[:14]
    assert b"application/problem+json" in answer
    assert ask(api, "GET", "/health")[0] == 200


HEAD = b"POST /notebooks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\n"


def calls(cloud: Cloud) -> int:  # noqa: F811
    return cloud.lambdas.counts.get("nod-local-api", 0)


def posted(cloud: Cloud, framing: bytes, body: bytes = b"{}", *, half_closed: bool = False) -> bytes:  # noqa: F811
    """The answer to a launch whose length is said like this, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", cloud.api_port), timeout=10) as connection:
        connection.sendall(HEAD % cloud.token.encode() + framing + b"\r\n\r\n" + body)
        if half_closed:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return received


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 10", b"{}"),
        (b"Content-Length: 1", b""),
        (b"Transfer-Encoding: chunked", b"2\r\n{}\r\n"),
        (b"Transfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n"),
        (b"Transfer-Encoding: chunked", b"a\r\n{}"),
        (b"Transfer-Encoding: chunked", b"2"),
    ],
)
def test_a_body_that_is_cut_short_starts_nothing_and_gets_no_answer(
    cloud: Cloud,  # noqa: F811
    api: http.client.HTTPConnection,
    framing: bytes,
    body: bytes,
) -> None:
    before = calls(cloud)
    assert posted(cloud, framing, body, half_closed=True) == b""
    assert calls(cloud) == before
    assert ask(api, "GET", "/health")[0] == 200


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Content-Length: 3\r\nContent-Length: 2",
        b"Content-Length: 2, 3",
        b"Content-Length: -2",
        b"Content-Length: +2",
        b"Content-Length: 0_2",
        b"Content-Length: 0x2",
        b"Content-Length: 2.0",
        b"Content-Length: 2 2",
        b"Content-Length:",
        b"Content-Length : 2",
        b"Content-Length: \xb2",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: identity",
    ],
)
def test_a_length_that_is_in_doubt_is_refused_and_starts_nothing(cloud: Cloud, framing: bytes) -> None:  # noqa: F811
    before = calls(cloud)
    answer = posted(cloud, framing)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1, "what follows is not read for another request"
    assert calls(cloud) == before


@pytest.mark.parametrize(
    "chunks",
    [
        b"+2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"0_2\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}}\r\n0\r\n\r\n",
        b"2;" + b"x" * 10_000 + b"\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_a_chunk_whose_length_is_in_doubt_is_refused_and_starts_nothing(
    cloud: Cloud,  # noqa: F811
    chunks: bytes,
) -> None:
    before = calls(cloud)
    answer = posted(cloud, b"Transfer-Encoding: chunked", chunks)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert calls(cloud) == before


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: " + b"9" * 5000, b"{}"),
        (b"Transfer-Encoding: chunked", b"f" * 5000 + b"\r\n{}"),
    ],
)
def test_a_length_that_no_body_has_is_too_large(cloud: Cloud, framing: bytes, body: bytes) -> None:  # noqa: F811
    answer = posted(cloud, framing, body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 2\r\nContent-Length: 2", b"[]"),
        (b"Content-Length: 2, 2", b"[]"),
        (b"content-length: 000002 ", b"[]"),
        (b"Transfer-Encoding: Chunked", b"0002 ;a=b\r\n[]\r\n0\r\nX: y\r\n\r\n"),
    ],
)
def test_a_length_that_is_said_strangely_and_truly_reaches_the_app(
    cloud: Cloud,  # noqa: F811
    framing: bytes,
    body: bytes,
) -> None:
    before = calls(cloud)
    answer = posted(cloud, framing + b"\r\nConnection: close", body)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"object" in answer, "the app read the body, and takes no list"
    assert calls(cloud) == before + 1


def test_a_form_of_several_parts_is_for_the_app_to_refuse(cloud: Cloud, api: http.client.HTTPConnection) -> None:  # noqa: F811
    kind = "multipart/form-data; boundary=x"
    status, _, _ = ask(api, "POST", "/notebooks", b"--x--", Content_Type=kind, Authorization=f"Bearer {cloud.token}")
    assert status == 415


def test_a_chunked_body_arrives_whole(api: http.client.HTTPConnection, cloud: Cloud) -> None:  # noqa: F811
    api.request(
        "POST",
        "/notebooks",
        iter([b'{"instance_', b'type": "no.such"}']),
        {"Content-Type": "application/json", "Authorization": f"Bearer {cloud.token}"},
        encode_chunked=True,
    )
    answer = api.getresponse()
    assert answer.status == 422
    assert b"instance_type" in answer.read()


def test_a_client_that_hangs_up_harms_nobody(cloud: Cloud, api: http.client.HTTPConnection) -> None:  # noqa: F811
    for _ in range(5):
        connection = socket.create_connection(("127.0.0.1", cloud.api_port))
        connection.sendall(b"POST /notebooks HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        connection.close()
    assert ask(api, "GET", "/health")[0] == 200


def test_requests_run_side_by_side(cloud: Cloud) -> None:  # noqa: F811
    started = threading.Barrier(5, timeout=5)
    handlers = cloud.lambdas._handlers
    app = handlers["nod-local-api"]

    def together(event: Any, context: Any) -> Any:
        started.wait()
        return app(event, context)

    handlers["nod-local-api"] = together
    statuses: list[int] = []

    def get() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", cloud.api_port, timeout=10)
        statuses.append(ask(connection, "GET", "/health")[0])
        connection.close()

    threads = [threading.Thread(target=get) for _ in range(5)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        handlers["nod-local-api"] = app
    assert statuses == [200] * 5


def test_a_function_that_fails_is_502(cloud: Cloud, api: http.client.HTTPConnection) -> None:  # noqa: F811
    handlers = cloud.lambdas._handlers
    app = handlers["nod-local-api"]
    handlers["nod-local-api"] = lambda event, context: 1 / 0
    try:
        status, headers, body = ask(api, "GET", "/health")
    finally:
        handlers["nod-local-api"] = app
    assert (status, headers["content-type"]) == (502, "application/problem+json")
    assert b"ZeroDivision" not in body


def test_faults_are_switched_over_http(cloud: Cloud) -> None:  # noqa: F811
    pages = http.client.HTTPConnection("127.0.0.1", cloud.aws_port, timeout=10)
    status, _, body = ask(pages, "PUT", "/_local/faults", json.dumps({"no_capacity": True, "command_fails:x": True}))
    assert (status, json.loads(body)["on"]) == (200, ["command_fails:x", "no_capacity"])
    assert cloud.faults.active("no_capacity")
    status, _, body = ask(pages, "PUT", "/_local/faults", json.dumps({"no_capacity": False, "no_such": True}))
    assert status == 422
    assert "no_such" in json.loads(body)["error"]
    assert cloud.faults.active("no_capacity"), "nothing is changed when one name is wrong"
    assert ask(pages, "PUT", "/_local/faults", json.dumps({"no_capacity": "yes"}))[0] == 422
    pages.close()


@pytest.mark.parametrize("page", ["", "inbox", "slack", "health", "machines", "faults", "inbox.json", "slack.json"])
def test_pages_are_there(cloud: Cloud, page: str) -> None:  # noqa: F811
    pages = http.client.HTTPConnection("127.0.0.1", cloud.aws_port, timeout=10)
    assert ask(pages, "GET", f"/_local/{page}")[0] == 200
    assert ask(pages, "GET", "/_local/no-such-page")[0] == 404
    pages.close()


def test_the_token_is_for_its_owner_only(cloud: Cloud) -> None:  # noqa: F811
    path = cloud.state / "token"
    assert path.read_text().strip() == cloud.token
    assert path.stat().st_mode & 0o777 == 0o600


def test_logs_hold_no_secret(cloud: Cloud, api: http.client.HTTPConnection) -> None:  # noqa: F811
    ask(api, "GET", "/notebooks", None, Authorization=f"Bearer {cloud.token}")
    secret = cloud.token.rsplit(".", 1)[1]
    for file in (cloud.state / "log").iterdir():
        text = file.read_text()
        assert secret not in text
        assert "Bearer" not in text
