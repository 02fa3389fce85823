"""One cold start in this process: imports, then one event; the last line is seconds and memory as JSON, and the seconds
of the same event once more (`again`), in what is a warm environment then.

`python -m benchmarks.cold_run function MODULE:HANDLER EVENT` or `… bare CALLS`; `--record CALLS` notes the function's
clients and calls. Nothing but the clock is imported before it starts.
"""

import time

BEGAN = time.perf_counter()

import sys  # noqa: E402


def function(handler, path):  # type: ignore[no-untyped-def]
    """What Lambda does with a new environment: import the module, find the handler, hand it the event. Gives what hands
    it the event again."""
    import json  # noqa: PLC0415
    from importlib import import_module  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    module, _, name = handler.partition(":")
    found = getattr(import_module(module), name)
    event = Path(path).read_text()
    answer = found(json.loads(event), Context())
    if isinstance(answer, dict) and answer.get("statusCode", 0) >= 500:
        raise SystemExit(f"{handler} answers {answer}")
    return lambda: found(json.loads(event), Context())


def bare(path: str) -> None:
    """The same clients and calls by boto3 alone."""
    import json  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    import boto3  # noqa: PLC0415
    from botocore.exceptions import ClientError  # noqa: PLC0415

    recorded = json.loads(Path(path).read_text())
    clients = {service: boto3.client(service) for service in recorded["clients"]}
    for service, operation, parameters in recorded["calls"]:
        try:
            getattr(clients[service], operation)(**parameters)
        except ClientError:
            # Calls that the function expects to be refused (a token that was answered before) are refused here too.
            continue


class Context:
    """What Chalice and Powertools read of Lambda's context."""

    function_name = "cold"
    memory_limit_in_mb = "256"
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:cold"
    aws_request_id = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return 60_000


def record(path: str) -> None:
    """Note every client that is made and every call, in `path`, when the process ends."""
    import atexit  # noqa: PLC0415
    import json  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    import boto3  # noqa: PLC0415
    from botocore import xform_name  # noqa: PLC0415
    from botocore.client import BaseClient, ClientCreator  # noqa: PLC0415

    clients: list[str] = []
    calls: list[tuple[str, str, object]] = []
    create, call = ClientCreator.create_client, BaseClient._make_api_call

    def create_client(self, service_name, *args, **kwargs):  # type: ignore[no-untyped-def]
        if service_name not in clients:
            clients.append(service_name)
        return create(self, service_name, *args, **kwargs)

    def make_api_call(self, operation_name, api_params):  # type: ignore[no-untyped-def]
        calls.append((self.meta.service_model.service_name, xform_name(operation_name), api_params))
        return call(self, operation_name, api_params)

    ClientCreator.create_client = create_client
    BaseClient._make_api_call = make_api_call
    assert boto3
    atexit.register(lambda: Path(path).write_text(json.dumps({"clients": clients, "calls": calls})))


if __name__ == "__main__":
    arguments = sys.argv[1:]
    recorded = arguments[0] == "--record"
    if recorded:
        record(arguments[1])
        arguments = arguments[2:]
    again = {"function": function, "bare": bare}[arguments[0]](*arguments[1:])
    SECONDS = time.perf_counter() - BEGAN
    import json

    # Not ru_maxrss: it keeps the peak of the process that started this one.
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        PEAK = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    FIGURES = {"seconds": SECONDS, "mib": PEAK / 1024}
    if again is not None and not recorded:
        BEGAN = time.perf_counter()
        again()
        FIGURES["again"] = time.perf_counter() - BEGAN
    print(json.dumps(FIGURES))
