"""What the local cloud can fail with. One sentence each, which says what to do.

LocalError
├── PreflightError   this machine cannot run the local cloud as it is
├── ImageError       the machine image could not be made
├── InstallerError   the stand-in installer could not be made
├── NetworkError     a network namespace or one of its sockets could not be made
└── MachineError     a machine did not do what was asked of it
"""


class LocalError(Exception):
    """Any failure of the local cloud itself; its text is meant for the person who started it."""


class PreflightError(LocalError):
    """This machine cannot run the local cloud as it is."""


class ImageError(LocalError):
    """The machine image could not be made."""


class InstallerError(LocalError):
    """The stand-in installer could not be made."""


class NetworkError(LocalError):
    """A network namespace, or a socket in one, could not be made."""


class MachineError(LocalError):
    """A machine did not do what was asked of it."""
