"""The benchmarks print true figures at the edges too."""

from __future__ import annotations

import pytest

from benchmarks import sweep


@pytest.mark.parametrize("stops", [0, 1, 1000])
def test_few_stops_or_none_have_a_figure(stops: int, capsys: pytest.CaptureFixture[str]) -> None:
    with sweep.quiet():
        sweep.drain(stops)
    said = capsys.readouterr().out
    assert f"sweep: {stops:,} stops took" in said
    assert "EC2's own limits take none of it" in said
