"""Which saves are a person's: outputs come and go by themselves, sources do not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instance.files.saves import MOST_BYTES, MOST_PATHS, Saves, digest, on_disk


def notebook(*sources: Any, outputs: int = 0, kind: str = "code") -> dict[str, Any]:
    """A notebook with so many outputs in each cell."""
    cells = [{"cell_type": kind, "source": source, "outputs": [{"text": "x"}] * outputs} for source in sources]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def saved(saves: Saves, content: Any, path: str = "a.ipynb", before: Any = None) -> bool | None:
    saves.coming(path, {"type": "notebook", "content": content}, lambda: before)
    return saves.happened(path)


def test_outputs_are_no_writing_and_sources_are() -> None:
    saves = Saves()
    saved(saves, notebook("1"))
    assert saved(saves, notebook("1", outputs=3)) is False
    assert saved(saves, notebook("1", outputs=9)) is False
    assert saved(saves, notebook("12", outputs=9)) is True
    assert saved(saves, notebook("12", outputs=9)) is False


@pytest.mark.parametrize(
    "other",
    [
        notebook("b", "a"),
        notebook("a"),
        notebook("a", "b", ""),
        notebook("ab"),
        notebook("a", "b", kind="markdown"),
        notebook("a", "b\n"),
    ],
)
def test_order_number_and_kind_of_cells_are_a_persons(other: dict[str, Any]) -> None:
    saves = Saves()
    saved(saves, notebook("a", "b"))
    assert saved(saves, other) is True


def test_lines_in_a_file_and_text_from_a_page_are_the_same() -> None:
    assert digest(notebook(["a = 1\n", "b = 2"])) == digest(notebook("a = 1\nb = 2"))


def test_the_first_save_is_compared_with_the_file() -> None:
    assert saved(Saves(), notebook("a", outputs=2), before=notebook(["a"])) is False
    assert saved(Saves(), notebook("a b"), before=notebook(["a"])) is True


@pytest.mark.parametrize("before", [None, {}, [], {"cells": 1}, {"cells": [1]}, {"worksheets": []}])
def test_what_cannot_be_compared_is_a_persons_once(before: Any) -> None:
    saves = Saves()
    assert saved(saves, notebook("a"), before=before) is True
    assert saved(saves, notebook("a", outputs=1), before=before) is False


def test_a_text_file_is_saved_because_somebody_typed() -> None:
    saves = Saves()
    for content in ("a", "a", None):
        saves.coming("notes.md", {"type": "file", "content": content}, lambda: pytest.fail("it is not read"))
        assert saves.happened("notes.md") is True


def test_what_was_not_seen_coming_is_not_known() -> None:
    saves = Saves()
    assert saves.happened("a.ipynb") is None
    assert saved(saves, notebook("a")) is True
    assert saves.happened("a.ipynb") is None, "each save is told of once"


def test_a_slash_before_a_path_makes_no_other_file() -> None:
    saves = Saves()
    saved(saves, notebook("a"), path="/folder/a.ipynb")
    saves.coming("folder/a.ipynb", {"type": "notebook", "content": notebook("a")}, lambda: None)
    assert saves.happened("/folder/a.ipynb/") is False


def test_many_files_do_not_fill_the_memory() -> None:
    saves = Saves()
    for number in range(3 * MOST_PATHS):
        saves.coming(f"{number}.ipynb", {"type": "notebook", "content": notebook("a")}, lambda: None)
    assert len(saves._known) == len(saves._written) == MOST_PATHS
    # One that was forgotten is compared with its file again.
    assert saved(saves, notebook("a", outputs=1), path="0.ipynb", before=notebook("a")) is False


texts = st.text(st.characters(codec=None), max_size=20)


@settings(deadline=None)
@given(st.lists(texts, max_size=5), st.lists(texts, max_size=5))
def test_notebooks_are_the_same_when_their_sources_are(one: list[str], other: list[str]) -> None:
    assert (digest(notebook(*one)) == digest(notebook(*other, outputs=2))) is (one == other)


def test_a_file_is_read_within_bounds(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.ipynb").write_text(json.dumps(notebook("a")))
    assert on_disk(str(tmp_path), "/folder/a.ipynb") == notebook("a")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "long").write_text(" " * MOST_BYTES + "1")
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("fifo", "long", "deep", "bytes", "missing", "folder", "a\0b"):
        assert on_disk(str(tmp_path), name) is None, name
