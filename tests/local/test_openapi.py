"""The served API against its own description, with generated requests, good and bad."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from local.cloud import Cloud
from local.delays import Delays
from tests.local.person import Person
from tests.local.scripted import ScriptedMachines

ROOT = Path(__file__).resolve().parents[2]
DELAYS = Delays(visible=0, pending=0.1, agent=0.1, stopping=0.1, invocation=0)


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with Cloud(state=tmp_path / "cloud", api_port=0, aws_port=0, delays=DELAYS, machines=ScriptedMachines()) as cloud:
        ready = Person(cloud.api_url, cloud.token)
        assert ready.request(name="known").status_code == 202
        run = subprocess.run(
            [
                str(Path(sys.executable).with_name("schemathesis")),
                "--config-file",
                str(ROOT / "schemathesis.toml"),
                "run",
                f"{cloud.api_url}/openapi.json",
                "--header",
                f"Authorization: Bearer {cloud.token}",
                "--checks=all",
                "--max-examples=25",
                "--seed=1",
                "--workers=1",
                "--no-color",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert run.returncode == 0, run.stdout[-6000:]
    count = re.search(r"(\d+) generated, (\d+) passed", run.stdout)
    assert count, run.stdout[-3000:]
    assert int(count[1]) > 300
    assert count[1] == count[2]
