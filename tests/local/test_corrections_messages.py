"""SNS, Lambda, EventBridge, DynamoDB and throttling as AWS has them."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.cloud import Cloud
from tests.local.clouds import Events, client, cloud, no_faults, until  # noqa: F401


@pytest.fixture(scope="module")
def sns(cloud: Cloud) -> Any:  # noqa: F811
    return client(cloud, "sns")


@pytest.fixture
def topic(sns: Any) -> str:
    return str(sns.create_topic(Name=f"topic-{uuid.uuid4()}")["TopicArn"])


def address() -> str:
    return f"{uuid.uuid4()}@example.com"


def subscribe(sns: Any, topic: str, endpoint: str, **attributes: str) -> str:
    return str(
        sns.subscribe(
            TopicArn=topic,
            Protocol="email",
            Endpoint=endpoint,
            Attributes=attributes,
            ReturnSubscriptionArn=True,
        )["SubscriptionArn"]
    )


def confirm(cloud: Cloud, endpoint: str) -> None:  # noqa: F811
    mail = cloud.inbox.wait(lambda m: endpoint in m.recipients and "Confirmation" in m.subject)
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(mail.links[0]).close()


def mails(cloud: Cloud, endpoint: str) -> list[Any]:  # noqa: F811
    return [m for m in cloud.inbox.messages() if endpoint in m.recipients and "Confirmation" not in m.subject]


def queue(cloud: Cloud) -> tuple[str, str]:  # noqa: F811
    name = f"q-{uuid.uuid4()}"
    url = client(cloud, "sqs").create_queue(QueueName=name)["QueueUrl"]
    return url, f"arn:aws:sqs:{cloud.region}:123456789012:{name}"


def received(cloud: Cloud, url: str) -> dict[str, Any]:  # noqa: F811
    sqs = client(cloud, "sqs")
    found = until(lambda: sqs.receive_message(QueueUrl=url).get("Messages"))
    return dict(json.loads(found[0]["Body"]))


def test_an_address_gets_nothing_until_its_link_was_visited(
    cloud: Cloud,  # noqa: F811
    sns: Any,
    topic: str,
) -> None:
    endpoint = address()
    arn = subscribe(sns, topic, endpoint)
    assert sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]["PendingConfirmation"] == "true"
    assert (
        sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"][0]["SubscriptionArn"] == "PendingConfirmation"
    )
    sns.publish(TopicArn=topic, Message="too early")
    confirm(cloud, endpoint)
    assert sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]["PendingConfirmation"] == "false"
    sns.publish(TopicArn=topic, Subject="Hello", Message="in time")
    mail = cloud.inbox.wait(lambda m: endpoint in m.recipients and m.subject == "Hello")
    assert mail.text.startswith("in time\n")
    assert len(mails(cloud, endpoint)) == 1


def visit(address: str) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def got_one(cloud: Cloud, sns: Any, topic: str, endpoint: str) -> Any:  # noqa: F811
    """A mail of the topic, with AWS's footer."""
    subject = f"Hello {uuid.uuid4()}"
    sns.publish(TopicArn=topic, Subject=subject, Message="news")
    return cloud.inbox.wait(lambda m: endpoint in m.recipients and m.subject == subject)


def listed(sns: Any, topic: str) -> list[str]:
    return [one["SubscriptionArn"] for one in sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]]


def test_whoever_visits_the_link_at_the_end_of_a_mail_ends_the_subscription(
    cloud: Cloud,  # noqa: F811
    sns: Any,
    topic: str,
) -> None:
    endpoint = address()
    arn = subscribe(sns, topic, endpoint, FilterPolicyScope="MessageAttributes")
    confirm(cloud, endpoint)
    mail = got_one(cloud, sns, topic, endpoint)
    assert "stop receiving notifications" in mail.text
    assert "do not reply directly" in mail.text
    assert visit(mail.links[0]) == 200
    assert listed(sns, topic) == ["Deleted"]
    with pytest.raises(sns.exceptions.NotFoundException):
        sns.get_subscription_attributes(SubscriptionArn=arn)
    sns.publish(TopicArn=topic, Subject="Not any more", Message="x")
    last = cloud.inbox.wait(lambda m: endpoint in m.recipients and "Unsubscribe Confirmation" in m.subject)
    assert not [m for m in mails(cloud, endpoint) if m.subject == "Not any more"]
    assert visit(mail.links[0]) == 400
    assert visit(last.links[0]) == 200, "the last mail has the way back"
    assert listed(sns, topic) == [arn]
    got_one(cloud, sns, topic, endpoint)


def test_the_topics_owner_may_ask_an_endpoint_again_that_ended_its_subscription(
    cloud: Cloud,  # noqa: F811
    sns: Any,
    topic: str,
) -> None:
    endpoint = address()
    first = subscribe(sns, topic, endpoint)
    confirm(cloud, endpoint)
    visit(got_one(cloud, sns, topic, endpoint).links[0])
    second = subscribe(sns, topic, endpoint)
    assert second != first
    assert listed(sns, topic) == ["PendingConfirmation"]
    asked = until(
        lambda: [m for m in cloud.inbox.messages() if endpoint in m.recipients and "Subscription Conf" in m.subject][1:]
    )
    visit(asked[0].links[0])
    assert listed(sns, topic) == [second]


@pytest.mark.parametrize("clicked", [False, True])
def test_confirmed_by_a_signed_call_the_link_in_a_mail_ends_nothing(
    cloud: Cloud,  # noqa: F811
    sns: Any,
    topic: str,
    clicked: bool,
) -> None:
    endpoint = address()
    arn = subscribe(sns, topic, endpoint)
    asked = cloud.inbox.wait(lambda m: endpoint in m.recipients and "Confirmation" in m.subject)
    token = asked.links[0].partition("Token=")[2].partition("&")[0]
    if clicked:
        # AWS takes the token again while it is valid: one that its link confirmed is protected later.
        visit(asked.links[0])
    answer = sns.confirm_subscription(TopicArn=topic, Token=token, AuthenticateOnUnsubscribe="true")
    assert answer["SubscriptionArn"] == arn
    attributes = sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]
    assert attributes["ConfirmationWasAuthenticated"] == "true"
    assert visit(got_one(cloud, sns, topic, endpoint).links[0]) == 400
    assert listed(sns, topic) == [arn]
    sns.unsubscribe(SubscriptionArn=arn)
    assert listed(sns, topic) == []
    assert visit(asked.links[0]) == 400


def test_a_subscription_that_is_pending_cannot_be_ended(sns: Any, topic: str) -> None:
    arn = subscribe(sns, topic, address())
    with pytest.raises(sns.exceptions.InvalidParameterException):
        sns.unsubscribe(SubscriptionArn=arn)
    assert listed(sns, topic) == ["PendingConfirmation"]


def test_without_being_asked_for_the_arn_is_not_told(sns: Any, topic: str) -> None:
    answer = sns.subscribe(TopicArn=topic, Protocol="email", Endpoint=address())
    assert answer["SubscriptionArn"] == "pending confirmation"


def test_the_same_address_with_another_filter_is_an_error(sns: Any, topic: str) -> None:
    endpoint = address()
    first = subscribe(sns, topic, endpoint, FilterPolicy='{"owner": ["ada"]}')
    assert subscribe(sns, topic, endpoint, FilterPolicy='{"owner": ["ada"]}') == first
    with pytest.raises(ClientError) as raised:
        subscribe(sns, topic, endpoint, FilterPolicy='{"owner": ["bob"]}')
    assert raised.value.response["Error"]["Code"] in {"InvalidParameter", "InvalidParameterException"}


def test_filters_and_texts_for_each_protocol(cloud: Cloud, sns: Any, topic: str) -> None:  # noqa: F811
    ada, bob = address(), address()
    for endpoint, owner in ((ada, "ada"), (bob, "bob")):
        subscribe(sns, topic, endpoint, FilterPolicy=json.dumps({"owner": [owner]}))
        confirm(cloud, endpoint)
    sns.publish(
        TopicArn=topic,
        Subject="For Ada",
        MessageStructure="json",
        Message=json.dumps({"default": "nobody", "email": "plain text"}),
        MessageAttributes={"owner": {"DataType": "String", "StringValue": "ada"}},
    )
    assert cloud.inbox.wait(lambda m: m.subject == "For Ada").text.startswith("plain text")
    sns.publish(
        TopicArn=topic,
        Subject="Later",
        Message="x",
        MessageAttributes={"owner": {"DataType": "String", "StringValue": "bob"}},
    )
    cloud.inbox.wait(lambda m: m.subject == "Later")
    assert [m.subject for m in mails(cloud, bob)] == ["Later"]


def test_mail_that_is_refused_goes_to_the_dead_letter_queue(
    cloud: Cloud,  # noqa: F811
    sns: Any,
    topic: str,
) -> None:
    endpoint = address()
    url, arn = queue(cloud)
    subscribe(sns, topic, endpoint, RedrivePolicy=json.dumps({"deadLetterTargetArn": arn}))
    confirm(cloud, endpoint)
    cloud.faults.on("notification_fails:email")
    sns.publish(TopicArn=topic, Message="lost?")
    assert received(cloud, url)["Message"] == "lost?"
    assert mails(cloud, endpoint) == []


def test_a_function_gets_the_record_of_sns_and_fails_into_its_destination(
    cloud: Cloud,  # noqa: F811
    sns: Any,
    topic: str,
) -> None:
    seen: list[Any] = []

    def handler(event: Any, context: Any) -> None:
        seen.append(event)
        event.clear()
        raise ValueError("no luck")

    url, destination = queue(cloud)
    cloud.lambdas._handlers["nod-local-fails"] = handler
    cloud.lambdas.on_failure("nod-local-fails", destination)
    sns.subscribe(TopicArn=topic, Protocol="lambda", Endpoint=cloud.lambdas.arn("nod-local-fails"))
    sns.publish(
        TopicArn=topic,
        Message="hi",
        MessageAttributes={"kind": {"DataType": "String", "StringValue": "ready"}},
    )
    record = received(cloud, url)
    assert len(seen) == 3
    assert record["requestContext"]["condition"] == "RetriesExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["requestContext"]["functionArn"].endswith(":nod-local-fails:$LATEST")
    assert record["responsePayload"]["errorType"] == "ValueError"
    note = record["requestPayload"]["Records"][0]["Sns"]
    assert (note["Message"], note["TopicArn"]) == ("hi", topic)
    assert note["MessageAttributes"] == {"kind": {"Type": "String", "Value": "ready"}}


def test_the_functions_of_the_app_can_be_invoked(cloud: Cloud) -> None:  # noqa: F811
    functions = client(cloud, "lambda")
    cloud.lambdas._handlers["nod-local-echo"] = lambda event, context: {"echo": event}
    answer = functions.invoke(FunctionName="nod-local-echo", Payload=b'{"a": 1}')
    assert json.load(answer["Payload"]) == {"echo": {"a": 1}}
    assert answer["StatusCode"] == 200
    assert "FunctionError" not in answer
    later = functions.invoke(FunctionName="nod-local-echo", Payload=b"{}", InvocationType="Event")
    assert later["StatusCode"] == 202
    with pytest.raises(ClientError) as raised:
        functions.invoke(FunctionName="nod-local-nobody", Payload=b"{}")
    assert raised.value.response["Error"]["Code"] == "ResourceNotFoundException"
    cloud.lambdas._handlers["nod-local-odd"] = lambda event, context: object()
    odd = functions.invoke(FunctionName="nod-local-odd", Payload=b"{}")
    assert odd["FunctionError"] == "Unhandled"
    assert json.load(odd["Payload"])["errorType"] == "Runtime.MarshalError"


def test_patterns_and_what_a_target_receives(cloud: Cloud) -> None:  # noqa: F811
    name = f"mine-{uuid.uuid4()}"
    pattern = {
        "source": [{"prefix": "my."}],
        "detail": {"state": [{"anything-but": ["bad"]}], "deep": {"er": [{"exists": True}]}},
    }
    transformer = {
        "InputPathsMap": {"er": "$.detail.deep.er", "state": "$.detail.state"},
        "InputTemplate": '{"er": <er>, "text": "it is <state>"}',
    }
    events = Events(cloud, name, pattern, InputTransformer=transformer)
    bus = client(cloud, "events")
    details = [
        {"state": "bad", "deep": {"er": 1}},
        {"state": "good", "deep": {}},
        {"state": 'go"od', "deep": {"er": [2]}},
    ]
    bus.put_events(Entries=[{"Source": "my.app", "DetailType": "x", "Detail": json.dumps(d)} for d in details])
    bus.put_events(Entries=[{"Source": "his.app", "DetailType": "x", "Detail": json.dumps(details[2])}])
    events.wait(bool)
    assert events.take() == [{"er": [2], "text": 'it is go"od'}]


def test_conditional_writes_are_one_step(cloud: Cloud) -> None:  # noqa: F811
    tables = client(cloud, "dynamodb")
    won: list[int] = []

    def write(n: int) -> None:
        try:
            tables.put_item(
                TableName="nod-local-heartbeats",
                Item={"id": {"S": "race"}, "n": {"N": str(n)}},
                ConditionExpression="attribute_not_exists(id)",
            )
            won.append(n)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ConditionalCheckFailedException"

    threads = [threading.Thread(target=write, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("ec2", lambda c: c.describe_vpcs(), "RequestLimitExceeded"),
        ("ssm", lambda c: c.list_commands(), "ThrottlingException"),
        ("dynamodb", lambda c: c.list_tables(), "ThrottlingException"),
        ("stepfunctions", lambda c: c.list_state_machines(), "ThrottlingException"),
        ("sns", lambda c: c.list_topics(), "Throttling"),
    ],
)
def test_throttling_refuses_every_second_call(cloud: Cloud, service: str, call: Any, code: str) -> None:  # noqa: F811
    cloud.faults.on("throttling")
    with pytest.raises(ClientError) as raised:
        call(client(cloud, service))
    assert raised.value.response["Error"]["Code"] == code
    call(client(cloud, service))


def test_the_parameter_of_canonical_leads_to_an_image(cloud: Cloud) -> None:  # noqa: F811
    name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    image = client(cloud, "ssm").get_parameter(Name=name)["Parameter"]["Value"]
    found = client(cloud, "ec2").describe_images(ImageIds=[image])["Images"][0]
    assert (found["RootDeviceName"], found["Architecture"]) == ("/dev/sda1", "x86_64")


def test_slack_answers_as_slack_does(cloud: Cloud) -> None:  # noqa: F811
    def post(path: str, body: bytes) -> tuple[int, str]:
        request = urllib.request.Request(cloud.aws_url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode() + str(error.headers.get("Retry-After") or "")

    hook = cloud.slack.webhook("team").removeprefix(cloud.aws_url)
    assert post(hook, b'{"text": "hi"}') == (200, "ok")
    assert cloud.slack.messages()[-1]["payload"] == {"text": "hi"}
    assert cloud.slack.messages()[-1]["channel"] == "team"
    assert post(hook, b"{}") == (400, "no_text")
    assert post(hook, b"no json") == (400, "invalid_payload")
    assert post("/_local/slack/elsewhere", b"{}")[0] == 404
    cloud.faults.on("notification_fails:slack")
    assert post(hook, b'{"text": "hi"}') == (429, "rate_limited1")
