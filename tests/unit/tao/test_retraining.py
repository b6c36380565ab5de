"""The spec of a retraining loads the pruned model, and is else that of the training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao2serve.errors import InputError
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.tao.retraining import require_loads, retraining_spec
from tao2serve.tao.spec import read_spec

SPEC = SAMPLE / "unpruned" / "experiment_spec.txt"


def test_it_loads_the_pruned_model(tmp_path: Path) -> None:
    """Model and graph are loaded, the tag says pruned, and all else reads as before; it is what is required."""
    made = tmp_path / "spec.txt"
    made.write_text(retraining_spec(SPEC, pruned="/workspace/a b.hdf5"))
    before, after = read_spec(SPEC), read_spec(made)
    assert after.model is not None
    assert (after.model.pretrained_model_file, after.model.load_graph) == ("/workspace/a b.hdf5", True)
    assert after.clearml is not None
    assert before.clearml is not None
    assert after.clearml.tags == (*(tag for tag in before.clearml.tags if tag != "unpruned"), "pruned")
    assert (after.handling, after.classes, after.input) == (before.handling, before.classes, before.input)
    require_loads(made, pruned="/workspace/a b.hdf5")
    with pytest.raises(InputError, match="would not retrain the pruned model") as caught:
        require_loads(made, pruned="/workspace/other.hdf5")
    assert 'pretrained_model_file: "/workspace/other.hdf5"' in caught.value.hint


def test_without_tracking_nothing_is_added(tmp_path: Path) -> None:
    """A spec that is not tracked stays so."""
    spec = tmp_path / "spec.txt"
    spec.write_text('model_config { arch: "resnet" }\ntraining_config { num_epochs: 3 }\n')
    expected = 'model_config { arch: "resnet" pretrained_model_file: "/p.hdf5" load_graph: true }\n'
    assert retraining_spec(spec, pruned="/p.hdf5").splitlines(keepends=True)[0] == expected
    with pytest.raises(InputError):
        require_loads(spec, pruned="/p.hdf5")
