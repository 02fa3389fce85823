"""Leaves a kernel's detached processes alone when the kernel ends.

What a cell starts with nohup (`subprocess.Popen(["nohup", "python", "train.py"])`) stays in the kernel's process
group. When a kernel is to end, jupyter_client signals that whole group, and ipykernel ends its children there. Here, a
kernel with such a process is ended by a signal of its own, and so is every other process of its group. A kernel without
one ends as Jupyter ends it. Interrupting a cell still reaches them all, as Ctrl-C does in a shell.

It leans on names of jupyter_client that are not public; where one is missing, kernels end as Jupyter ends them.
"""

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager
from jupyter_client.provisioning import LocalProvisioner

SIGHUP_BIT = 1 << (signal.SIGHUP - 1)


def group(pgid: int, proc: Path = Path("/proc")) -> dict[int, bool]:
    """The processes of a process group: whether each ignores SIGHUP, which is what nohup does."""
    found = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):
            stat = (folder / "stat").read_bytes()
            if int(stat[stat.rindex(b")") + 2 :].split()[2]) != pgid:
                continue
            lines = (folder / "status").read_bytes().split(b"\n")
            ignored = next(line.split()[1] for line in lines if line.startswith(b"SigIgn:"))
            found[int(folder.name)] = bool(int(ignored, 16) & SIGHUP_BIT)
    return found


def to_end(provisioner: Any) -> list[int] | None:
    """The processes of a kernel's group that must end with it; None: all of them, nothing is detached."""
    process, pgid = provisioner.process, provisioner.pgid
    if process is None or not pgid:
        return None
    its = group(pgid)
    # A kernel that ignores SIGHUP itself hands that on to all its children: then it says nothing.
    if its.get(process.pid, True) or not any(its.values()):
        return None
    return [pid for pid, ignores in its.items() if not ignores]


def spare() -> None:
    """From now on detached processes outlive the kernels of this process."""
    send_signal = LocalProvisioner.send_signal
    request_shutdown = KernelManager._async_request_shutdown

    async def send_signal_but_spare(self: Any, signum: int) -> None:
        is_interrupt = signum == signal.SIGINT and not getattr(self.parent, "shutting_down", False)
        ending = None if is_interrupt else to_end(self)
        if ending is None:
            await send_signal(self, signum)
            return
        for pid in ending:
            with contextlib.suppress(OSError):
                os.kill(pid, signum)

    async def request_shutdown_but_spare(self: Any, restart: bool = False) -> None:
        provisioner = self.provisioner
        if isinstance(provisioner, LocalProvisioner) and to_end(provisioner) is not None:
            # Asked to end, ipykernel would end its children first.
            await provisioner.terminate(restart=restart)
        else:
            await request_shutdown(self, restart=restart)

    LocalProvisioner.send_signal = send_signal_but_spare
    KernelManager._async_request_shutdown = request_shutdown_but_spare
