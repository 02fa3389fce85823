"""The ends of commands and the states of instances, told to the workflow that waits for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime

from chalicelib import commands, executions, outside, times
from chalicelib.actions.stopping import LOOK_AFTER, finish_stop
from chalicelib.aws.commands import Commands
from chalicelib.aws.faults import as_unavailable
from chalicelib.aws.instances import Instances
from chalicelib.aws.notebooks import NotebooksTable, Waiting
from chalicelib.aws.workflows import Workflows
from chalicelib.documents import is_ours
from chalicelib.errors import CommandFailed, CommandPending, InstancePending, NodError, Unavailable
from chalicelib.log import logger, note
from chalicelib.model import Notebook
from chalicelib.notebook import life, machine, moves
from chalicelib.notebook.life import State, Writer
from chalicelib.notebook.machine import InstanceState

# States in which a notebook stops with its machine.
_STOPPABLE = (State.READY, State.STOPPING)
_STATES = (InstanceState.RUNNING, InstanceState.STOPPED, *machine.GONE)


def answer_command(detail: Mapping[str, object], stage: str, sent: Commands, workflows: Workflows) -> str:
    """Ends the task that waits for the command of an event. What was done, for the log.

    Safe to run again: a second or late answer changes nothing. An error of AWS goes through, for Lambda to retry.
    """
    command_id = commands.event_command(detail, stage)
    if command_id is None:
        return "ignored: not the end of a command of ours"
    command = sent.find(command_id)
    if command is None or not is_ours(command.document, stage):
        return "ignored: not a command of ours"
    if command.execution is not None:
        note(notebook=executions.notebook_of(command.execution), execution=command.execution)
    if command.instance_id is None or command.task_token is None:
        return "ignored: nobody waits for it"
    outcome = commands.decide(sent.invocation(command, command.instance_id), command.document)
    if isinstance(outcome, commands.Result):
        done = workflows.succeed(command.task_token, outcome.output)
    elif isinstance(outcome, commands.Failed):
        done = workflows.fail(command.task_token, "CommandFailed", outcome.cause())
    else:
        # The event came before the invocation shows its end: Lambda's retry looks again.
        raise CommandPending(f"The command {command_id} has ended, but its invocation does not show it yet.")
    return f"{type(outcome).__name__.lower()}{'' if done else ', too late'}"


def look_for_command(event: Mapping[str, object], stage: str, sent: Commands) -> dict[str, object]:
    """The result line of the newest command with a document that the execution `run` sent to an instance since a time.

    Raises:
        CommandPending: it still runs, or is not to be seen yet.
        CommandFailed: it ended without a result.
        NodError: the input is not that of docs/contracts.md.
    """
    instance_id, document = event.get("instance_id"), event.get("document")
    since = times.from_text(value if isinstance(value := event.get("since"), str) else None)
    if not isinstance(instance_id, str) or not isinstance(document, str) or since is None:
        raise NodError("The input has to hold instance_id, document and since (a time).")
    if not is_ours(document, stage):
        document = f"nod-{stage}-{document}"
    run = event.get("run")
    command = commands.newest(sent.sent_to(instance_id, since), document, run if isinstance(run, str) else None)
    if command is None:
        raise CommandPending(f"No command {document} to {instance_id} is to be seen yet.")
    outcome = commands.decide(sent.invocation(command, instance_id), document)
    if isinstance(outcome, commands.Result):
        return outcome.output
    if isinstance(outcome, commands.Failed):
        raise CommandFailed(outcome.code, outcome.message)
    raise CommandPending(f"The command {command.id} still runs.")


class InstanceEvents:
    """Takes the gateways it acts on; EC2's as a function, since few events need it and its client takes long."""

    def __init__(
        self,
        notebooks: NotebooksTable,
        workflows: Workflows,
        instances: Callable[[], Instances],
        *,
        launch_arn: str,
        stop_arn: str,
        undo_arn: str,
    ) -> None:
        self._notebooks = notebooks
        self._workflows = workflows
        self._instances = instances
        self._launch_arn = launch_arn
        self._undo_arn = undo_arn
        self._stop_arn = stop_arn

    def answer(self, detail: Mapping[str, object], now: datetime) -> str:
        """Ends the task that waits for an instance, or begins the stop that nobody here asked for. What was done, for
        the log. Safe to run again. Errors go through, for Lambda to retry: those of AWS, and InstancePending where EC2
        shows less than its event said (a function on the event can see the state before: boto/boto3 issue 4386).

        An instance that is off or lost while commands run on it ends its launch at once: no command of it will ever
        end. A delete takes it away too, with the launch under way or long over.
        """
        instance_id, state = detail.get("instance-id"), detail.get("state")
        if not isinstance(instance_id, str) or state not in _STATES:
            return "ignored: nobody waits for this state"
        waiting = self._notebooks.of_instance(instance_id)
        if waiting is None:
            return "ignored: nobody waits for this instance"
        note(notebook=waiting.id, execution=waiting.execution)
        if waiting.state in life.MAY_HAVE_LAUNCH and state != InstanceState.RUNNING:
            return self._lost(waiting, instance_id, str(state))
        if waiting.wait_token is not None:
            # Start and stop look at the instance themselves, whatever the event says.
            done = self._workflows.succeed(waiting.wait_token, {"state": state})
            # A token that nobody waits for is of a workflow that was cut off: the instance is off all the same.
            if done or state != InstanceState.STOPPED:
                return f"{waiting.id}: {state}{'' if done else ', too late'}"
        if state == InstanceState.STOPPED and waiting.state in _STOPPABLE:
            return self._stopped(waiting, instance_id, now)
        return "ignored: nobody waits for this instance"

    def _lost(self, waiting: Waiting, instance_id: str, state: str) -> str:
        # The launch's own Catch started the undo (it bears the launch's name), and the undo terminated the instance. To
        # abort the launch now would start a second undo, which could record this end as the reason for the failure.
        if self._workflows.exists(self._undo_arn, waiting.id):
            return f"{waiting.id}: {state}, by its undo"
        message = f"The instance is {state}."
        try:
            with as_unavailable("EC2"):
                instance = self._instances().describe([instance_id]).get(instance_id)
        except Unavailable as error:
            # The launch is to end now, with or without the reason.
            logger.error("no reason known", instance=instance_id, reason=error.detail)
            instance = None
        if instance is not None and instance.reason:
            message = f"{message} EC2's reason: {instance.reason}."
        cause = json.dumps({"code": "instance_lost", "message": message})
        done = waiting.wait_token is not None and self._workflows.fail(waiting.wait_token, "InstanceLost", cause)
        done = done or self._workflows.abort(self._launch_arn, waiting.id, "InstanceLost", cause)
        return f"{waiting.id}: {state}{'' if done else ', too late'}"

    def _stopped(self, waiting: Waiting, instance_id: str, now: datetime) -> str:
        """The index lags and the event may be old: what is done rests on the record and on EC2 as they are now."""
        notebook = self._notebooks.get(waiting.id)
        instance = self._instances().describe([instance_id]).get(instance_id)
        if notebook is None or notebook.instance_id != instance_id or instance is None:
            return f"{waiting.id}: stopped, too late"
        if instance.state == InstanceState.STOPPING and notebook.state in _STOPPABLE:
            raise InstancePending(f"The event says that {instance_id} is stopped, EC2 still shows it as stopping.")
        if instance.state != InstanceState.STOPPED:
            return f"{waiting.id}: stopped, too late"
        if notebook.state == State.READY:
            stop = outside.stop_of(instance.reason)
            begun = self._notebooks.move(moves.stop(notebook, stop, Writer.EVENT, now, now + LOOK_AFTER))
            return self._finish(begun) if isinstance(begun, Notebook) else f"{waiting.id}: stopped, too late"
        # Lambda tries an event again that failed between the record and the workflow; and the event of an instance that
        # the sweep stopped may be here before the sweep has started the workflow.
        return self._finish(notebook) if notebook.state == State.STOPPING else f"{waiting.id}: stopped, too late"

    def _finish(self, notebook: Notebook) -> str:
        begun = finish_stop(notebook, workflows=self._workflows, stop_arn=self._stop_arn)
        return f"{notebook.id}: stopped{'' if begun else ', its workflow runs or ran'}"
