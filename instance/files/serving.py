"""Whether this process serves, known to all of the server's modules of ours."""

import os


class Serving:
    """Since when this process has served (seconds of CLOCK_BOOTTIME; None: not yet), and which server extensions and
    files of its owner it runs without."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.left_out: list[str] = []


SERVING = Serving()

# Of the start alone: kernels and terminals are to find the owner's own folders.
_OF_THE_START = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "TRAITLETS_APPLICATION_RAISE_CONFIG_FILE_ERROR")


def forget_folders() -> None:
    """Takes out of the environment what was for the start alone, once the server has read it."""
    for name in _OF_THE_START:
        os.environ.pop(name, None)
