"""What moto complains of belongs in a file: a logger without a handler would write between a person's lines."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from local.logs import Logs


def test_what_moto_says_goes_to_its_file_and_nowhere_else(tmp_path: Path) -> None:
    moto = logging.getLogger("moto.stepfunctions.parser.asl.component.eval_component")
    elsewhere: list[logging.LogRecord] = []
    root = logging.Handler()
    root.emit = elsewhere.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(root)
    logs = Logs(tmp_path)
    try:
        moto.error("Exception=NoSuchJsonPathError")
        moto.info("a request with its parameters")
    finally:
        logs.close()
        logging.getLogger().removeHandler(root)
    lines = [json.loads(line) for line in (tmp_path / "moto.log").read_text().splitlines()]
    assert [line["message"] for line in lines] == ["Exception=NoSuchJsonPathError"]
    assert elsewhere == []
    moto.error("after the end")
    assert "after the end" not in (tmp_path / "moto.log").read_text()
