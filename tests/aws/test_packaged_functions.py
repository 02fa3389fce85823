"""Every function as it is packaged, in a bare Python with the runtime's packages alone, answers an event that the
local cloud was seen to hand it, against that cloud's AWS APIs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cold
from tests.aws.packaged import lay_out


def test_every_packaged_function_answers_a_recorded_event(tmp_path: Path) -> None:
    task, runtime = lay_out(tmp_path)
    with cold.recorded(tmp_path) as (cloud, events):
        env = cold.bare_python(cloud, task, runtime)
        for number, ((function, route), (handler, event)) in enumerate(sorted(events.items(), key=lambda one: one[0])):
            path = tmp_path / f"event{number}.json"
            path.write_text(json.dumps(event))
            # Ends the test with what the function wrote, should it raise, miss a module or answer with a 5xx.
            assert cold.once("function", handler, str(path), env=env)["seconds"] > 0, f"{function} {route}"
        handlers = {handler for handler, _ in events.values()}
        assert len(handlers) == len(json.loads((cold.ROOT / ".chalice/config.json").read_text())["lambda_functions"])
        # A function that is not there does not pass unnoticed.
        with pytest.raises(SystemExit, match="no_such"):
            cold.once("function", "app:no_such", str(path), env=env)
