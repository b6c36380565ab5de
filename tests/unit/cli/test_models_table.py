"""The table of `models` for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tao2serve.cli.main import run
from tao2serve.cli.models import models_document, models_table, none_found
from tao2serve.registry import trained
from tao2serve.registry.trained import Selectors, choose_best
from tao2serve.values import Lineage, MetricReading, TrainedModel

ID = "0123456789abcdef0123456789abcde"
PATH = "/workspace/tao-experiments/street_detector/experiment_dir_unpruned/weights/model.epoch-8.hdf5"


def model(number: int, **more: Any) -> TrainedModel:
    given = {
        "name": f"resnet18_detector_pruned_{number}",
        "task_id": "t",
        "task_name": "detectnet_v2_retrain_23/26/11_08:38:40",
        "project": "Street/detectors",
        "tags": (),
        "uri": "https://me:secret@files.example.com/Street/model.hdf5",
        "fetchable": True,
        "epoch": 120,
        "mean_average_precision": 0.9 - number / 100,
        "metric_source": "status.json",
        "task_status": "completed",
        **more,
    }
    return TrainedModel(model_id=f"{ID}{number}", **given)


MODELS = (
    model(0),
    model(1, uri=f"file://{PATH}", fetchable=False, unfetchable_reason="not here", metric_note="scalars say 0.1"),
    model(2, lineage=Lineage(evidence=("spec: load_graph true", "against it: tag unpruned"))),
    model(3, uri=f"file://{PATH}", fetchable=False, unfetchable_reason="not here"),
)


@pytest.mark.parametrize("width", [88, 100, 160])
def test_it_fits_and_says_all(width: int) -> None:
    """No line is longer than the terminal; ids are whole; paths, remedies and reasons are there in full."""
    text = models_table(MODELS, choose_best(MODELS, subject="x"), metric="", why_none="", width=width)
    assert max(map(len, text.splitlines())) <= width
    for one in MODELS:
        assert one.model_id in text
    unwrapped = "".join(text.split())
    assert PATH[:30] in unwrapped
    assert "CLEARML_DEFAULT_OUTPUT_URI" in unwrapped
    assert "--weightsFILE--specFILE" in unwrapped
    assert "highestmeanaverageprecisionof4models:0.9000atepoch120(fromstatus.json),thenext0.8900" in unwrapped
    assert "againstit:tagunpruned" in unwrapped
    assert "secret" not in text


def test_the_same_note_is_there_once() -> None:
    """Two models by path share a note."""
    text = models_table(MODELS, None, metric="", why_none="has no metric to choose by", width=160)
    assert text.count("never uploaded") == 1
    assert text.splitlines()[-1].strip() == "no best model: has no metric to choose by"


def test_the_document_is_json_with_the_evidence() -> None:
    """Precisions by class are objects, of each reading too; the best is marked."""
    reading = MetricReading(source="console", mean_average_precision=0.5, average_precision=(("car", 0.5),))
    models = (model(0, average_precision=(("car", 0.5),), readings=(reading,)), model(1))
    document = models_document(models, choose_best(models, subject="x"))
    first, second = document["models"]
    assert (first["best"], second["best"]) == (True, False)
    assert first["average_precision"] == first["readings"][0]["average_precision"] == {"car": 0.5}
    assert first["lineage"]["input_models"] == ()


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (Selectors(), "No trained TAO model is in ClearML."),
        (Selectors(tags=("nosuch",)), "No trained TAO model has tag 'nosuch'."),
        (
            Selectors(project="street", task="re.*", tags=("a", "b")),
            "No trained TAO model is in project 'street', comes from a task whose name fits 're.*', has tag 'a' "
            "and has tag 'b'.",
        ),
    ],
)
def test_an_empty_list_says_what_was_asked_for(chosen: Selectors, sentence: str) -> None:
    """A sentence that names each filter, not an empty table."""
    assert none_found(chosen) == sentence


def test_an_empty_list_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 0 with the sentence; with --json an empty list."""
    monkeypatch.setenv("TAO2SERVE_HOME", str(tmp_path))
    monkeypatch.setattr(trained, "find_trained_models", lambda _selectors: ())
    assert run(["models", "--tag", "nosuch"]) == 0
    assert capsys.readouterr().out == "No trained TAO model has tag 'nosuch'.\n"
    assert run(["models", "--tag", "nosuch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"models": [], "reason": ""}
