"""The code that `make package` makes: small, the same every time, and running where only the runtime's packages are."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import bytecode
from deploy.errors import PackageError
from deploy.package import pack, unpack
from tests.aws.packaged import STAGE, folder, lay_out, resources, template

ROOT = Path(__file__).resolve().parents[2]
CONFIG = json.loads((ROOT / ".chalice/config.json").read_text())
POLICIES = sorted(settings["iam_policy_file"] for settings in CONFIG["lambda_functions"].values())
# Actions that the service authorization reference lists without a resource type.
WITHOUT_RESOURCE = {
    "ssm:ListCommands",
    "ssm:GetCommandInvocation",
    "sns:GetSubscriptionAttributes",
    "ec2:DescribeInstances",
    "ec2:DescribeVolumes",
    "ec2:DescribeAddresses",
    "ec2:DescribeSecurityGroups",
}
FUNCTIONS = "AWS::Serverless::Function"


def test_every_function_has_its_own_policy_and_the_deployments_settings() -> None:
    functions = resources(FUNCTIONS)
    assert len(functions) == len(CONFIG["lambda_functions"]) == len(POLICIES) == len(set(POLICIES))
    assert "NOD_NOTEBOOKS_TABLE" in template()["Globals"]["Function"]["Environment"]["Variables"]


def test_slacks_subscription_keeps_what_sns_cannot_deliver() -> None:
    (event,) = resources(FUNCTIONS)["DeliverToSlack"]["Properties"]["Events"].values()
    assert event["Type"] == "SNS"
    assert event["Properties"]["RedrivePolicy"] == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["UndeliveredMessages", "Arn"]}
    }


def policies_of(function: str) -> list[dict[str, Any]]:
    role = resources(FUNCTIONS)[function]["Properties"]["Role"]["Fn::GetAtt"][0]
    return [
        one for p in template()["Resources"][role]["Properties"]["Policies"] for one in p["PolicyDocument"]["Statement"]
    ]


def test_a_function_may_write_to_the_queue_of_its_failures() -> None:
    """Lambda refuses the configuration, and with it the deployment, of a function that may not."""
    queue = resources("AWS::SQS::Queue")["FailedEvents"]["Properties"]["QueueName"]["Fn::Sub"]
    configs = [one["Properties"] for one in resources("AWS::Lambda::EventInvokeConfig").values()]
    assert configs
    for config in configs:
        assert config["DestinationConfig"]["OnFailure"]["Destination"] == {"Fn::GetAtt": ["FailedEvents", "Arn"]}
        (send,) = [s for s in policies_of(config["FunctionName"]["Ref"]) if s["Action"] == ["sqs:SendMessage"]]
        assert [one["Fn::Sub"].split("${AWS::AccountId}:", 1)[1] for one in send["Resource"]] == [queue]


def test_no_function_runs_on_when_its_workflow_has_given_it_up() -> None:
    """The next attempt would run beside it, and an owner be told twice."""
    limits = {name: one["Properties"]["Timeout"] for name, one in resources(FUNCTIONS).items()}
    seen = set()
    for path in (folder() / "statemachine").glob("*.json"):
        for task in tasks(json.loads(path.read_text())):
            if (name := task["Resource"].strip("${}")) in limits:
                assert limits[name] <= task["TimeoutSeconds"], f"{path.name}: {name}"
                seen.add(name)
    assert seen == {"LookForCommand", "ExplainFailure", "TellOwner"}


def tasks(value: Any) -> Iterator[dict[str, Any]]:
    """Every task of a definition, in branches too."""
    if isinstance(value, dict):
        if value.get("Type") == "Task":
            yield value
        for item in value.values():
            yield from tasks(item)
    elif isinstance(value, list):
        for item in value:
            yield from tasks(item)


@pytest.mark.parametrize("name", POLICIES)
def test_policy_names_its_actions_and_its_resources(name: str) -> None:
    for statement in json.loads((ROOT / ".chalice" / name).read_text())["Statement"]:
        assert statement["Effect"] == "Allow"
        assert not any("*" in action for action in statement["Action"])
        if "*" in statement["Resource"]:
            assert set(statement["Action"]) <= WITHOUT_RESOURCE


# --- the zip ---


def names() -> list[str]:
    return zipfile.ZipFile(folder() / "deployment.zip").namelist()


def test_the_zip_holds_the_app_and_not_what_the_runtime_has_or_nobody_reads() -> None:
    top = {name.split("/")[0] for name in names()}
    assert {"app.py", "chalicelib", "chalice", "slack_sdk", "argon2", "aws_lambda_powertools"} <= top
    assert not top & {"boto3", "botocore", "moto", "tests", "local", "instance", "nod", "deploy", "admin", "pycparser"}
    assert not [name for name in names() if "/tests/" in name or "swagger_ui/" in name]
    assert {f"chalicelib/{path.name}" for path in (ROOT / "chalicelib").glob("*.*")} <= set(names())


def test_the_zip_is_small() -> None:
    """Lambda loads it at a cold start: 2 MB here, where boto3 alone is 17 MB."""
    assert (folder() / "deployment.zip").stat().st_size < 2_500_000


def test_the_same_files_make_the_same_zip(tmp_path: Path) -> None:
    """Else every `make deploy` would be an update."""
    hashes = set()
    for order, date in ((1, (2026, 1, 1, 0, 0, 0)), (-1, (2020, 2, 2, 2, 2, 2))):
        with zipfile.ZipFile(tmp_path / "made.zip", "w") as made:
            for name in ["a.py", "b/c.py", "b/__pycache__/c.cpython-311.pyc", "b/tests/test_c.py"][::order]:
                made.writestr(zipfile.ZipInfo(name, date), name)
        unpack(tmp_path / "made.zip", tmp_path / f"task{order}")
        pack(tmp_path / f"task{order}", tmp_path / "kept.zip")
        hashes.add(hashlib.sha256((tmp_path / "kept.zip").read_bytes()).hexdigest())
        assert zipfile.ZipFile(tmp_path / "kept.zip").namelist() == ["a.py", "b/c.py"]
    assert len(hashes) == 1


def test_a_mac_makes_the_same_package(tmp_path: Path) -> None:
    """pip and we see another machine, whose own wheels Lambda could not load. The code is Lambda's all the same."""
    script = (
        "import pathlib, sys\nfrom deploy.package import package\npackage(sys.argv[1], (), pathlib.Path(sys.argv[2]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, STAGE, str(tmp_path / "made")],
        cwd=ROOT,
        env={**os.environ, "_PYTHON_HOST_PLATFORM": "macosx-14.0-arm64"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with (
        zipfile.ZipFile(tmp_path / "made/deployment.zip") as made,
        zipfile.ZipFile(folder() / "deployment.zip") as ours,
    ):
        assert {one.filename: one.CRC for one in made.infolist()} == {one.filename: one.CRC for one in ours.infolist()}


def test_the_same_sources_compile_to_the_same_bytes_and_come_with_them(tmp_path: Path) -> None:
    compiled = []
    for number in (1, 2):
        task = tmp_path / str(number)
        unpack(folder() / "deployment.zip", task)
        assert not list(task.rglob("*.pyc"))
        bytecode.add(task)
        compiled.append({str(path.relative_to(task)): path.read_bytes() for path in task.rglob("*.pyc")})
    shipped = {name for name in names() if name.endswith(".pyc")}
    assert compiled[0] == compiled[1] and compiled[0].keys() == shipped
    # What no function imports is not compiled: it would only make the zip larger.
    assert 50 < len(shipped) < len([name for name in names() if name.endswith(".py")]) / 2


def test_an_app_that_does_not_import_is_not_packaged(tmp_path: Path) -> None:
    (tmp_path / "chalicelib").mkdir()
    (tmp_path / "app.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(PackageError, match="nothing_of_this_name"):
        bytecode.add(tmp_path)


# --- in the runtime ---


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Lambda lays it out: /var/task with the zip, and the runtime's packages beside it."""
    root = tmp_path_factory.mktemp("lambda")
    lay_out(root)
    return root


def invoke(runtime: Path, script: str, *arguments: str) -> Any:
    """Run a script in a bare Python that has the zip and the runtime's packages; what it prints last, as JSON."""
    function = resources(FUNCTIONS)["APIHandler"]["Properties"]
    assert function["Runtime"] == "python{}.{}".format(*sys.version_info[:2])
    variables = {name: f"test-{name.lower()}" for name in template()["Globals"]["Function"]["Environment"]["Variables"]}
    variables |= {"NOD_STAGE": "prod", "NOD_INSTALLER_URL": "", "NOD_INSTALLER_SHA256": "", "NOD_SLACK_ORIGIN": ""}
    head = f"import json, sys\nsys.path[:0] = [{str(runtime / 'task')!r}, {str(runtime / 'runtime')!r}]\n"
    run = subprocess.run(
        # -I: no user's packages and no variables of this Python; -S: no site-packages.
        [sys.executable, "-I", "-S", "-c", head + textwrap.dedent(script), *arguments],
        # /var/task is read-only; nothing leads to AWS.
        env={
            **variables,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "t",
            "AWS_SECRET_ACCESS_KEY": "t",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "AWS_MAX_ATTEMPTS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


# Sources of the zip that Python compiles from then on, in `compiled`.
NOTE_COMPILED = """
from importlib import _bootstrap_external as machinery
compiled, compile_ = [], machinery.SourceLoader.source_to_code
def note(self, data, path, **options):
    if path.startswith(sys.path[0]):
        compiled.append(path)
    return compile_(self, data, path, **options)
machinery.SourceLoader.source_to_code = note
"""


def test_every_handler_is_found_and_every_module_imports(runtime: Path) -> None:
    """Modules that a function imports later on too: a package that is missing would show at the first such event."""
    handlers = sorted(one["Properties"]["Handler"] for one in resources(FUNCTIONS).values())
    script = """
        import importlib, pathlib
        task = pathlib.Path(sys.path[0])
        for path in sorted((task / "chalicelib").rglob("*.py")):
            importlib.import_module(".".join(path.relative_to(task).with_suffix("").parts).removesuffix(".__init__"))
        found = []
        for handler in sys.argv[1:]:
            module, name = handler.rsplit(".", 1)
            found.append(callable(getattr(importlib.import_module(module), name)))
        outside = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)
                   and "site-packages" in m.__file__]
        print(json.dumps([found, outside, compiled]))
    """
    found, outside, compiled = invoke(runtime, NOTE_COMPILED + textwrap.dedent(script), *handlers)
    assert found == [True] * len(handlers)
    # Nothing came from this machine's own packages, and nothing is compiled at a cold start.
    assert outside == [] == compiled


# An event of API Gateway (REST, Lambda proxy integration), as it is recorded.
def event(method: str, resource: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "resource": resource,
        "path": f"/api{resource}",
        "httpMethod": method,
        "headers": headers or {},
        "multiValueHeaders": {name: [value] for name, value in (headers or {}).items()},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": resource,
            "httpMethod": method,
            "path": f"/api{resource}",
            "stage": "api",
            "requestId": "1",
            "apiId": "abc",
            "domainName": "abc.execute-api.us-east-1.amazonaws.com",
            "identity": {"sourceIp": "198.51.100.7"},
        },
        "body": None,
        "isBase64Encoded": False,
    }


INVOKE = """
    import importlib
    class Context:
        function_name, memory_limit_in_mb, aws_request_id = "nod-prod-api", 128, "1"
        invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:nod-prod-api"
        def get_remaining_time_in_millis(self):
            return 10000
    handler = getattr(importlib.import_module("app"), sys.argv[1])
    print(json.dumps(handler(json.loads(sys.argv[2]), Context())))
"""


def test_health_is_answered(runtime: Path) -> None:
    answer = invoke(runtime, INVOKE, "app", json.dumps(event("GET", "/health")))
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"])["stage"] == "prod"


def test_the_api_describes_itself(runtime: Path) -> None:
    answer = invoke(runtime, INVOKE, "app", json.dumps(event("GET", "/openapi.json")))
    assert answer["statusCode"] == 200
    assert "/notebooks" in json.loads(answer["body"])["paths"]


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"Authorization": f"Bearer nod.ada.{'x' * 43}"}, 503)])
def test_who_may_not_is_refused_and_an_aws_that_does_not_answer_is_said(
    runtime: Path, headers: dict[str, str], status: int
) -> None:
    """The second loads boto3 and asks DynamoDB, whom nobody answers for here."""
    answer = invoke(runtime, INVOKE, "app", json.dumps(event("GET", "/notebooks", headers)))
    assert answer["statusCode"] == status
    assert json.loads(answer["body"])["status"] == status


def test_a_failure_is_explained(runtime: Path) -> None:
    failed = {"id": "nb-1", "execution": {"status": "TIMED_OUT"}}
    answer = invoke(runtime, INVOKE, "explain_failure", json.dumps(failed))
    assert answer["code"] and answer["message"]


def test_passwords_are_hashed_by_what_the_zip_holds(runtime: Path) -> None:
    """argon2 has a compiled part, which has to fit the runtime; cffi, left out, is only needed to compile it. Python's
    bytecode of the rest is there too, though argon2 is imported by a function and not by a module."""
    script = """
        from chalicelib import passwords
        hashed = passwords.hashed("correct horse")
        import argon2
        print(json.dumps([hashed, argon2.__file__, compiled]))
    """
    hashed, where, compiled = invoke(runtime, NOTE_COMPILED + textwrap.dedent(script))
    assert hashed.startswith("argon2:$argon2id$") and str(runtime / "task") in where
    assert compiled == []
