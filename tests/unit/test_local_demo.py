"""The set-up of `make demo`: what it has started ends with it."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from local import demo
from local.processes import tied
from local.settings import Settings
from local.stopped import Stopped


@pytest.mark.parametrize("begun", ["before", "after"])
def test_a_stop_while_it_downloads_does_not_wait_for_the_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, begun: str
) -> None:
    stopped, ended = threading.Event(), threading.Event()

    def prefetch(*_: Any) -> None:
        if begun == "after":
            stopped.wait(10)
            time.sleep(0.3)
        with subprocess.Popen(tied("sleep", "60")) as download:
            if begun == "before":
                stopped.set()
            download.wait()
            ended.set()

    def ensure_image(*_: Any) -> Path:
        if begun == "before":
            stopped.wait(10)
        stopped.set()
        raise Stopped

    monkeypatch.setattr(demo, "prefetch", prefetch)
    monkeypatch.setattr(demo, "ensure_image", ensure_image)
    run = demo.Demo(Settings.from_env({"NOD_CACHE_DIR": str(tmp_path)}, tmp_path), as_json=False)
    began = time.monotonic()
    with pytest.raises(Stopped):
        run._prepare()
    assert time.monotonic() - began < 20
    assert ended.is_set()
