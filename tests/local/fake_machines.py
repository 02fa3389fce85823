"""Machines without a machine, for tests of the local cloud itself: commands are processes of this host, in a folder."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from local.agent import ROOT
from local.machines import Completed


class FakeMachine:
    """Has the interface of local.machines.Machine; the agent's folder is inside `folder`."""

    def __init__(self, folder: Path, instance_id: str, address: str, metadata: Callable[[str], str | None]) -> None:
        self.folder = folder
        self.instance_id = instance_id
        self.address = address
        self.metadata = metadata
        self.running = False
        self.done: list[str] = []
        self.on_power_off: Callable[[], None] | None = None

    def boot(self) -> None:
        self.done.append("boot")
        self.running = True

    def shut_down(self, timeout: float = 20) -> None:
        self.done.append("shut_down")
        self.running = False

    def reboot(self) -> None:
        self.done.append("reboot")

    def destroy(self) -> None:
        self.done.append("destroy")
        self.running = False

    def move_to(self, address: str) -> None:
        self.address = address

    def power_off_from_inside(self) -> None:
        self.running = False
        assert self.on_power_off is not None
        threading.Thread(target=self.on_power_off, daemon=True).start()

    def _inside(self, text: str) -> str:
        return text.replace(ROOT, f"{self.folder}{ROOT}")

    def write_file(self, path: str, data: bytes, mode: int = 0o600) -> None:
        inside = Path(self._inside(path))
        inside.write_bytes(data)
        inside.chmod(mode)

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Completed:
        command = [self._inside(word) for word in argv]
        environment = {"PATH": os.environ["PATH"], **(env or {})}
        try:
            done = subprocess.run(
                command, env=environment, timeout=timeout, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired:
            return Completed(137, "", "", True)
        return Completed(done.returncode, done.stdout, done.stderr, False)


class FakeMachines:
    """Has the interface of local.machines.Machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machines: dict[str, FakeMachine] = {}
        self.disks: dict[str, int | None] = {}
        self.closed = False

    def create(
        self, instance_id: str, address: str, metadata: Callable[[str], str | None], *, disk_mib: int | None = None
    ) -> Any:
        machine = FakeMachine(self.folder / instance_id, instance_id, address, metadata)
        machine.folder.mkdir(parents=True)
        self.machines[instance_id] = machine
        self.disks[instance_id] = disk_mib
        return machine

    def sweep_leftovers(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True
