"""API Gateway on AWS: what it answers itself, how fast it may be called, what it logs."""

from __future__ import annotations

import json
from typing import Any

from chalicelib import problems

# Per second, for all callers together. A client that waits for a launch asks every 2 s.
RATE, BURST = 50, 100

# By type: status that API Gateway gives it (its developer guide, "Gateway response types"), code and detail. A status
# is given for the two defaults as well: their answers come with several, and the body has to say the one that is sent.
# RESOURCE_NOT_FOUND and MISSING_AUTHENTICATION_TOKEN, a path or method that is not there, are as in local/gateway.py.
_NO_ROUTE = "There is no such path or method here. GET /openapi.json lists what there is."
_CONFIGURATION = "The API is not set up as it should be. Tell who runs it."
RESPONSES: dict[str, tuple[int, str, str]] = {
    "ACCESS_DENIED": (403, "forbidden", "API Gateway refuses this request."),
    "API_CONFIGURATION_ERROR": (500, "internal_error", _CONFIGURATION),
    "AUTHORIZER_CONFIGURATION_ERROR": (500, "internal_error", _CONFIGURATION),
    "AUTHORIZER_FAILURE": (500, "internal_error", _CONFIGURATION),
    "BAD_REQUEST_BODY": (400, "malformed_request", "The body cannot be read."),
    "BAD_REQUEST_PARAMETERS": (400, "malformed_request", "A parameter or header cannot be read."),
    "DEFAULT_4XX": (400, "malformed_request", "API Gateway cannot make sense of this request."),
    "DEFAULT_5XX": (502, "internal_error", "The function failed. Try again."),
    "EXPIRED_TOKEN": (403, "forbidden", "The request is signed for AWS; this API takes Authorization: Bearer TOKEN."),
    "INTEGRATION_FAILURE": (504, "internal_error", "The function could not be called. Try again."),
    "INTEGRATION_TIMEOUT": (
        504,
        "timeout",
        "No answer came in time; what was asked for may have happened. Look before you try again.",
    ),
    "INVALID_API_KEY": (403, "forbidden", "API Gateway refuses this request."),
    "INVALID_SIGNATURE": (
        403,
        "forbidden",
        "The request is signed for AWS; this API takes Authorization: Bearer TOKEN.",
    ),
    "MISSING_AUTHENTICATION_TOKEN": (403, "no_route", _NO_ROUTE),
    "QUOTA_EXCEEDED": (429, "too_many_requests", "Too many requests. Try again later."),
    "REQUEST_TOO_LARGE": (413, "body_too_large", "The body is larger than 10 MB."),
    "RESOURCE_NOT_FOUND": (403, "no_route", _NO_ROUTE),
    "THROTTLED": (429, "too_many_requests", "Too many requests. Try again in a few seconds."),
    "UNAUTHORIZED": (401, "not_authenticated", "This needs Authorization: Bearer TOKEN."),
    "UNSUPPORTED_MEDIA_TYPE": (415, "unsupported_media_type", "This content type is not read here."),
    "WAF_FILTERED": (403, "forbidden", "A rule of the web application firewall refuses this request."),
}

# No query string, where a link's key stands, and no headers.
LOG_FORMAT = {
    "message": "answered",
    "request_id": "$context.requestId",
    "time": "$context.requestTime",
    "caller": "$context.identity.sourceIp",
    "method": "$context.httpMethod",
    "route": "$context.resourcePath",
    "status": "$context.status",
    "refusal": "$context.error.responseType",
    "milliseconds": "$context.responseLatency",
    "function_milliseconds": "$context.integrationLatency",
    "trace": "$context.xrayTraceId",
}


def responses() -> dict[str, Any]:
    """The extension `x-amazon-apigateway-gateway-responses` of the API's definition.

    In the definition, and not resources of their own: only what the definition holds is part of the deployment that is
    made of it, and a change there makes a new one.
    """
    return {kind: _response(*answer) for kind, answer in RESPONSES.items()}


def _response(status: int, code: str, detail: str) -> dict[str, Any]:
    problem = {**problems.of_status(status, detail), "type": f"urn:nod:problem:{code}", "code": code}
    headers = {"gatewayresponse.header.Content-Type": f"'{problems.CONTENT_TYPE}'"}
    if status == 429:
        headers["gatewayresponse.header.Retry-After"] = "'2'"
    if status == 401:
        headers["gatewayresponse.header.WWW-Authenticate"] = "'Bearer'"
    return {
        "statusCode": str(status),
        "responseParameters": headers,
        # The template is chosen by what the caller accepts; this one is what API Gateway falls back to.
        "responseTemplates": {"application/json": json.dumps(problem)},
    }


def add(template: dict[str, Any], name: str) -> None:
    """Set up the REST API that Chalice made."""
    api = template["Resources"]["RestAPI"]
    # The name is a dimension of its metrics: two deployments in one account must not share it.
    api["Properties"]["Name"] = name
    api["Properties"]["DefinitionBody"]["info"]["title"] = name
    api["Properties"]["DefinitionBody"]["x-amazon-apigateway-gateway-responses"] = responses()
    api["Properties"] |= {
        # Said, SAM does not make a second stage called Stage, which would have neither throttle nor log.
        "OpenApiVersion": "2.0",
        "TracingEnabled": True,
        "AccessLogSetting": {
            "DestinationArn": {"Fn::GetAtt": ["RestAPILogs", "Arn"]},
            "Format": json.dumps(LOG_FORMAT),
        },
        # Without execution logs: API Gateway would make their group itself, kept for ever and after the stack is gone.
        "MethodSettings": [
            {
                "ResourcePath": "/*",
                "HttpMethod": "*",
                "ThrottlingRateLimit": RATE,
                "ThrottlingBurstLimit": BURST,
                "LoggingLevel": "OFF",
                "DataTraceEnabled": False,
                "MetricsEnabled": False,
            }
        ],
    }
    # Without the setting a stage cannot log. Not DependsOn: where the account has it already there is no resource.
    api["Properties"]["Tags"] = {
        "nod:gateway-logs": {"Fn::If": ["MakeGatewayLogs", {"Ref": "GatewayLogsAccount"}, "exists"]}
    }
