"""The CloudWatch dashboard: what AWS counts by itself, and queries over the functions' own log lines.

Queries instead of metrics of our own: a metric bills every hour that it has a value, a query when somebody looks. Of
AWS's own metrics few: a dashboard of more than 50 bills $3 a month, and a test counts them.
The lines (`message` and its fields): of tell_owner `owner told` with `kind`, for `ready` `seconds` by step and from
request to link (`launch`), for `stopped` and `failed` `code`; of reconcile, once an hour, `running` with `notebooks`,
`usd_per_hour`, `overdue`; of the sweep `swept` with its `counts`. Failed launches are counted where they are told, once
each: an undo may explain one several times, and one that was deleted meanwhile too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

WIDTH = 24
STEPS = (
    "create_instance",
    "start_instance",
    "prepare_instance",
    "install_anaconda",
    "configure_tls",
    "start_monitor",
    "configure_notebook",
)
# The line comes at even times, so the mean of a day times its hours is what ran; of today, what it comes to if it goes
# on so.
_RUNNING = (
    "filter message = 'running' | stats avg(notebooks) * 24 as running_hours, avg(usd_per_hour) * 24 as dollars "
    "by bin(1d)"
)

# CloudWatch draws lines only of what is grouped by time alone.
_BY_TWO = "bar"

# Cut short, these may leave a machine that nobody knows of. What others leave, the sweep mends, and says so.
_OF_LAUNCHES = ("LaunchStateMachine", "UndoStateMachine")
_CUT_SHORT = ("ExecutionsAborted", "ExecutionsTimedOut")

# Not ThrottledRequests: DynamoDB counts those by table and operation, so by table alone there is nothing.
_THROTTLED = ("ReadThrottleEvents", "WriteThrottleEvents")

# What Lambda itself writes of a function that ran out of time or memory or did not even import, as plain text.
_CRASHED = r"@message like /Task timed out|Runtime exited|Runtime.ImportModuleError|^\[ERROR\]/"


def add(template: dict[str, Any]) -> None:
    """Add the dashboard, with every function and state machine that the template has."""
    template["Resources"]["Dashboard"] = {
        "Type": "AWS::CloudWatch::Dashboard",
        "Properties": {
            "DashboardName": {"Fn::Sub": "nod-${Stage}"},
            # A week: a day's figures are one point each, and CloudWatch's own choice is three hours.
            "DashboardBody": {"Fn::Sub": json.dumps({"start": "-P7D", "widgets": _placed(_widgets(template))})},
        },
    }


def _widgets(template: Mapping[str, Any]) -> list[dict[str, Any]]:
    kinds = {name: resource["Type"] for name, resource in template["Resources"].items()}
    functions = sorted(name for name, kind in kinds.items() if kind == "AWS::Serverless::Function")
    machines = sorted(name for name, kind in kinds.items() if kind == "AWS::Serverless::StateMachine")
    tables = sorted(name for name, kind in kinds.items() if kind == "AWS::DynamoDB::Table")
    queues = sorted(name for name, kind in kinds.items() if kind == "AWS::SQS::Queue")
    alarms = sorted(name for name, kind in kinds.items() if kind == "AWS::CloudWatch::Alarm")
    means = ", ".join(f"avg(seconds.{step}) as {step}" for step in STEPS)
    return [
        {
            "type": "alarm",
            "properties": {"title": "Alarms", "alarms": [f"${{{name}.Arn}}" for name in alarms]},
        },
        _query(
            "Launches a day: ready",
            "TellOwner",
            "filter message = 'owner told' and kind = 'ready' | stats count(*) as ready by bin(1d)",
        ),
        _query(
            "Launches a day: failed, by reason",
            "TellOwner",
            "filter message = 'owner told' and kind = 'failed' | stats count(*) as failed by code, bin(1d)",
            view=_BY_TWO,
        ),
        _query(
            "Seconds of a launch by step, mean of a day",
            "TellOwner",
            f"filter kind = 'ready' | stats {means} by bin(1d)",
        ),
        _query(
            "Seconds from request to link, a day",
            "TellOwner",
            "filter kind = 'ready' | stats pct(seconds.launch, 50) as p50, pct(seconds.launch, 95) as p95 by bin(1d)",
        ),
        _query(
            "Stops a day, by reason",
            "TellOwner",
            "filter message = 'owner told' and kind = 'stopped' | stats count(*) as stops by code, bin(1d)",
            view=_BY_TWO,
        ),
        _query("Running hours and dollars a day", "Reconcile", _RUNNING),
        _query(
            "Last sweeps",
            "Sweep",
            "filter message = 'swept' | fields @timestamp, complete, trouble, counts.keep, counts.warn | limit 20",
            view="table",
        ),
        _metrics(
            "Workflows that failed",
            [
                ["AWS/States", metric, "StateMachineArn", f"${{{name}}}"]
                for name in machines
                for metric in ("ExecutionsFailed", *(_CUT_SHORT if name in _OF_LAUNCHES else ()))
            ],
            "Sum",
        ),
        _metrics(
            "Errors of functions",
            [["AWS/Lambda", "Errors", "FunctionName", f"${{{name}}}"] for name in functions],
            "Sum",
        ),
        _query(
            "Functions: runs, milliseconds (p95), MB at most",
            functions,
            "filter @type = 'REPORT' | stats count(*) as runs, pct(@duration, 95) as p95, "
            "max(@maxMemoryUsed / 1000000) as megabytes by @log | sort p95 desc",
            view="table",
        ),
        _metrics(
            "API",
            [
                ["AWS/ApiGateway", metric, "ApiName", "nod-${Stage}", "Stage", "api"]
                for metric in ("Count", "4XXError", "5XXError")
            ],
            "Sum",
        ),
        _metrics(
            "Letters in the dead-letter queues",
            [
                ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", f"${{{name}.QueueName}}"]
                for name in queues
            ],
            "Maximum",
        ),
        _metrics(
            "Throttled reads and writes of tables",
            [["AWS/DynamoDB", metric, "TableName", f"${{{name}}}"] for name in tables for metric in _THROTTLED],
            "Sum",
        ),
        _query(
            "Errors in the functions' logs",
            functions,
            f"filter level = 'ERROR' or {_CRASHED} | fields @timestamp, coalesce(message, @message) as said, notebook, "
            "code | sort @timestamp desc | limit 20",
            view="table",
        ),
    ]


def _query(title: str, functions: str | list[str], query: str, view: str = "timeSeries") -> dict[str, Any]:
    names = [functions] if isinstance(functions, str) else functions
    sources = " | ".join(f"SOURCE '${{{name}Logs}}'" for name in names)
    return {
        "type": "log",
        "properties": {"title": title, "query": f"{sources} | {query}", "region": "${AWS::Region}", "view": view},
    }


def _metrics(title: str, metrics: list[list[str]], stat: str) -> dict[str, Any]:
    return {
        "type": "metric",
        "properties": {
            "title": title,
            "metrics": metrics,
            "region": "${AWS::Region}",
            "stat": stat,
            "period": 300,
            "view": "timeSeries",
        },
    }


def _placed(widgets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two columns, each widget a half of the page wide."""
    width, height = WIDTH // 2, 6
    return [
        {"x": number % 2 * width, "y": number // 2 * height, "width": width, "height": height, **widget}
        for number, widget in enumerate(widgets)
    ]
