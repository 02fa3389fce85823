"""`make smoke` removes what it made, also what it does not know that it made. On AWS all of it costs."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from admin.users import list_users
from deploy.account import Identity
from deploy.smoke import command, journey
from deploy.smoke.account import Account
from deploy.smoke.journey import Journey, Place
from deploy.smoke.rows import Answer
from tests.unit.stage import ACCOUNT, ENV, REGION, SESSION, STAGE, Stage, stage

API = "https://api.example/api"


class Clock:
    """Time passes only while somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float, /) -> None:
        self.seconds += seconds

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return self.seconds


class Network:
    """Between the journey and the app of a stage, which does what is asked before `then` may lose the answer."""

    def __init__(self, deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.then: Callable[[str], object] = lambda asked: None
        self._deployed = deployed
        transport, real = httpx.MockTransport(self._answer), httpx.Client

        def client(**options: Any) -> httpx.Client:
            return real(base_url=options["base_url"], headers=options["headers"], transport=transport)

        monkeypatch.setattr(journey.httpx, "Client", client)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().removeprefix("/api")
        token = request.headers["Authorization"].removeprefix("Bearer ")
        headers = {"Idempotency_Key": key} if (key := request.headers.get("Idempotency-Key")) else {}
        answer = self._deployed.http(request.method, path, token, request.content or None, **headers)
        if request.method == "DELETE":
            self._end(path)
        self.then(f"{request.method} {path}")
        return httpx.Response(answer.status_code, content=answer.body)

    def _end(self, path: str) -> None:
        """As the workflow `terminate` does."""
        identifier = path.partition("?")[0].rpartition("/")[2]
        self._deployed.change(identifier, state="terminated")
        self._deployed.dynamodb.update_item(
            TableName=ENV["NOD_USERS_TABLE"],
            Key={"id": self._deployed.record(identifier)["owner"]},
            UpdateExpression="DELETE active :one, owned :one",
            ExpressionAttributeValues={":one": {"SS": [identifier]}},
        )


@pytest.fixture
def deployed() -> Iterator[Stage]:
    with stage() as deployed:
        yield deployed


@pytest.fixture
def network(deployed: Stage, monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(deployed, monkeypatch)


@pytest.fixture
def looking(deployed: Stage) -> Journey:
    identity = Identity(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:user/ada", REGION, "aws")
    place = Place(STAGE, Account(SESSION.client, STAGE, identity), deployed.admin, API)
    return Journey(place, lambda line: None, Clock())


def seen(looking: Journey) -> dict[str, tuple[Answer, str]]:
    return {row.key: (row.answer, row.seen) for row in looking.rows}


def states(deployed: Stage) -> list[str]:
    rows = deployed.dynamodb.scan(TableName=ENV["NOD_NOTEBOOKS_TABLE"])["Items"]
    return [row["state"]["S"] for row in rows]


def lose(*methods: str, times: int) -> Callable[[str], None]:
    """The answers to the first so many such requests never arrive."""
    left = [times]

    def then(asked: str) -> None:
        if asked.startswith(methods) and left[0]:
            left[0] -= 1
            raise httpx.ReadTimeout("lost")

    return then


def test_a_launch_whose_every_answer_was_lost_is_removed(deployed: Stage, network: Network, looking: Journey) -> None:
    network.then = lose("POST /notebooks", times=99)
    assert not looking.run()
    assert seen(looking)["request"][0] is Answer.NO
    assert states(deployed) == ["terminated"]
    assert list_users(deployed.admin) == []
    assert seen(looking)["removed"][0] is Answer.YES


def test_a_password_whose_answer_was_lost_is_said_to_be(deployed: Stage, network: Network, looking: Journey) -> None:
    network.then = lose("POST /notebooks", times=1)
    assert not looking.run()
    answer, said = seen(looking)["request"]
    assert answer is Answer.NO and "password" in said
    assert states(deployed) == ["terminated"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_before_the_answer_leaves_no_launch(deployed: Stage, network: Network, looking: Journey) -> None:
    network.then = lambda asked: interrupt() if asked.startswith("POST") else None
    with pytest.raises(KeyboardInterrupt):
        looking.run()
    assert states(deployed) == ["terminated"]
    assert list_users(deployed.admin) == []


def test_ctrl_c_before_the_token_is_known_leaves_no_user(
    deployed: Stage, looking: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = journey.users.add_user

    def added(*arguments: Any, **options: Any) -> str:
        add(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(journey.users, "add_user", added)
    with pytest.raises(KeyboardInterrupt):
        looking.run()
    assert list_users(deployed.admin) == []
    assert seen(looking)["removed"][0] is Answer.YES


def nobody_reads(*_: object) -> None:
    raise BrokenPipeError


def test_nothing_is_left_where_nobody_reads_what_is_said(deployed: Stage, network: Network, looking: Journey) -> None:
    looking.say = nobody_reads
    network.then = lose("POST /notebooks", times=1)
    with command._interrupted_once(nobody_reads, lambda: looking.removing):
        assert not looking.run()
    assert states(deployed) == ["terminated"]
    assert list_users(deployed.admin) == []


def test_a_terminal_that_is_closed_ends_the_looking_and_not_the_removal(
    deployed: Stage, network: Network, looking: Journey
) -> None:
    looking.say = nobody_reads
    network.then = lambda asked: signal.raise_signal(signal.SIGHUP) if asked.startswith("POST") else None
    with command._interrupted_once(nobody_reads, lambda: looking.removing), pytest.raises(KeyboardInterrupt):
        looking.run()
    assert states(deployed) == ["terminated"]
    assert list_users(deployed.admin) == []


def test_a_terminal_that_is_closed_while_all_is_removed_ends_nothing(
    deployed: Stage, network: Network, looking: Journey
) -> None:
    looking.say = nobody_reads
    then = lose("POST /notebooks", times=1)

    def hang_up(asked: str) -> None:
        if asked.startswith("DELETE"):
            signal.raise_signal(signal.SIGHUP)
        then(asked)

    network.then = hang_up
    with command._interrupted_once(nobody_reads, lambda: looking.removing):
        looking.run()
    assert states(deployed) == ["terminated"]
    assert list_users(deployed.admin) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_ctrl_c_does_not_end_the_removal(
    deployed: Stage, network: Network, looking: Journey, number: signal.Signals
) -> None:
    said: list[str] = []

    def then(asked: str) -> None:
        if asked.startswith("POST"):
            raise httpx.ReadTimeout("lost")
        if "GET /notebooks/nb-" in asked:
            # The removal has just begun: nothing was asked to be deleted yet.
            signal.raise_signal(number)

    network.then = then
    with command._interrupted_once(said.append, lambda: looking.removing):
        looking.run()
    assert states(deployed) == ["terminated"]
    assert list_users(deployed.admin) == []
    assert any(line.startswith("Not interrupted.") for line in said)
