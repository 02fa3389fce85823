"""Machines that only say what they are told to: for the paths of the workflows, where no machine matters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instance.build import documents
from local.machines import Completed

FINGERPRINT = ":".join(["AB"] * 32)
RESULTS: dict[str, dict[str, Any]] = {
    "prepare-instance": {"ok": True, "free_mib": 20_000},
    "install-anaconda": {"ok": True, "prefix": "/opt/anaconda3", "installer": "scripted"},
    "configure-tls": {"ok": True, "certificate_sha256": FINGERPRINT, "names": []},
    "start-monitor": {"ok": True},
    "configure-notebook": {"ok": True, "certificate_sha256": FINGERPRINT, "seconds": 1},
    "set-password": {"ok": True},
    "probe-monitor": {"ok": True, "monitor": "active", "boot_id": "0" * 32},
}


class ScriptedMachine:
    def __init__(self, house: ScriptedMachines, instance_id: str, address: str) -> None:
        self.house = house
        self.instance_id = instance_id
        self.address = address
        self.console = Path("/dev/null")
        self.running = False
        self.on_power_off: Callable[[], None] | None = None
        self._scripts: dict[str, str] = {}

    def boot(self) -> None:
        if self.house.broken:
            raise OSError("the machine does not boot")
        self.running = True
        if self.house.on_boot is not None:
            self.house.on_boot(self)

    def shut_down(self, timeout: float = 20) -> None:
        self.running = False
        time.sleep(self.house.stopping)

    def reboot(self) -> None:
        self.running = True

    def destroy(self) -> None:
        self.running = False
        self.house.gone.append(self.instance_id)

    def move_to(self, address: str) -> None:
        self.address = address

    def power_off_from_inside(self) -> None:
        self.running = False
        assert self.on_power_off is not None
        threading.Thread(target=self.on_power_off, daemon=True).start()

    def write_file(self, path: str, data: bytes, mode: int = 0o600) -> None:
        self._scripts[path] = data.decode()

    def read_file(self, path: str) -> bytes:
        return self._scripts[path].encode()

    def run(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float | None = None
    ) -> Completed:
        script = self._scripts.get(argv[-1])
        if script is None or argv[0] == "rm":
            return Completed(0, "", "", False)
        name = self.house.name_of(script)
        with self.house.lock:
            self.house.ran.append((self.instance_id, name, dict(env or {})))
            result = self.house.results[name]
        end = time.monotonic() + self.house.seconds.get(name, 0.05)
        while time.monotonic() < end:
            if not self.running:
                return Completed(137, "", "", False)
            time.sleep(0.02)
        if isinstance(result, str):
            return Completed(1, result, "", False)
        return Completed(0 if result.get("ok") else 1, json.dumps(result) + "\n", "", False)


class ScriptedMachines:
    """Stands where local.machines.Machines stands; `results`, `seconds`: what each document comes to. `on_boot` is
    called with each machine that boots, `broken` ones do not; `stopping` is how many seconds one takes to go off."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.results: dict[str, dict[str, Any] | str] = dict(RESULTS)
        self.seconds: dict[str, float] = {}
        self.ran: list[tuple[str, str, dict[str, str]]] = []
        self.gone: list[str] = []
        self.broken = False
        self.stopping = 0.0
        self.on_boot: Callable[[ScriptedMachine], None] | None = None
        self.made: list[ScriptedMachine] = []
        self._names = {_script(content): name for name, content in documents().items()}

    def name_of(self, script: str) -> str:
        return self._names[script.strip()]

    def create(
        self,
        instance_id: str,
        address: str,
        metadata: Callable[[str], str | None],
        *,
        disk_mib: int | None = None,
    ) -> ScriptedMachine:
        machine = ScriptedMachine(self, instance_id, address)
        self.made.append(machine)
        return machine

    def sweep_leftovers(self) -> list[str]:
        return []

    def close(self) -> None:
        for machine in self.made:
            machine.running = False


def _script(content: Mapping[str, Any]) -> str:
    lines = content["mainSteps"][0]["inputs"]["runCommand"]
    return ("\n".join([lines] if isinstance(lines, str) else lines)).strip()
