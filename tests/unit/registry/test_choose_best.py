"""Which of several trained models is the best, and the sentence that says why."""

from __future__ import annotations

from typing import Any

import pytest

from tao2serve.errors import InputError
from tao2serve.registry.trained import choose_best, score
from tao2serve.values import TrainedModel


def model(identifier: str, mean: float | None = None, **more: Any) -> TrainedModel:
    common = {
        "name": identifier,
        "task_id": "t",
        "task_name": "run",
        "project": "p",
        "tags": (),
        "uri": "http://f/m.hdf5",
    }
    source = "" if mean is None else "status.json"
    given = {"fetchable": True, "epoch": 10, "mean_average_precision": mean, "metric_source": source, **more}
    return TrainedModel(model_id=identifier, **{**common, **given})


def test_the_highest_metric_wins_and_the_reason_says_so() -> None:
    """The sentence has the number, its epoch and source, the next one, and how many had none."""
    best = choose_best([model("a", 0.5), model("b", 0.75), model("c")], subject="x")
    assert best.model.model_id == "b"
    assert best.reason == (
        "highest mean average precision of 3 models: 0.7500 at epoch 10 (from status.json), the next 0.5000, "
        "1 without a metric at their own epoch"
    )


def test_of_equals_what_can_be_fetched_then_what_is_pruned() -> None:
    """A tie goes to the model that can be served at once, then to the smaller one; the sentence says it was a tie."""
    tied = [model("a", 0.5, pruned=True, fetchable=False), model("b", 0.5), model("c", 0.5, pruned=True)]
    best = choose_best(tied, subject="x")
    assert best.model.model_id == "c"
    assert "2 more as good" in best.reason


def test_a_class_as_the_metric() -> None:
    """Case does not matter, and a class that no model was measured for names those there are."""
    models = [
        model("a", 0.9, average_precision=(("car", 0.1), ("Person", 0.2))),
        model("b", 0.1, average_precision=(("car", 0.7),)),
    ]
    best = choose_best(models, subject="x", metric="CAR")
    assert best.model.model_id == "b"
    assert "average precision for car" in best.reason
    assert score(models[0], "person") == 0.2
    with pytest.raises(InputError, match="bus") as caught:
        choose_best(models, subject="x", metric="bus")
    assert caught.value.evidence == "known: mAP, Person, car"


def test_nothing_to_choose_by() -> None:
    """No model, or several without a metric, is an InputError; one alone needs none; a note is in the reason."""
    with pytest.raises(InputError, match="no trained TAO model"):
        choose_best([], subject="x")
    with pytest.raises(InputError, match="no metric to choose by"):
        choose_best([model("a"), model("b")], subject="x")
    assert choose_best([model("a")], subject="x").reason == "the only trained model"
    noted = choose_best(
        [model("a", 0.5, metric_note="status.json says 0.5, console says 0.4"), model("b")], subject="x"
    )
    assert noted.reason.endswith("status.json says 0.5, console says 0.4")
