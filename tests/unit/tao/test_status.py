"""TAO's status.json becomes typed values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tao2serve.errors import InputError
from tao2serve.tao.status import read_status

EVALUATION = {"mean average precision": 61.5, "validation cost": 0.00042}
LINES = [
    {"date": "5/3/2024", "time": "9:1:2", "status": "STARTED", "verbosity": "INFO", "message": "Starting"},
    {"status": "RUNNING", "epoch": 9, "max_epoch": 20, "graphical": {"loss": 0.1, "learning_rate": 5e-4}},
    {
        "status": "RUNNING",
        "message": "Evaluation metrics generated.",
        "kpi": EVALUATION,
        "categorical": {"average_precision": {"car": 80.0, "person": 43.0}},
    },
    {"status": "RUNNING", "epoch": 19, "max_epoch": 20, "kpi": EVALUATION},
    {
        "status": "RUNNING",
        "message": "Evaluation metrics generated.",
        "kpi": {"mean average precision": 78.5, "validation cost": 0.0003},
        "categorical": {"average_precision": {"car": 85.0, "person": 72.0}},
    },
    {"status": "SUCCESS", "kpi": {"size": 42.5, "param_count": 11.2}},
]


@pytest.fixture
def status_json(tmp_path: Path) -> Path:
    path = tmp_path / "status.json"
    path.write_text("\n".join(json.dumps(line) for line in LINES))
    return path


def test_every_evaluation_once_as_ratios(status_json: Path) -> None:
    """Precision is a ratio; a value TAO repeats on later lines is not a further evaluation; the line that follows the
    first step of epoch 9, counted from 0, evaluates 10 finished epochs."""
    status = read_status(status_json)
    assert [(x.epoch, x.mean_average_precision) for x in status.evaluations] == [(10, 0.615), (20, 0.785)]
    assert status.best is not None
    assert status.best is status.latest
    assert status.best.average_precision == {"car": 0.85, "person": 0.72}
    assert status.best.validation_cost == 0.0003
    assert status.param_count_millions == 11.2
    assert status.records[1].learning_rate == 5e-4
    assert status.succeeded
    assert status.skipped_lines == 0


def test_a_live_file_may_end_in_half_a_line(status_json: Path) -> None:
    """Lines that are not JSON objects are counted and left out."""
    status_json.write_text(status_json.read_text()[:-10])
    status = read_status(status_json)
    assert status.skipped_lines == 1
    assert not status.succeeded
    assert len(status.evaluations) == 2


def test_odd_values_are_none(tmp_path: Path) -> None:
    """Values of the wrong type or range read as None, never as a traceback."""
    path = tmp_path / "status.json"
    odd = {"mean average precision": float("nan"), "validation cost": "much", "param_count": [1]}
    path.write_text(json.dumps({"kpi": odd, "epoch": True, "categorical": 3, "date": 4}))
    record = read_status(path).records[0]
    assert record.mean_average_precision is record.validation_cost is record.param_count_millions is None
    assert record.epoch is None
    assert not read_status(path).evaluations


def test_files_without_status(tmp_path: Path) -> None:
    """A missing file, and one without a record, are InputErrors."""
    with pytest.raises(InputError, match="cannot be read"):
        read_status(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("hello\n[1]\n")
    with pytest.raises(InputError, match="no status"):
        read_status(tmp_path / "other.json")
