"""The benchmark of lean graphs, run small: what it prints and writes is complete."""

from __future__ import annotations

import json
from pathlib import Path

import lean_graphs
import pytest

SMALL = ("--height", "32", "--width", "48", "--rounds", "3", "--threads", "1")


def test_every_form_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three forms of three networks, each with all its rounds; a lean request is a quarter, and needs no numpy."""
    path = tmp_path / "results.json"
    assert lean_graphs.main([*SMALL, "--json", str(path)]) == 0
    cases = json.loads(path.read_text())["cases"]
    assert [case["form"] for case in cases] == 3 * ["TAO's graph", "pixels", "pixels, boxes"]
    assert {case["network"] for case in cases} == {"sample, 224×384", "one convolution, 32×48", "resnet18, 32×48"}
    for case in cases:
        assert len(case["total_ms"]) == len(case["run_ms"]) == (3 if case["network"].startswith("resnet") else 30)
        assert min(case["run_ms"]) > 0
    plain, pixels, boxes = cases[:3]
    assert 4 * 224 * 384 * 3 < plain["request_bytes"] < 4 * 224 * 384 * 3 + 300
    assert 224 * 384 * 3 < pixels["request_bytes"] < 224 * 384 * 3 + 300
    assert min(pixels["scale_ms"]) < min(plain["scale_ms"])
    assert min(boxes["decode_ms"]) < min(plain["decode_ms"])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 11
    assert table[2].startswith("| sample, 224×384 | TAO's graph | 1.03 MB |")


def test_results_that_differ_are_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is compared between forms that give the same bits, or not at all."""
    real = lean_graphs.absolute_boxes
    monkeypatch.setattr(lean_graphs, "absolute_boxes", lambda grid, params: real(grid, params) + 1)
    with pytest.raises(AssertionError):
        lean_graphs.main([*SMALL, "--rounds", "1"])
