"""Step Functions: the API and the execution's life, where moto is not AWS.

- A definition that AWS would refuse is refused (definitions.py; moto looks at little of it).
- An execution that is started, and one that ends, is an event `Step Functions Execution Status Change`.
- StopExecution ends an execution at once, with its error and cause (moto: after the current state, without them).
- A token whose task is over is `TaskTimedOut`; one that never was is `InvalidToken` (moto: `InvalidToken` for both,
  and a second answer to one token silently replaces the first). SendTaskFailure keeps its cause.
- An execution without a name gets one; start times are ISO 8601 with `Z`.
What happens inside an execution is corrected in interpreter.py.
"""

from __future__ import annotations

import datetime
import json
import re
import threading
import uuid
from typing import Any

from moto.core.config import default_user_config
from moto.core.exceptions import AWSError
from moto.core.responses import EmptyResult
from moto.stepfunctions.models import StateMachine
from moto.stepfunctions.parser.api import ExecutionStatus
from moto.stepfunctions.parser.asl.eval.callback.callback import CallbackOutcomeFailure, CallbackOutcomeSuccess
from moto.stepfunctions.parser.asl.eval.program_state import ProgramStopped
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication, Execution
from moto.stepfunctions.parser.models import StepFunctionsParserBackend
from moto.stepfunctions.responses import StepFunctionResponse

from local.aws import definitions, interpreter
from local.delays import Delays
from local.events import EventBus
from local.patches import Patches

STATE_LIMIT = 262_144
EVENT_LIMIT = 248 * 1024
"""Input and output are left out of an event above this size."""


def install(bus: EventBus, endpoint: str, patches: Patches, delays: Delays) -> None:
    """Let moto execute state machines, as AWS does. `endpoint` is where its tasks call AWS."""
    before = default_user_config.get("stepfunctions")
    default_user_config["stepfunctions"] = {"execute_state_machine": True}
    patches.after(lambda: _restore(before))
    interpreter.install(endpoint, patches, delays)
    _correct_definitions(patches)
    _correct_start(bus, patches)
    _correct_end(bus, patches)
    _correct_stop(patches)
    _correct_tokens(patches)


def stop_all(backend: StepFunctionsParserBackend, seconds: float = 3.0) -> None:
    """Abort whatever runs, for the end of the cloud."""
    for execution in backend._get_executions():
        if execution.exec_status == ExecutionStatus.RUNNING:
            stop(execution, None, None, seconds)


def stop(execution: Any, error: str | None, cause: str | None, seconds: float = 3.0) -> None:
    """Abort an execution and wait until it has ended."""
    began = getattr(execution.exec_worker, "nod_environment", None)
    if began is not None:
        # A stop right after the start comes before the interpreter has an environment to stop.
        began.wait(seconds)
    environment = execution.exec_worker.env
    if environment is None or execution.exec_status != ExecutionStatus.RUNNING:
        return
    environment.set_stop(stop_date=datetime.datetime.now(tz=datetime.UTC), error=error, cause=cause)
    execution.nod_ended.wait(seconds)


def _restore(before: Any) -> None:
    if before is None:
        default_user_config.pop("stepfunctions", None)
    else:
        default_user_config["stepfunctions"] = before


def _correct_definitions(patches: Patches) -> None:
    validate: Any = StepFunctionsParserBackend._validate_definition

    def validate_definition(definition: str) -> None:
        if wrong := definitions.problems(definition):
            raise _error("InvalidDefinition", f"Invalid State Machine Definition: '{', '.join(wrong)}'")
        validate(definition)

    patches.set(StepFunctionsParserBackend, "_validate_definition", staticmethod(validate_definition))


def _correct_start(bus: EventBus, patches: Patches) -> None:
    starting = threading.Lock()
    start: Any = StepFunctionsParserBackend.start_execution

    def start_execution(
        backend: Any, state_machine_arn: str, name: str | None = None, execution_input: str | None = None, *rest: Any
    ) -> Any:
        name = name or str(uuid.uuid4())
        if len(name) > 80 or re.search(r"[\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]", name):
            raise _error("InvalidName", f"Invalid Name: '{name}'")
        if execution_input is not None and len(execution_input.encode()) > STATE_LIMIT:
            raise _error("InvalidExecutionInput", f"Invalid execution input: more than {STATE_LIMIT} bytes")
        # Looking for the name and adding the execution is one step, or two equal starts are two executions.
        with starting:
            known = {e.execution_arn for e in backend.describe_state_machine(state_machine_arn).executions}
            execution = start(backend, state_machine_arn, name, execution_input, *rest)
        if execution.execution_arn not in known:
            _tell(bus, execution, started=True)
        return execution

    begin = Execution.start

    def started(execution: Any) -> None:
        execution.nod_ended = threading.Event()
        begin(execution)

    details: Any = Execution.get_start_execution_details

    def start_details(execution: Any) -> Any:
        found = details(execution)
        found.start_time = interpreter.iso(execution.start_date)
        return found

    patches.set(StepFunctionsParserBackend, "start_execution", start_execution)
    patches.set(Execution, "start", started)
    patches.set(Execution, "get_start_execution_details", start_details)


def _correct_end(bus: EventBus, patches: Patches) -> None:
    terminated = BaseExecutionWorkerCommunication.terminated

    def ended(communication: Any) -> None:
        execution = communication.execution
        terminated(communication)
        state = execution.exec_worker.env.program_state()
        if isinstance(state, ProgramStopped):
            execution.error, execution.cause = state.error, state.cause
        execution.nod_ended.set()
        _tell(bus, execution)

    describe: Any = StepFunctionResponse.describe_execution

    def describe_execution(response: Any) -> Any:
        execution = response.stepfunction_backend.describe_execution(response._get_param("executionArn"))
        answer = describe(response)
        if execution.exec_status == ExecutionStatus.SUCCEEDED:
            # moto gives an output that is a string without its quotes.
            answer.result["output"] = interpreter.to_json(execution.output)
        if execution.stop_date is not None:
            # moto leaves it out for TIMED_OUT.
            answer.result["stopDate"] = execution.stop_date
        return answer

    patches.set(BaseExecutionWorkerCommunication, "terminated", ended)
    patches.set(StepFunctionResponse, "describe_execution", describe_execution)


def _correct_stop(patches: Patches) -> None:
    wanted = threading.local()
    respond = StepFunctionResponse.stop_execution

    def stop_execution(response: Any) -> Any:
        wanted.error, wanted.cause = response._get_param("error"), response._get_param("cause")
        return respond(response)

    def stopped(machine: Any, execution_arn: str) -> Any:
        execution = next((e for e in machine.executions if e.execution_arn == execution_arn), None)
        if execution is None:
            return original(machine, execution_arn)
        stop(execution, getattr(wanted, "error", None), getattr(wanted, "cause", None))
        return execution

    original = StateMachine.stop_execution
    patches.set(StepFunctionResponse, "stop_execution", stop_execution)
    patches.set(StateMachine, "stop_execution", stopped)


def _correct_tokens(patches: Patches) -> None:
    answering = threading.Lock()

    def endpoint_of(backend: Any, token: str) -> Any:
        for execution in backend._get_executions():
            environment = execution.exec_worker.env
            endpoint = environment.callback_pool_manager.get(token) if environment else None
            if endpoint is None:
                continue
            over = endpoint.consumer_error is not None or endpoint.get_outcome() is not None
            if over or execution.exec_status != ExecutionStatus.RUNNING:
                raise _error("TaskTimedOut", "Task Timed Out: 'Provided task does not exist anymore'")
            return endpoint
        raise _error("InvalidToken", "Invalid Token: 'Invalid token'")

    def send_task_success(backend: Any, task_token: str, outcome: str) -> None:
        try:
            json.loads(outcome, parse_constant=_no_constant)
        except (TypeError, ValueError):
            raise _error("InvalidOutput", f"Invalid Output: '{outcome}'") from None
        with answering:
            endpoint_of(backend, task_token).notify(CallbackOutcomeSuccess(task_token, outcome))

    def send_task_failure(backend: Any, task_token: str, error: str | None = None, cause: str | None = None) -> None:
        with answering:
            endpoint_of(backend, task_token).notify(CallbackOutcomeFailure(task_token, error, cause))

    def send_task_heartbeat(backend: Any, task_token: str) -> None:
        with answering:
            endpoint_of(backend, task_token).notify_heartbeat()

    def failure(response: Any) -> Any:
        response.stepfunction_backend.send_task_failure(
            response._get_param("taskToken"), error=response._get_param("error"), cause=response._get_param("cause")
        )
        return EmptyResult()

    patches.set(StepFunctionsParserBackend, "send_task_success", send_task_success)
    patches.set(StepFunctionsParserBackend, "send_task_failure", send_task_failure)
    patches.set(StepFunctionsParserBackend, "send_task_heartbeat", send_task_heartbeat)
    patches.set(StepFunctionResponse, "send_task_failure", failure)


def _no_constant(name: str) -> None:
    # Python reads Infinity and NaN, which are not JSON.
    raise ValueError(name)


def _error(code: str, message: str) -> AWSError:
    # moto's interpreter has classes of its own for these, which lose their code on the way out.
    return AWSError(message, exception_type=code)


def _tell(bus: EventBus, execution: Any, started: bool = False) -> None:
    # A short execution may have ended before its start is told.
    status = ExecutionStatus.RUNNING.value if started else execution.exec_status.value
    over = None if started else execution.stop_date
    output = None
    if status == "SUCCEEDED":
        output = interpreter.to_json(execution.output)
    given = execution.execution_input
    large = len((given or "").encode()) + len((output or "").encode()) > EVENT_LIMIT
    detail = {
        "executionArn": execution.execution_arn,
        "stateMachineArn": execution.state_machine_arn,
        "name": execution.name,
        "status": status,
        "startDate": int(execution.start_date.timestamp() * 1000),
        "stopDate": int(over.timestamp() * 1000) if over else None,
        "input": None if large else given,
        "output": None if large else output,
        "inputDetails": {"included": not large},
        "outputDetails": None if output is None else {"included": not large},
        "error": None if started else execution.error,
        "cause": None if started else execution.cause,
        "stateMachineVersionArn": None,
        "stateMachineAliasArn": None,
        "redriveCount": 0,
        "redriveDate": None,
    }
    bus.emit("aws.states", "Step Functions Execution Status Change", [execution.execution_arn], detail)
