"""Why a notebook's server runs without its owner's configuration, or does not answer: our words for a code.

The machine tells the code alone (instance/files/server_causes.py, which tests/unit/test_server_health.py holds to the
same words), so nothing that somebody on it wrote gets into a record, a page or a message.
"""

from __future__ import annotations

from typing import NamedTuple


class Cause(NamedTuple):
    """The reason, as it goes on after "because", and what to do about it, in sentences."""

    reason: str
    advice: str


CAUSES = {
    "configuration": Cause(
        "a file of its Jupyter configuration raises an error or cannot be read",
        "Look at the files in ~/.jupyter whose names begin with jupyter_ and mend or rename the one that is wrong.",
    ),
    "root_dir": Cause(
        "the folder that its configuration names as root_dir or preferred_dir is not there or cannot be read",
        "Correct root_dir in ~/.jupyter/jupyter_server_config.py, or make that folder again.",
    ),
    "home": Cause(
        "its user cannot read and write the home folder",
        "Make /home/jupyter a folder of the user jupyter again, as root: chown jupyter: /home/jupyter",
    ),
    "disk_full": Cause("the disk is full", "Delete files that you do not need."),
    "port_taken": Cause(
        "another program on the machine uses the notebook's port 8888",
        "End that program, or stop and start the notebook, which ends everything that runs on it.",
    ),
    "page": Cause(
        "with its configuration its pages end in errors",
        "Look at the files in ~/.jupyter and in ~/.local/share/jupyter and mend or rename what is wrong.",
    ),
    "environment": Cause(
        "what is installed in /opt/anaconda3 does not start",
        "Tell your administrator; a new notebook has it whole.",
    ),
    "hangs": Cause(
        "it did not finish starting in time: something in its configuration or in a server extension waits or loops",
        "Look at the files in ~/.jupyter whose names begin with jupyter_, and at the server extensions that they name.",
    ),
    "out_of_memory": Cause(
        "the machine's memory ran out",
        "End programs that need much memory, or stop and start the notebook, which ends everything that runs on it.",
    ),
    "crashes": Cause(
        "it ended by itself soon after it had started, more than once",
        "Look at the server extensions that ~/.jupyter names, and leave out the newest.",
    ),
    "system": Cause(
        "systemd could not start it",
        "Stop and start the notebook; if that does not help, tell your administrator.",
    ),
    "stopped": Cause(
        "its service was switched off on the machine",
        "Start it as root (Session Manager): systemctl start jupyter. Or stop and start the notebook.",
    ),
    "silent": Cause(
        "it runs but answers nothing; it may hang, or the machine may be overloaded",
        "Wait for what runs on it, or stop and start the notebook.",
    ),
    "ended": Cause(
        "it ended while it started, for a reason that is not known",
        "Look at the newest changes in ~/.jupyter.",
    ),
}

RETRY = "Then choose File, Shut Down in JupyterLab: the notebook comes back by itself, with your configuration."


def known(code: str | None) -> str:
    """The code itself if it is one of ours, else the one for what is not known."""
    return code if code in CAUSES else "ended"


def without_configuration(code: str) -> str:
    """What is told of a notebook in safe mode."""
    cause = CAUSES[known(code)]
    return f"The notebook runs without your configuration, because {cause.reason}. {cause.advice} {RETRY}"


def not_answering(code: str) -> str:
    """What is told of a notebook whose server does not answer, on a machine that runs."""
    cause = CAUSES[known(code)]
    return f"The machine runs, but the notebook's server does not answer, because {cause.reason}. {cause.advice}"
