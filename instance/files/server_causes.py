"""Why the notebook's server did not come up, or runs without its owner's configuration: a closed list of codes.

For each the exit status by which the server tells it, and our own words: the reason (after "because") and what to do.
What the machine shows uses these words; the API has the same in chalicelib/server_causes.py, and a test compares them.
"""

from typing import NamedTuple


class Cause(NamedTuple):
    """`status`: the server's exit status for it, None where it is told from outside; `reason`, `advice`: our words."""

    status: int | None
    reason: str
    advice: str


CAUSES = {
    "configuration": Cause(
        81,
        "a file of its Jupyter configuration raises an error or cannot be read",
        "Look at the files in ~/.jupyter whose names begin with jupyter_ and mend or rename the one that is wrong.",
    ),
    "root_dir": Cause(
        82,
        "the folder that its configuration names as root_dir or preferred_dir is not there or cannot be read",
        "Correct root_dir in ~/.jupyter/jupyter_server_config.py, or make that folder again.",
    ),
    "home": Cause(
        83,
        "its user cannot read and write the home folder",
        "Make /home/jupyter a folder of the user jupyter again, as root: chown jupyter: /home/jupyter",
    ),
    "disk_full": Cause(
        84,
        "the disk is full",
        "Delete files that you do not need.",
    ),
    "port_taken": Cause(
        85,
        "another program on the machine uses the notebook's port 8888",
        "End that program, or stop and start the notebook, which ends everything that runs on it.",
    ),
    "page": Cause(
        86,
        "with its configuration its pages end in errors",
        "Look at the files in ~/.jupyter and in ~/.local/share/jupyter and mend or rename what is wrong.",
    ),
    "environment": Cause(
        87,
        "what is installed in /opt/anaconda3 does not start",
        "Tell your administrator; a new notebook has it whole.",
    ),
    "hangs": Cause(
        None,
        "it did not finish starting in time: something in its configuration or in a server extension waits or loops",
        "Look at the files in ~/.jupyter whose names begin with jupyter_, and at the server extensions that they name.",
    ),
    "out_of_memory": Cause(
        None,
        "the machine's memory ran out",
        "End programs that need much memory, or stop and start the notebook, which ends everything that runs on it.",
    ),
    "crashes": Cause(
        None,
        "it ended by itself soon after it had started, more than once",
        "Look at the server extensions that ~/.jupyter names, and leave out the newest.",
    ),
    "system": Cause(
        None,
        "systemd could not start it",
        "Stop and start the notebook; if that does not help, tell your administrator.",
    ),
    "stopped": Cause(
        None,
        "its service was switched off on the machine",
        "Start it as root (Session Manager): systemctl start jupyter. Or stop and start the notebook.",
    ),
    "silent": Cause(
        None,
        "it runs but answers nothing; it may hang, or the machine may be overloaded",
        "Wait for what runs on it, or stop and start the notebook.",
    ),
    "ended": Cause(
        None,
        "it ended while it started, for a reason that is not known",
        "Look at the newest changes in ~/.jupyter.",
    ),
}

RETRY = "Then choose File, Shut Down in JupyterLab: the notebook comes back by itself, with your configuration."


def code_of(status: int) -> str | None:
    """The code that an exit status of the server stands for."""
    return next((code for code, cause in CAUSES.items() if cause.status == status), None)
