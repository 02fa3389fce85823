"""Step Functions: what happens inside an execution, where moto's interpreter is not AWS.

- Errors of SDK integrations are named as on AWS (`Ec2.Ec2Exception`; moto: `ec2.ec2Exception`), also of a call that did
  not reach the service (`Ec2.SdkClientException`; moto: `States.Runtime`).
- Parameters and results of SDK integrations have the Java SDK's names (beans.py; moto: the API's). One that the SDK
  does not have, a required one that is missing, and a value of another kind end the execution as `States.Runtime`.
- `States.Runtime` ends an execution past every Retry and Catch, and `States.DataLimitExceeded` past `States.ALL`.
- `$.list[0].field` is the field, not a list of it; a path with `[*]` is always a list, also of none or one, and an
  error if what stands before the `[*]` is not there.
- Times in results of SDK integrations, and of states, are ISO 8601 with `Z`.
- An aborted or timed out execution ends at once: waits, retries and tasks that wait for a token end with it.
- A task that is tried again has a new token.
- `states:startExecution` takes and returns names in PascalCase, as every integration does.
And so that figures say something about the product: definitions are parsed once, clients are made once.
"""

from __future__ import annotations

import base64
import contextvars
import copy
import datetime
import functools
import json
import re
import secrets
import threading
from collections.abc import Callable
from typing import Any

import boto3
import jsonpath_ng.ext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from moto.stepfunctions.parser.api import HistoryEventType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.catch.catcher_decl import CatcherDecl
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import ErrorEqualsDecl
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name import StatesErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.states_error_name_type import StatesErrorNameType
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.common.string import string_expression
from moto.stepfunctions.parser.asl.component.common.timeouts.timeout import EvalTimeoutError
from moto.stepfunctions.parser.asl.component.eval_component import EvalComponent
from moto.stepfunctions.parser.asl.component.intrinsic.argument import argument
from moto.stepfunctions.parser.asl.component.program.program import Program
from moto.stepfunctions.parser.asl.component.state import state as state_module
from moto.stepfunctions.parser.asl.component.state.choice.comparison.operator.implementations import (
    boolean_equals,
    numeric,
    string_operators,
    timestamp_operators,
)
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.exec.state_parallel.branches_decl import BranchesDecl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import (
    state_task_service_aws_sdk,
    state_task_service_dynamodb,
    state_task_service_events,
    state_task_service_sfn,
    state_task_service_sns,
    state_task_service_sqs,
    state_task_service_unsupported,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.resource import ResourceCondition
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_aws_sdk import (
    StateTaskServiceAwsSdk,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service_callback import (
    StateTaskServiceCallback,
)
from moto.stepfunctions.parser.asl.component.state.exec.state_task.state_task_lambda import StateTaskLambda
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.eval import states
from moto.stepfunctions.parser.asl.eval.callback.callback import CallbackConsumerTimeout
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.program_state import ProgramRunning
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser
from moto.stepfunctions.parser.asl.utils import encoding
from moto.stepfunctions.parser.asl.utils.json_path import NoSuchJsonPathError
from moto.stepfunctions.parser.backend.execution_worker import ExecutionWorker

from local.aws import beans
from local.delays import Delays
from local.patches import Patches
from local.principals import acting

SERVICE_NAMES = {
    "dynamodb": "DynamoDb",
    "ec2": "Ec2",
    "eventbridge": "EventBridge",
    "iam": "Iam",
    "lambda": "Lambda",
    "sfn": "Sfn",
    "sns": "Sns",
    "sqs": "Sqs",
    "ssm": "Ssm",
    "sts": "Sts",
}
"""As the Java SDK that Step Functions uses names the services."""


class Interrupted(BaseException):
    """The execution is over while a state of it is at work. No Exception, so that no Retry or Catch sees it."""


def iso(moment: datetime.datetime) -> str:
    """A time as Step Functions writes it."""
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(value: Any) -> Any:
    """A response of the SDK as JSON has it: times as text."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, datetime.datetime):
        return iso(value)
    return value


def to_json(value: Any) -> str:
    """JSON as Step Functions writes it."""
    return json.dumps(plain(value), separators=(",", ":"), default=str)


def install(endpoint: str, patches: Patches, delays: Delays) -> None:
    """Correct moto's interpreter; its tasks call AWS at `endpoint`."""
    _correct_clients(endpoint, patches)
    _correct_errors(patches)
    _correct_ends(patches)
    _correct_results(patches)
    _correct_names(patches)
    _correct_paths(patches)
    _correct_times(patches)
    _correct_endings(patches)
    _correct_waits(patches, delays.workflow_second)
    _correct_tasks(patches)
    _parse_once(patches)


# Clients

_try: contextvars.ContextVar[int] = contextvars.ContextVar("try", default=1)


def _say_try(request: Any, **_: Any) -> None:
    """A state's Retry is what an SDK's retries are elsewhere, and says so as SDKs do: faults hit the first try of a
    call (local/aws/front.py), however many executions make the same call side by side."""
    request.headers["amz-sdk-request"] = f"attempt={_try.get()}; max=2"


def _correct_clients(endpoint: str, patches: Patches) -> None:
    lock = threading.Lock()
    clients: dict[tuple[str, str], Any] = {}

    def client_for(region: str, service: str, state_credentials: Any = None) -> Any:  # noqa: ARG001
        with lock:
            if (region, service) not in clients:
                clients[region, service] = boto3.client(
                    service,  # type: ignore[call-overload]
                    region_name=region,
                    endpoint_url=endpoint,
                    aws_access_key_id="stepfunctions",
                    aws_secret_access_key="local",  # noqa: S106 - nobody checks it
                    config=Config(
                        retries={"total_max_attempts": 1},
                        max_pool_connections=200,
                        connect_timeout=10,
                        read_timeout=960,
                    ),
                )
                clients[region, service].meta.events.register("before-send", _say_try)
            return clients[region, service]

    for module in (
        lambda_eval_utils,
        state_task_service_aws_sdk,
        state_task_service_dynamodb,
        state_task_service_events,
        state_task_service_sfn,
        state_task_service_sns,
        state_task_service_sqs,
        state_task_service_unsupported,
    ):
        patches.set(module, "boto_client_for", client_for)

    def close() -> None:
        for client in clients.values():
            client.close()

    patches.after(close)


# Errors and results of tasks


def _correct_errors(patches: Patches) -> None:
    patches.set(
        state_task_service_aws_sdk,
        "_SERVICE_ERROR_NAMES",
        {**state_task_service_aws_sdk._SERVICE_ERROR_NAMES, **SERVICE_NAMES},
    )
    name = StateTaskLambda._from_error

    def from_error(task: Any, env: Any, ex: Exception) -> Any:
        event: Any = name(task, env, ex)
        if isinstance(ex, ClientError):
            # moto: `Exception`. AWS: Lambda's own error, such as Lambda.TooManyRequestsException.
            error = f"Lambda.{ex.response['Error']['Code']}"
            event.error_name = CustomErrorName(error)
            event.event_details["lambdaFunctionFailedEventDetails"]["error"] = error
        elif isinstance(ex, BotoCoreError):
            event.error_name = CustomErrorName("Lambda.SdkClientException")
            event.event_details["lambdaFunctionFailedEventDetails"]["error"] = "Lambda.SdkClientException"
        return event

    patches.set(StateTaskLambda, "_from_error", from_error)
    describe: Any = StateTaskServiceAwsSdk._from_error

    def from_sdk(task: Any, env: Any, ex: Exception) -> Any:
        if isinstance(ex, BotoCoreError) and not isinstance(ex, ParamValidationError):
            service = SERVICE_NAMES.get(task.resource.api_name, task.resource.api_name)
            return task._get_task_failure_event(env=env, error=f"{service}.SdkClientException", cause=str(ex))
        return describe(task, env, ex)

    patches.set(StateTaskServiceAwsSdk, "_from_error", from_sdk)
    tell: Any = state_task_service_sfn.StateTaskServiceSfn._from_error

    def from_states(task: Any, env: Any, ex: Exception) -> Any:
        if isinstance(ex, BotoCoreError) and not isinstance(ex, ParamValidationError):
            # moto: `States.Runtime`, which nothing catches.
            error = "StepFunctions.SdkClientException"
            return FailureEvent(
                env=env,
                error_name=CustomErrorName(error),
                event_type=HistoryEventType.TaskFailed,
                event_details=EventDetails(  # type: ignore[typeddict-item]
                    taskFailedEventDetails=TaskFailedEventDetails(error=error, cause=str(ex))
                ),
            )
        event = tell(task, env, ex)
        details = next(iter(event.event_details.values()))
        if str(details.get("error", "")).endswith("ExceptionException"):
            # moto adds the word to codes that have it, such as ThrottlingException.
            details["error"] = details["error"].removesuffix("Exception")
            event.error_name = CustomErrorName(details["error"])
        return event

    patches.set(state_task_service_sfn.StateTaskServiceSfn, "_from_error", from_states)


# Errors that nothing catches

_RUNTIME = StatesErrorName(typ=StatesErrorNameType.StatesRuntime)
_TOO_LARGE = StatesErrorName(typ=StatesErrorNameType.StatesStatesDataLimitExceeded)


def _correct_ends(patches: Patches) -> None:
    def taken(equals: Any, error_name: Any) -> bool:
        if error_name == _RUNTIME:
            return False
        # A rule that names it takes it, States.ALL does not.
        return error_name != _TOO_LARGE or _TOO_LARGE in equals.error_names

    equals: Any = ErrorEqualsDecl._eval_body

    def compare(declared: Any, env: Any) -> None:
        if taken(declared, env.stack[-1]):
            equals(declared, env)
        else:
            env.stack[-1] = False

    patches.set(ErrorEqualsDecl, "_eval_body", compare)
    catch: Any = CatcherDecl._eval_body

    def catcher(declared: Any, env: Any) -> None:
        failure = env.stack[-1]
        if isinstance(failure, FailureEvent) and failure.error_name == _RUNTIME:
            raise FailureEventException(failure_event=failure)
        catch(declared, env)

    patches.set(CatcherDecl, "_eval_body", catcher)


def _correct_results(patches: Patches) -> None:
    def model(task: Any) -> Any:
        service = task._get_boto_service_name()
        # Only Step Functions' own API has names in camelCase among those that workflows of ours call.
        if service != "stepfunctions":
            return None
        action = task.resource.api_action
        return boto3.client(service, region_name="us-east-1").meta.service_model.operation_model(
            action[0].upper() + action[1:]
        )

    def normalise_parameters(task: Any, parameters: Any, *_: Any, **__: Any) -> None:
        operation = model(task)
        if operation is not None:
            task._to_boto_request(parameters, operation.input_shape)

    def normalise_response(task: Any, response: Any, *_: Any, **__: Any) -> None:
        operation = model(task)
        if operation is not None and operation.output_shape is not None:
            task._from_boto_response(response, operation.output_shape)

    patches.set(StateTaskService, "_normalise_parameters", normalise_parameters)
    patches.set(StateTaskService, "_normalise_response", normalise_response)


def _correct_names(patches: Patches) -> None:
    def operation(task: Any) -> Any:
        return beans.named(task.resource.api_name, task.resource.api_action)

    def normalise_parameters(task: Any, parameters: dict[str, Any], *_: Any, **__: Any) -> None:
        shape = operation(task).input_shape
        wrong = sorted({one.message for one in beans.check(shape, parameters, template=False)})
        if wrong:
            raise _NotStartedError(
                f"The Parameters '{to_json(parameters)}' could not be used to start the Task: [{', '.join(wrong)}]"
            )
        named = beans.to_api(shape, parameters)
        parameters.clear()
        parameters.update(named)

    def normalise_response(task: Any, response: Any, *_: Any, **__: Any) -> None:
        shape = operation(task).output_shape
        if not isinstance(response, dict) or shape is None:
            return
        for key, value in response.items():
            response[key] = task._from_boto_response_value(value)
        named = beans.from_api(shape, response)
        response.clear()
        response.update(named)

    describe: Any = StateTaskServiceAwsSdk._from_error

    def from_error(task: Any, env: Any, ex: Exception) -> Any:
        if not isinstance(ex, _NotStartedError):
            return describe(task, env, ex)
        state = env.states.context_object.context_object_data["State"]["Name"]
        cause = f"An error occurred while executing the state '{state}'. {ex}"
        return FailureEvent(
            env=env,
            error_name=_RUNTIME,
            event_type=HistoryEventType.TaskFailed,
            event_details=EventDetails(  # type: ignore[typeddict-item]
                taskFailedEventDetails=TaskFailedEventDetails(error=_RUNTIME.error_name, cause=cause)
            ),
        )

    patches.set(StateTaskServiceAwsSdk, "_normalise_parameters", normalise_parameters)
    patches.set(StateTaskServiceAwsSdk, "_normalise_response", normalise_response)
    patches.set(StateTaskServiceAwsSdk, "_from_error", from_error)


class _NotStartedError(Exception):
    """What the parameters of an SDK integration came to is none that the SDK could be called with."""


# Paths

_STEP = re.compile(r"""\.([^.\[\]*?@'"\s]+)|\[(\d+)\]|\['([^']+)'\]|\["([^"]+)"\]""")
_DEFINITE = re.compile(rf"\$(?:{_STEP.pattern})*(?=\[|\.)")
_NOTHING = object()


@functools.lru_cache(maxsize=4096)
def _steps(path: str) -> tuple[str | int, ...] | None:
    # The names and indexes of a definite path, or None for one with a wildcard, slice, filter or `..`.
    if not path.startswith("$"):
        return None
    position, steps = 1, list[str | int]()
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            return None
        name, index, single, double = match.groups()
        steps.append(int(index) if index is not None else name or single or double)
        position = match.end()
    return tuple(steps)


@functools.lru_cache(maxsize=1024)
def _parsed(path: str) -> Any:
    return jsonpath_ng.ext.parse(path)  # type: ignore[attr-defined]


def extract(path: str, data: Any) -> Any:
    """The value of a reference path in `data`, or the list of values of one that is not definite.

    Raises moto's NoSuchJsonPathError for a path that leads nowhere, be it only by its definite beginning.
    """
    steps = _steps(path)
    if steps is None:
        # AWS takes no list of what is not there: `$.none[*]` fails as `$.none` does.
        if (before := _DEFINITE.match(path)) and before[0] != "$":
            extract(before[0], data)
        return [match.value for match in _parsed(path).find(data)]
    value = data
    for step in steps:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step, _NOTHING)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            value = _NOTHING
        if value is _NOTHING:
            raise NoSuchJsonPathError(json_path=path, data=data)
    return value


def _correct_paths(patches: Patches) -> None:
    for module in (
        argument,
        boolean_equals,
        numeric,
        states,
        string_expression,
        string_operators,
        timestamp_operators,
    ):
        patches.set(module, "extract_json", extract)


# Times


def _correct_times(patches: Patches) -> None:
    original = state_module.__dict__["StateData"]

    def state_data(**fields: Any) -> Any:
        fields["EnteredTime"] = iso(datetime.datetime.fromisoformat(fields["EnteredTime"]))
        return original(**fields)

    patches.set(state_module, "StateData", state_data)
    encode: Any = encoding._DateTimeEncoder.default

    def default(encoder: Any, value: Any) -> Any:
        return iso(value) if isinstance(value, datetime.datetime) else encode(encoder, value)

    patches.set(encoding._DateTimeEncoder, "default", default)


# The end of an execution reaches everything that waits in it


def _wake(environment: Any) -> None:
    for waker in list(environment.__dict__.get("nod_wakers", ())):
        waker.set()


def _pause(environment: Any, seconds: float | None, event: threading.Event) -> bool:
    """Wait for the event, the end of the environment, or `seconds`. True when the environment goes on."""
    wakers = environment.__dict__.setdefault("nod_wakers", [])
    wakers.append(event)
    try:
        # Looked at after the registration: an end before it would wake nobody.
        if environment.is_running():
            event.wait(seconds)
    finally:
        wakers.remove(event)
    return bool(environment.is_running())


def _correct_endings(patches: Patches) -> None:
    def woken(name: str, *, only_running: bool) -> None:
        original = Environment.__dict__[name]

        def method(environment: Any, *arguments: Any, **named: Any) -> None:
            with environment._state_mutex:
                state = environment._program_state
                # The first end stays: the error of a state that was torn away is not the execution's.
                if only_running and state is not None and not isinstance(state, ProgramRunning):
                    return
                original(environment, *arguments, **named)
            _wake(environment)

        patches.set(Environment, name, method)

    woken("set_ended", only_running=False)
    woken("set_error", only_running=True)
    woken("set_timed_out", only_running=True)
    woken("set_stop", only_running=False)

    body = Program._eval_body

    def program_body(program: Any, env: Any) -> None:
        try:
            body(program, env)
        except Interrupted:
            # Again: the loop over states is over at once, what follows it writes the end into the history.
            body(program, env)

    def program_eval(program: Any, env: Any) -> None:
        timeout = program.timeout_seconds.timeout_seconds if program.timeout_seconds else None
        if env._program_state is None or env.is_running():
            env.next_state_name = program.start_at.start_at_name
        worker = threading.Thread(target=EvalComponent.eval, args=(program, env), name="nod-states", daemon=True)
        worker.start()
        worker.join(timeout)
        if worker.is_alive():
            env.set_timed_out()
            worker.join(5)

    patches.set(Program, "_eval_body", program_body)
    patches.set(Program, "eval", program_eval)

    begin: Any = ExecutionWorker.start

    def start(worker: Any) -> None:
        worker.nod_environment = threading.Event()
        begin(worker)

    patches.set(ExecutionWorker, "start", start)
    patches.set(
        ExecutionWorker, "_get_evaluation_environment", _announcing(ExecutionWorker._get_evaluation_environment)
    )


def _announcing(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def environment(worker: Any) -> Any:
        made = make(worker)
        # Running from the first moment on, so that a stop that comes at once is not lost.
        made._program_state = ProgramRunning()  # type: ignore[no-untyped-call]
        worker.env = made
        worker.nod_environment.set()
        return made

    return environment


def _correct_waits(patches: Patches, second: float) -> None:
    def wait(_: Any, env: Any, wait_seconds: float) -> None:
        if wait_seconds > 0 and not _pause(env, wait_seconds * second, threading.Event()):
            raise Interrupted

    patches.set(WaitFunction, "_wait_interval", wait)
    branches: Any = BranchesDecl._eval_body

    def branches_body(declared: Any, env: Any) -> None:
        branches(declared, env)
        if not env.is_running():
            # The branches were torn away: there is no success of the Parallel state to tell.
            raise Interrupted

    patches.set(BranchesDecl, "_eval_body", branches_body)

    retry = retrier_decl.RetrierDecl._eval_body
    here = threading.local()

    class Time:
        """What the retrier calls `time`: its sleep ends with the execution."""

        @staticmethod
        def sleep(seconds: float) -> None:
            if not _pause(here.env, seconds * second, threading.Event()):
                raise Interrupted

    def retrier_body(retrier: Any, env: Any) -> None:
        here.env = env
        retry(retrier, env)

    patches.set(retrier_decl, "time", Time)
    patches.set(retrier_decl.RetrierDecl, "_eval_body", retrier_body)


def _correct_tasks(patches: Patches) -> None:
    def evaluate(state: Any, env: Any) -> None:
        state.timeout.eval(env=env)
        seconds = env.stack.pop()
        frame = env.open_frame()
        frame.states.reset(input_value=env.states.get_input())
        frame.stack = copy.deepcopy(env.stack)
        token = _token(state, env, frame)
        outputs: list[Any] = []
        errors: list[Exception] = []
        finished: list[bool] = []
        done = threading.Event()

        tries = env.states.context_object.context_object_data["State"]["RetryCount"] + 1

        def work() -> None:
            _try.set(tries)
            try:
                with acting(f"workflow/{_machine(env)}"):
                    state._eval_execution(frame)
                outputs.extend(frame.stack)
            except Interrupted:
                pass
            except Exception as error:  # noqa: BLE001 - handed to the state's Retry and Catch
                errors.append(error)
            finished.append(True)
            done.set()

        threading.Thread(target=work, name="nod-task", daemon=True).start()
        goes_on = _pause(env, seconds, done)
        on_time = bool(finished)
        frame.set_ended()
        env.close_frame(frame)
        if token is not None:
            # Later answers to this token are TaskTimedOut; and whoever waits for it stops.
            endpoint = env.callback_pool_manager.get(token)
            endpoint.report(CallbackConsumerTimeout())
            endpoint.interrupt_all()
        if not goes_on:
            raise Interrupted
        if errors:
            raise errors[0]
        if not on_time:
            raise EvalTimeoutError
        _take_result(state, env, plain(outputs.pop()))

    patches.set(ExecutionState, "_evaluate_with_timeout", evaluate)
    patches.set(states, "long_uid", _long_token)


def _machine(env: Any) -> str:
    arn: str = env.states.context_object.context_object_data["StateMachine"]["Id"]
    return arn.rsplit(":", 1)[-1]


def _take_result(state: Any, env: Any, output: Any) -> None:
    env.stack.append(output)
    if not state._is_language_query_jsonpath():
        env.states.set_result(output)
    if state.assign_decl:
        state.assign_decl.eval(env=env)
    if state.result_selector:
        state.result_selector.eval(env=env)
    if state.result_path:
        state.result_path.eval(env)
    else:
        env.states.reset(input_value=env.stack.pop())


def _long_token() -> str:
    # As long and of the same letters as on AWS (at most 2,048 characters); moto's are UUIDs.
    return "AQC" + base64.b64encode(secrets.token_bytes(510)).decode()


def _token(state: Any, env: Any, frame: Any) -> str | None:
    """The token of this try of a task that waits for one; from the second try on a new one."""
    if (
        not isinstance(state, StateTaskServiceCallback)
        or state.resource.condition != ResourceCondition.WaitForTaskToken
    ):
        return None
    context = frame.states.context_object
    if env.states.context_object.context_object_data["State"]["RetryCount"] > 0:
        token = context.update_task_token()
        frame.callback_pool_manager.add(token)
    return str(context.context_object_data["Task"]["Token"])


# Parsing


def _parse_once(patches: Patches) -> None:
    parse = AmazonStateLanguageParser.parse
    patches.set(AmazonStateLanguageParser, "parse", staticmethod(functools.lru_cache(maxsize=64)(parse)))
