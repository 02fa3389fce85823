"""The packaged template: what CloudFormation would check, and what no scanner does."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import problems
from deploy import gateway, picture, references
from deploy import template as templates
from deploy.errors import PackageError
from instance.build import documents
from local import gateway as local_gateway
from tests.aws.packaged import CIDRS, STAGE, folder, resources, strings, template, transformed

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS, MACHINES = "AWS::Serverless::Function", "AWS::Serverless::StateMachine"
ALARM = "AWS::CloudWatch::Alarm"


def lint(*paths: Path) -> subprocess.CompletedProcess[str]:
    tool = str(Path(sys.executable).with_name("cfn-lint"))
    env = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1"}
    return subprocess.run([tool, *map(str, paths)], capture_output=True, text=True, check=False, env=env)


# --- what CloudFormation checks ---


def test_neither_the_template_nor_what_sam_makes_of_it_has_a_finding_of_cfn_lint(tmp_path: Path) -> None:
    (tmp_path / "transformed.json").write_text(json.dumps(transformed()))
    run = lint(folder() / "template.json", tmp_path / "transformed.json")
    assert run.returncode == 0, run.stdout


def inlined(**broken: str) -> dict[str, Any]:
    """The transformed template with the definitions inside, where cfn-lint holds them to the language's schema."""
    made = copy.deepcopy(transformed())
    for name, resource in made["Resources"].items():
        if resource["Type"] == "AWS::StepFunctions::StateMachine":
            properties = resource["Properties"]
            source = template()["Resources"][name]["Properties"]["DefinitionUri"]
            text = (folder() / source).read_text(encoding="utf-8")
            for known, meant in broken.items():
                text = text.replace(f'"{known}":', f'"{meant}":')
            del properties["DefinitionS3Location"]
            properties["Definition"] = json.loads(text)
    return made


def test_the_state_machines_are_of_the_languages_schema(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text(json.dumps(inlined()))
    run = lint(tmp_path / "good.json")
    assert run.returncode == 0, run.stdout
    (tmp_path / "bad.json").write_text(json.dumps(inlined(TimeoutSeconds="TimeoutSecond")))
    run = lint(tmp_path / "bad.json")
    assert run.returncode != 0 and "TimeoutSecond" in run.stdout, "cfn-lint has not looked into them"


def test_every_reference_leads_to_something() -> None:
    assert references.unresolved(template()) == {}
    assert references.unresolved({"Parameters": {}, **transformed()}) == {}


@pytest.mark.parametrize(
    "broken",
    [
        {"Ref": "Nothing"},
        {"Fn::GetAtt": ["Nothing", "Arn"]},
        {"Fn::GetAtt": "Nothing.Arn"},
        {"Fn::Sub": "nod-${Nothing}"},
        {"Fn::Sub": "nod-${Nothing.Arn}-${Stage}"},
        {"Fn::Sub": ["${own}-${Nothing}", {"own": "1"}]},
        {"Fn::Sub": ["${own}", {"own": {"Ref": "Nothing"}}]},
        {"Fn::If": ["Nothing", 1, 2]},
    ],
)
def test_a_reference_to_nothing_is_found_wherever_it_stands(broken: dict[str, Any]) -> None:
    changed = template()
    changed["Resources"]["MessagesTopic"]["Properties"]["Deep"] = [{"er": broken}]
    assert references.unresolved(changed) == {"MessagesTopic": ["Nothing"]}
    with pytest.raises(PackageError, match="MessagesTopic refers to Nothing"):
        templates.check(changed)


def test_no_resource_waits_for_itself() -> None:
    """API Gateway and its functions refer to each other by permission and definition: CloudFormation needs an order."""
    made = transformed()["Resources"]
    graph = {
        name: ({*references.names(one)} | set(listed(one.get("DependsOn", [])))) & made.keys()
        for name, one in made.items()
    }
    assert list(TopologicalSorter(graph).static_order())


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_the_template_is_far_within_cloudformations_quotas() -> None:
    made = transformed()
    assert len(made["Resources"]) < 0.6 * templates.MOST_RESOURCES
    assert len(json.dumps(made)) < 0.6 * templates.MOST_BYTES
    assert len(json.dumps(template())) < 0.6 * templates.MOST_BYTES


def test_a_template_beyond_the_quotas_is_refused() -> None:
    changed = template()
    changed["Resources"] |= {f"Topic{n}": {"Type": "AWS::SNS::Topic"} for n in range(500)}
    with pytest.raises(PackageError, match="resources; CloudFormation takes 500"):
        templates.check(changed)
    changed = template()
    changed["Resources"]["MessagesTopic"]["Properties"]["DisplayName"] = "x" * 1_000_000
    with pytest.raises(PackageError, match="bytes; CloudFormation takes"):
        templates.check(changed)


def test_the_template_is_of_its_stage_and_no_other() -> None:
    assert template()["Parameters"]["Stage"]["AllowedValues"] == [STAGE]
    literal = {text for text in strings(template()) if re.search(r"nod-(?!\$\{Stage\}|prod\b)[a-z]", text)}
    allowed = {name for name in literal if "nod-work" in name or "nod-monitor" in name}
    assert not {t for t in literal - allowed if t.startswith("nod-") and len(t) < 60}


# --- documents and definitions ---


def test_every_document_of_the_instance_is_there_as_it_is_built() -> None:
    found = {
        one["Properties"]["Name"]["Fn::Sub"].removeprefix("nod-${Stage}-"): one["Properties"]
        for one in resources("AWS::SSM::Document").values()
    }
    assert {name: one["Content"] for name, one in found.items()} == documents()
    for one in found.values():
        assert one["UpdateMethod"] == "NewVersion" and one["TargetType"] == "/AWS::EC2::Instance"


def test_every_definition_is_json_with_numbers_in_place_and_placeholders_that_have_a_value() -> None:
    machines = resources(MACHINES)
    assert len(machines) == len(list((ROOT / "statemachine").glob("*.asl.yaml")))
    for name, machine in machines.items():
        text = (folder() / machine["Properties"]["DefinitionUri"]).read_text()
        definition = json.loads(text)
        assert definition["StartAt"] in definition["States"]
        assert set(re.findall(r"\$\{(\w+)\}", text)) == machine["Properties"]["DefinitionSubstitutions"].keys(), name
        numbers = re.findall(
            r'"(?:TimeoutSeconds|Seconds|MaxAttempts|IntervalSeconds|NumericLessThan)": ([^,\n]+)', text
        )
        assert numbers and all(re.fullmatch(r"\d+", number) for number in numbers), name


# --- doors ---


def test_the_port_is_open_to_the_blocks_of_the_deployment_and_no_other_port_to_anybody() -> None:
    rules = [one["Properties"] for one in resources("AWS::EC2::SecurityGroupIngress").values()]
    assert {(one.get("CidrIp"), one.get("CidrIpv6")) for one in rules} == {(CIDRS[0], None), (None, CIDRS[1])}
    for one in rules:
        assert (one["FromPort"], one["ToPort"], one["IpProtocol"]) == (8888, 8888, "tcp")
        assert one["GroupId"] == {"Fn::GetAtt": ["NotebookSecurityGroup", "GroupId"]}
    (group,) = resources("AWS::EC2::SecurityGroup").values()
    assert "SecurityGroupIngress" not in group["Properties"]


def test_without_blocks_nobody_gets_in() -> None:
    source = json.loads(json.dumps({"Parameters": {"AllowedCidrs": {}}, "Outputs": {}, "Resources": {}}))
    templates._port(source, ())
    assert source == {"Parameters": {}, "Outputs": {"AllowedCidrs": {"Value": "none"}}, "Resources": {}}


def opened(*cidrs: str) -> dict[str, Any]:
    """The resources of the port for these blocks, by logical id."""
    made: dict[str, Any] = {"Parameters": {"AllowedCidrs": {}}, "Outputs": {}, "Resources": {}}
    templates._port(made, cidrs)
    found: dict[str, Any] = made["Resources"]
    return found


@given(
    st.lists(st.ip_addresses().map(lambda one: f"{one}/{one.max_prefixlen}"), unique=True, max_size=10),
    st.data(),
)
def test_a_block_keeps_its_rule_whatever_else_the_list_holds(blocks: list[str], data: st.DataObject) -> None:
    """CloudFormation makes the new before it removes the old: a rule that moved would be a duplicate, and refused."""
    others = data.draw(st.permutations(blocks).map(lambda order: [*order[::2], "203.0.113.99/32"]))
    before, after = opened(*blocks), opened(*others)
    assert len(before) == len(blocks)
    assert all(before[name] == after[name] for name in before.keys() & after.keys())
    kept = {
        rule["Properties"].get("CidrIp") or rule["Properties"]["CidrIpv6"] for rule in map(before.get, after) if rule
    }
    assert kept == set(blocks) & set(others)


def test_machines_are_started_closed() -> None:
    (made,) = resources("AWS::EC2::LaunchTemplate").values()
    data = made["Properties"]["LaunchTemplateData"]
    assert data["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
    }
    assert data["InstanceInitiatedShutdownBehavior"] == "stop"
    assert "NetworkInterfaces" not in data
    # Only where the deployment names one: an empty name would be refused.
    assert data["KeyName"] == {"Fn::If": ["HasKeyPair", {"Ref": "KeyName"}, {"Ref": "AWS::NoValue"}]}
    assert template()["Conditions"]["HasKeyPair"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "KeyName"}, ""]}]}
    assert "NOD_KEY_NAME" not in template()["Globals"]["Function"]["Environment"]["Variables"]
    (disk,) = data["BlockDeviceMappings"]
    assert disk["Ebs"] == {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}


def test_messages_and_letters_are_encrypted() -> None:
    assert resources("AWS::SNS::Topic")["MessagesTopic"]["Properties"]["KmsMasterKeyId"] == "alias/aws/sns"
    queues = resources("AWS::SQS::Queue")
    assert queues and all(one["Properties"]["SqsManagedSseEnabled"] is True for one in queues.values())


def test_no_key_is_made_since_one_bills_while_nobody_uses_it() -> None:
    kinds = {one["Type"] for one in transformed()["Resources"].values()}
    assert not {kind for kind in kinds if kind.startswith(("AWS::KMS", "AWS::EC2::NatGateway", "AWS::EC2::EIP"))}


def test_what_nothing_could_make_again_outlives_the_stack() -> None:
    tables = resources("AWS::DynamoDB::Table")
    # Users are kept until somebody removes them; all else is forgotten some time after it is over.
    assert {name for name, table in tables.items() if "TimeToLiveSpecification" not in table["Properties"]} == {
        "UsersTable"
    }
    for name, table in tables.items():
        kept = name in ("NotebooksTable", "UsersTable")
        assert table["DeletionPolicy"] == ("RetainExceptOnCreate" if kept else "Delete"), name
        assert table["UpdateReplacePolicy"] == ("Retain" if kept else "Delete"), name
        assert table["Properties"]["BillingMode"] == "PAY_PER_REQUEST"
        # Of the others nobody would miss a row, but whoever restores wants all of them as of the same time.
        assert table["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}, name
        assert table["Properties"].get("DeletionProtectionEnabled", False) is kept, name


# --- the API ---


def test_everything_that_api_gateway_answers_itself_is_a_problem_detail() -> None:
    client = boto3.client("apigateway", region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t")
    kinds = set(client.meta.service_model.shape_for("GatewayResponseType").enum)
    body = resources("AWS::Serverless::Api")["RestAPI"]["Properties"]["DefinitionBody"]
    answers = body["x-amazon-apigateway-gateway-responses"]
    assert answers.keys() == kinds
    for kind, answer in answers.items():
        assert answer["responseParameters"]["gatewayresponse.header.Content-Type"] == f"'{problems.CONTENT_TYPE}'"
        (text,) = answer["responseTemplates"].values()
        # A dollar sign begins a variable of API Gateway.
        assert "$" not in text
        problem = json.loads(text)
        assert problem.keys() == problems.of_status(400, "").keys()
        assert problem["status"] == int(answer["statusCode"]), kind
        assert problem["type"] == f"urn:nod:problem:{problem['code']}" and problem["detail"].endswith(".")


def test_a_path_that_is_not_there_is_answered_as_on_the_local_cloud() -> None:
    error = local_gateway.GatewayError(local_gateway.HTTPStatus.FORBIDDEN, local_gateway.MISSING, "no_route")
    status, code, detail = gateway.RESPONSES["MISSING_AUTHENTICATION_TOKEN"]
    problem = json.loads(error.body())
    assert (status, code, detail) == (problem["status"], problem["code"], problem["detail"])


def test_the_api_has_one_stage_which_is_throttled_logged_and_traced() -> None:
    """SAM makes a second one, called Stage, unless it is told the version of the definition."""
    made = transformed()["Resources"].values()
    (stage,) = [one["Properties"] for one in made if one["Type"] == "AWS::ApiGateway::Stage"]
    assert not [
        one for one in made if one["Type"] == "AWS::ApiGateway::Deployment" and "StageName" in one["Properties"]
    ]
    assert stage["TracingEnabled"] is True
    (setting,) = stage["MethodSettings"]
    assert setting["ResourcePath"] == "/*" and setting["HttpMethod"] == "*"
    assert 0 < setting["ThrottlingRateLimit"] <= setting["ThrottlingBurstLimit"] <= 1000
    # Execution logs would hold bodies with passwords, in a group that stays.
    assert setting["LoggingLevel"] == "OFF" and setting["DataTraceEnabled"] is False
    assert stage["AccessLogSetting"]["DestinationArn"] == {"Fn::GetAtt": ["RestAPILogs", "Arn"]}


def test_the_access_log_holds_no_key_of_a_link_and_no_token() -> None:
    fields = set(gateway.LOG_FORMAT.values())
    assert not [one for one in fields if re.search(r"querystring|header|\.path$|body|authorizer", one, re.IGNORECASE)]
    assert "$context.resourcePath" in fields and "$context.requestId" in fields


def test_two_deployments_in_an_account_share_no_metric_of_their_api() -> None:
    (api,) = [one for one in transformed()["Resources"].values() if one["Type"] == "AWS::ApiGateway::RestApi"]
    assert api["Properties"]["Name"] == api["Properties"]["Body"]["info"]["title"] == f"nod-{STAGE}"
    assert api["Properties"]["EndpointConfiguration"]["Types"] == ["REGIONAL"]


# --- logs, traces ---


def test_every_function_logs_to_a_group_of_its_own_that_forgets_and_may_make_none() -> None:
    groups = resources("AWS::Logs::LogGroup")
    for name, function in resources(FUNCTIONS).items():
        group = function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
        named = function["Properties"]["FunctionName"]["Fn::Sub"]
        assert groups[group]["Properties"]["LogGroupName"] == {"Fn::Sub": f"/aws/lambda/{named}"}
        role = template()["Resources"][function["Properties"]["Role"]["Fn::GetAtt"][0]]["Properties"]
        logs = [
            statement
            for policy in role["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            if any(action.startswith("logs:") for action in statement["Action"])
        ]
        assert logs == [
            {
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": {"Fn::GetAtt": [group, "Arn"]},
            }
        ], name


def test_every_group_forgets_and_goes_with_the_stack() -> None:
    for name, group in resources("AWS::Logs::LogGroup").items():
        assert group["Properties"]["RetentionInDays"] == 30, name
        assert group["DeletionPolicy"] == "Delete", name


def test_every_function_is_traced() -> None:
    for name, function in resources(FUNCTIONS).items():
        assert function["Properties"]["Tracing"] == "Active", name
        role = template()["Resources"][function["Properties"]["Role"]["Fn::GetAtt"][0]]["Properties"]
        (policy,) = role["Policies"]
        assert any("xray:PutTraceSegments" in one["Action"] for one in policy["PolicyDocument"]["Statement"]), name


def test_every_workflow_is_traced_and_logs_its_errors_without_their_data() -> None:
    for name, machine in resources(MACHINES).items():
        properties = machine["Properties"]
        assert properties["Tracing"] == {"Enabled": True}, name
        # The input holds the hash of a password.
        assert properties["Logging"]["IncludeExecutionData"] is False
        assert properties["Logging"]["Level"] == "ERROR"
        (destination,) = properties["Logging"]["Destinations"]
        group = destination["CloudWatchLogsLogGroup"]["LogGroupArn"]["Fn::GetAtt"][0]
        named = template()["Resources"][group]["Properties"]["LogGroupName"]["Fn::Sub"]
        assert named == f"/aws/vendedlogs/states/{properties['Name']['Fn::Sub']}"


# --- alarms, dashboard ---


def test_alarms_reach_the_operators_and_stay_within_what_costs_nothing() -> None:
    alarms = {name: one["Properties"] for name, one in resources(ALARM).items()}
    # Ten metrics under alarm are free, an eleventh bills every month; an alarm without Metrics has one.
    assert len(alarms) <= 10 and not [one for one in alarms.values() if "Metrics" in one]
    for name, alarm in alarms.items():
        assert alarm["AlarmActions"] == [{"Ref": "OperatorsTopic"}], name
        assert alarm["TreatMissingData"] in ("breaching", "notBreaching"), name
        assert alarm["AlarmDescription"].endswith("."), name


@pytest.mark.parametrize(
    ("alarm", "metric", "who"),
    [
        ("LaunchesFailAlarm", "AWS/Events Invocations", "UndoRule"),
        ("UndoNotStartedAlarm", "AWS/Events FailedInvocations", "UndoRule"),
        ("SweepSilentAlarm", "AWS/Lambda Invocations", "Sweep"),
        ("SweepFailsAlarm", "AWS/Lambda Errors", "Sweep"),
        ("UndeliveredMessagesAlarm", "AWS/SQS ApproximateNumberOfMessagesVisible", "UndeliveredMessages"),
        ("FailedEventsAlarm", "AWS/SQS ApproximateNumberOfMessagesVisible", "FailedEvents"),
        ("ApiThrottledAlarm", "AWS/Lambda Throttles", "APIHandler"),
    ],
)
def test_each_alarm_is_on_the_metric_of_what_it_watches(alarm: str, metric: str, who: str) -> None:
    properties = resources(ALARM)[alarm]["Properties"]
    assert f"{properties['Namespace']} {properties['MetricName']}" == metric
    (dimension,) = properties["Dimensions"]
    assert list(references.names(dimension["Value"])) == [who]


def test_a_sweep_that_does_not_run_is_an_alarm_itself() -> None:
    alarm = resources(ALARM)["SweepSilentAlarm"]["Properties"]
    assert (alarm["ComparisonOperator"], alarm["Threshold"], alarm["TreatMissingData"]) == (
        "LessThanThreshold",
        1,
        "breaching",
    )
    (event,) = resources(FUNCTIONS)["Sweep"]["Properties"]["Events"].values()
    every = re.fullmatch(r"rate\((\d+) minutes\)", event["Properties"]["Schedule"])
    # One that starts late is no alarm; two that are missing are.
    assert every and 2 * int(every[1]) * 60 < alarm["Period"] == 900


def test_an_undo_that_fails_or_is_aborted_or_times_out_is_an_alarm() -> None:
    metric = resources("AWS::Logs::MetricFilter")["FailedUndos"]["Properties"]
    machine = resources(MACHINES)["UndoStateMachine"]["Properties"]
    # ERROR is the level at which Step Functions writes each of these ends.
    assert machine["Logging"]["Level"] == "ERROR"
    (destination,) = machine["Logging"]["Destinations"]
    assert destination["CloudWatchLogsLogGroup"]["LogGroupArn"] == {
        "Fn::GetAtt": [metric["LogGroupName"]["Ref"], "Arn"]
    }
    ends = re.findall(r'\(\$\.type = "(\w+)"\)(?: \|\| | })', metric["FilterPattern"])
    assert set(ends) == {"ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut"}
    client = boto3.client("stepfunctions", region_name="us-east-1", aws_access_key_id="t", aws_secret_access_key="t")
    assert set(ends) <= set(client.meta.service_model.shape_for("HistoryEventType").enum)
    (made,) = metric["MetricTransformations"]
    alarm = resources(ALARM)["UndoFailsAlarm"]["Properties"]
    assert (made["MetricNamespace"], made["MetricName"]) == (alarm["Namespace"], alarm["MetricName"])
    assert (made["MetricValue"], alarm["Statistic"], alarm["Threshold"]) == ("1", "Sum", 1)
    # A value where nothing failed would bill each hour.
    assert "DefaultValue" not in made and alarm["TreatMissingData"] == "notBreaching"


def test_overdue_notebooks_are_counted_from_the_line_of_the_hourly_comparison() -> None:
    metric = resources("AWS::Logs::MetricFilter")["OverdueNotebooks"]
    assert metric["Properties"]["LogGroupName"] == {"Ref": "ReconcileLogs"}
    (made,) = metric["Properties"]["MetricTransformations"]
    # Of every such line: none for two hours is an alarm too.
    assert made["MetricValue"] == "$.overdue"
    assert metric["Properties"]["FilterPattern"] == '{ $.message = "running" }'
    alarm = resources(ALARM)["OverdueNotebooksAlarm"]["Properties"]
    (event,) = resources(FUNCTIONS)["Reconcile"]["Properties"]["Events"].values()
    assert (event["Properties"]["Schedule"], alarm["Period"]) == ("rate(1 hour)", 7200)
    assert (alarm["Threshold"], alarm["TreatMissingData"]) == (1, "breaching")
    assert (made["MetricNamespace"], made["MetricName"]) == (alarm["Namespace"], alarm["MetricName"])


def test_only_alarms_of_this_deployment_may_publish_to_the_operators() -> None:
    (policy,) = resources("AWS::SNS::TopicPolicy").values()
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert statement["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    alarms = resources(ALARM)
    # By name: a prefix would take in those of a stage whose name begins with this one's.
    assert statement["Condition"].keys() == {"StringEquals", "ArnEquals"}
    assert statement["Condition"]["ArnEquals"] == {
        "aws:SourceArn": [{"Fn::GetAtt": [name, "Arn"]} for name in sorted(alarms)]
    }
    for alarm in alarms.values():
        assert alarm["Properties"]["AlarmActions"] == [{"Ref": "OperatorsTopic"}]
        assert alarm["Properties"]["AlarmName"]["Fn::Sub"].startswith("nod-${Stage}-")


def test_an_alarm_that_is_added_may_publish_too() -> None:
    changed = template()
    changed["Resources"]["NewAlarm"] = {"Type": ALARM, "Properties": {}}
    templates._alarms(changed)
    (statement,) = changed["Resources"]["OperatorsTopicPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert {"Fn::GetAtt": ["NewAlarm", "Arn"]} in statement["Condition"]["ArnEquals"]["aws:SourceArn"]


def test_the_events_of_commands_are_those_of_this_stage_and_no_sibling() -> None:
    """Stage `prod` beside stage `prod-eu`: every document of the pattern is one of the template, whole."""
    (event,) = resources(FUNCTIONS)["OnCommandEvent"]["Properties"]["Events"].values()
    names = event["Properties"]["Pattern"]["detail"]["document-name"]
    made = {one["Properties"]["Name"]["Fn::Sub"] for one in resources("AWS::SSM::Document").values()}
    sent = {
        text.replace("${DocumentPrefix}", "nod-${Stage}-")
        for path in (folder() / "statemachine").glob("*.json")
        for text in strings(json.loads(path.read_text()))
        if text.startswith("${DocumentPrefix}")
    }
    assert {name.replace(f"nod-{STAGE}-", "nod-${Stage}-", 1) for name in names} == sent <= made


def widgets(kind: str) -> list[dict[str, Any]]:
    """The properties of the dashboard's widgets of one kind."""
    (dashboard,) = resources("AWS::CloudWatch::Dashboard").values()
    found = json.loads(dashboard["Properties"]["DashboardBody"]["Fn::Sub"])["widgets"]
    return [one["properties"] for one in found if one["type"] == kind]


def test_the_dashboard_stays_within_what_costs_nothing() -> None:
    """Three dashboards of up to 50 metrics each are free; one with more bills each month."""
    metrics = [metric for widget in widgets("metric") for metric in widget["metrics"]]
    # A search or an expression stands for more metrics than one can count here.
    assert all(isinstance(part, str) for metric in metrics for part in metric)
    assert 20 < len(metrics) <= 40
    (alarms,) = widgets("alarm")
    # Of one metric each, if those that alarms stand for should count too.
    assert len(metrics) + len(alarms["alarms"]) <= 50


def test_every_workflow_that_failed_is_on_the_dashboard_and_launch_and_undo_however_they_ended() -> None:
    (failed,) = [widget for widget in widgets("metric") if widget["title"] == "Workflows that failed"]
    by_metric: dict[str, set[str]] = {}
    for namespace, metric, dimension, name in failed["metrics"]:
        assert (namespace, dimension) == ("AWS/States", "StateMachineArn")
        by_metric.setdefault(metric, set()).update(references.names({"Fn::Sub": name}))
    both = {"LaunchStateMachine", "UndoStateMachine"}
    assert by_metric == {
        "ExecutionsFailed": set(resources(MACHINES)),
        "ExecutionsAborted": both,
        "ExecutionsTimedOut": both,
    }


def test_throttles_of_tables_are_by_metrics_that_dynamodb_counts_by_table() -> None:
    """Its ThrottledRequests has the operation as a second dimension: by table alone it shows nothing."""
    shown = {tuple(m[1:3]) for widget in widgets("metric") for m in widget["metrics"] if m[0] == "AWS/DynamoDB"}
    assert shown == {("ReadThrottleEvents", "TableName"), ("WriteThrottleEvents", "TableName")}


def test_lines_are_drawn_only_of_what_is_grouped_by_time_alone() -> None:
    """CloudWatch Logs: a time series is of queries that group by bin() and nothing else; of others there are bars."""
    views: dict[str, set[str]] = {}
    for widget in widgets("log"):
        keys = re.findall(r"stats .* by (.+?)(?: \||$)", widget["query"])
        if keys and "bin(" in keys[0]:
            views.setdefault(re.sub(r"bin\(\w+\)", "bin", keys[0]), set()).add(widget["view"])
    assert views == {"bin": {"timeSeries"}, "code, bin": {"bar"}}


def test_the_dashboard_shows_every_function_workflow_queue_table_and_alarm() -> None:
    (dashboard,) = resources("AWS::CloudWatch::Dashboard").values()
    text = dashboard["Properties"]["DashboardBody"]["Fn::Sub"]
    json.loads(text)
    shown = set(references.names({"Fn::Sub": text}))
    for kind in (FUNCTIONS, MACHINES, "AWS::SQS::Queue", "AWS::DynamoDB::Table", ALARM):
        assert resources(kind).keys() <= shown, kind


def test_the_errors_on_the_dashboard_are_also_those_that_lambda_writes_itself() -> None:
    """A function that runs out of time, or does not import, has no line of ours."""
    (query,) = [one["query"] for one in widgets("log") if "Errors in" in one["title"]]
    (pattern,) = re.findall(r"@message like /(.+?)/ ", query)
    for text in (
        "2026-11-24T10:00:00.000Z 7f6f Task timed out after 29.00 seconds",
        "RequestId: 7f6f Error: Runtime exited with error: signal: killed",
        "[ERROR] Runtime.ImportModuleError: Unable to import module 'app': No module named 'x'",
        "[ERROR] RuntimeError: AWS does not answer",
    ):
        assert re.search(pattern, text), text
    assert not re.search(pattern, '{"level":"INFO","message":"swept"}')


def test_every_asynchronous_function_keeps_the_events_that_it_failed_at() -> None:
    """Those with a schedule, a rule or a topic: nobody else would hear of it."""
    asynchronous = {name for name, one in resources(FUNCTIONS).items() if one["Properties"].get("Events")}
    asynchronous -= {"APIHandler"}
    kept = {one["Properties"]["FunctionName"]["Ref"] for one in resources("AWS::Lambda::EventInvokeConfig").values()}
    assert kept == asynchronous and len(kept) >= 7


def test_no_widget_covers_another() -> None:
    (dashboard,) = resources("AWS::CloudWatch::Dashboard").values()
    seen: set[tuple[int, int]] = set()
    for widget in json.loads(dashboard["Properties"]["DashboardBody"]["Fn::Sub"])["widgets"]:
        cells = {
            (x, y)
            for x in range(widget["x"], widget["x"] + widget["width"])
            for y in range(widget["y"], widget["y"] + widget["height"])
        }
        assert not cells & seen and max(x for x, _ in cells) < 24
        seen |= cells


# --- the picture ---


def test_the_picture_in_the_docs_is_of_this_template() -> None:
    drawn = picture.draw(template())
    assert (ROOT / "docs/architecture.svg").read_text(encoding="utf-8") == drawn, "stale: run make picture"


def test_the_picture_has_every_function_workflow_table_and_document() -> None:
    groups, arrows = picture.model(template())
    boxes = {box.name for group in groups for box in group.boxes}
    for kind in (FUNCTIONS, MACHINES, "AWS::DynamoDB::Table", "AWS::SNS::Topic", "AWS::SQS::Queue"):
        assert resources(kind).keys() <= boxes, kind
    lines = [line for group in groups for box in group.boxes for line in box.lines]
    assert {f"document {name}" for name in documents()} <= set(lines)
    drawn = {(arrow.source, arrow.target) for arrow in arrows}
    assert {
        ("RestAPI", "APIHandler"),
        ("APIHandler", "LaunchStateMachine"),
        ("UndoRule", "UndoStateMachine"),
        ("LaunchStateMachine", "NotebookLaunchTemplate"),
        ("LaunchStateMachine", "TellOwner"),
        ("TellOwner", "MessagesTopic"),
    } <= drawn
    assert ("ExplainFailure", "NotebookLaunchTemplate") not in drawn
    assert {end for pair in drawn for end in pair} <= boxes
