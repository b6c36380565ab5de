"""Reading a results folder: what is found, and what is refused."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from results_folders import console, copied, with_checkpoints

from tao2serve.errors import InputError
from tao2serve.tao.results import read_results

OTHER_NETWORK = """
ssd_config { arch: "resnet" nlayers: 18 }
training_config { batch_size_per_gpu: 16 num_epochs: 80 }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("unpruned", tmp_path / "results")


def test_all_that_tao_leaves_is_found(folder: Path) -> None:
    """Checkpoints by epoch, final weights last, TAO's own copy of the spec, status.json, begin and end."""
    with_checkpoints(folder, (14, 8))
    found = read_results(folder)
    assert [(file.path.name, file.role, file.epoch) for file in found.weights] == [
        ("model.epoch-8.hdf5", "checkpoint", 8),
        ("model.epoch-14.hdf5", "checkpoint", 14),
        ("resnet10_street.hdf5", "final", None),
    ]
    assert found.spec_path == folder / "experiment_spec.txt"
    assert (found.begun, found.ended_well) == (datetime(2026, 11, 23, 8, 38, 40), True)
    assert found.notes == ()


def test_the_weights_folder_stands_for_its_results(folder: Path) -> None:
    """Given <results>/weights, the results folder is meant."""
    assert read_results(folder / "weights").folder == folder.resolve()


@pytest.mark.parametrize("name", ["spec.txt", "detectnet_v2_train_resnet18_kitti.txt", "specs/train.cfg"])
def test_a_spec_of_another_name_is_found_by_what_it_is(folder: Path, name: str) -> None:
    """One text that reads like a training spec is the spec; of several none is taken."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / "experiment_spec.txt").rename(folder / name)
    (folder / "notes.txt").write_text("model_config and cost_function_config are in the spec")
    assert read_results(folder).spec_path == (folder / name).resolve()
    (folder / "another.txt").write_text((folder / name).read_text())
    with pytest.raises(InputError, match="several texts") as caught:
        read_results(folder)
    assert "--spec" in caught.value.hint


def test_the_log_beside_it_is_read(folder: Path) -> None:
    """The one file that holds TAO's evaluations is the console log, whatever it is called."""
    (folder / "nohup.out").write_text(console(folder))
    (folder / "other.log").write_text("nothing of TAO's")
    found = read_results(folder)
    assert found.log == (folder / "nohup.out").resolve()
    assert [one.epoch for one in found.console] == list(range(2, 17, 2))


def test_without_any_evaluation_that_is_said(folder: Path) -> None:
    """No status.json and no log: a note, and no error; a log that is given and holds none is named."""
    (folder / "status.json").unlink()
    assert "ClearML will know no mAP" in read_results(folder).notes[0]
    (folder / "empty.log").write_text("nothing")
    assert "holds no evaluation" in read_results(folder, log=folder / "empty.log").notes[0]


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        ("no weights", "holds no weights of a DetectNet_v2 training"),
        ("no spec", "holds no experiment spec"),
        ("inference spec", "is a spec for inference"),
        ("other classes", "is not the spec of this training"),
        ("missing", "does not exist"),
        ("file", "is a file"),
    ],
)
def test_what_is_no_such_folder_is_refused(folder: Path, golden: Path, damage: str, fact: str) -> None:
    """Each refusal is exit 3, says what is there, and what is to be given."""
    spec: Path | None = None
    if damage == "no weights":
        (folder / "weights" / "resnet10_street.hdf5").unlink()
    elif damage == "no spec":
        (folder / "experiment_spec.txt").unlink()
    elif damage == "inference spec":
        spec = golden / "specs" / "tao_tutorials_5.5" / "detectnet_v2_inference_kitti_tlt.txt"
    elif damage == "other classes":
        spec = golden / "specs" / "tao_tutorials_5.5" / "detectnet_v2_train_resnet18_kitti.txt"
    elif damage == "missing":
        folder = folder / "nowhere"
    else:
        folder = folder / "status.json"
    with pytest.raises(InputError) as caught:
        read_results(folder, spec=spec)
    assert fact in caught.value.fact
    assert caught.value.exit_code == 3
    assert caught.value.hint


def test_another_networks_spec_is_refused(folder: Path) -> None:
    """A folder of SSD, say, is not adopted as if it were DetectNet_v2."""
    (folder / "experiment_spec.txt").write_text(OTHER_NETWORK)
    with pytest.raises(InputError):
        read_results(folder)


def test_a_folder_above_names_the_ones_below(folder: Path) -> None:
    """Given the experiment's folder, the hint names the results folders in it."""
    with pytest.raises(InputError) as caught:
        read_results(folder.parent)
    assert str(folder.resolve()) in caught.value.hint


def test_other_numbers_of_epochs_are_said(folder: Path) -> None:
    """A spec for another number of epochs than status.json names may be another run's."""
    lines = [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]
    text = "\n".join(json.dumps({**line, **({"max_epoch": 80} if "max_epoch" in line else {})}) for line in lines)
    (folder / "status.json").write_text(text)
    assert "16 epochs, status.json for 80" in read_results(folder).notes[0]
