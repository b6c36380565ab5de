"""What is refused before ClearML is asked anything."""

from __future__ import annotations

import os
import re
from pathlib import Path

import h5py
import pytest
from results_folders import copied

from tao2serve.adoption import AdoptionRequest, adopt_results
from tao2serve.errors import InputError, UsageError
from tao2serve.steps import Steps


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied("unpruned", tmp_path / "results")


@pytest.fixture(autouse=True)
def without_clearml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody answers where ClearML is said to be, so that whoever asks it fails."""
    for name in ("CLEARML_API_ACCESS_KEY", "CLEARML_API_SECRET_KEY"):
        monkeypatch.setenv(name, "nobody's")
    monkeypatch.setenv("CLEARML_API_HOST", "http://127.0.0.1:1")
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "none.conf"))


def adopt(folder: Path, project: str = "street", task: str = "train") -> None:
    adopt_results(AdoptionRequest(folder=folder, project=project, task=task), steps=Steps())


@pytest.mark.parametrize(
    ("before", "after", "seen"),
    [
        ("output_image_width: 384", "output_image_width: 960", "input as (C, H, W)"),
        ("output_image_channel: 3", "output_image_channel: 1", "input as (C, H, W)"),
    ],
)
def test_a_spec_that_does_not_fit_the_weights_is_refused(folder: Path, before: str, after: str, seen: str) -> None:
    """Exit 3, with both sides: it would be deployed with wrong boxes."""
    spec = folder / "experiment_spec.txt"
    spec.write_text(spec.read_text().replace(before, after))
    with pytest.raises(InputError, match="does not belong to the experiment spec") as caught:
        adopt(folder)
    assert seen in caught.value.evidence
    assert caught.value.exit_code == 3


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    """A Keras file that is no DetectNet_v2, and one that is no Keras file, end with exit 3 and their name."""
    weights = folder / "weights" / "resnet10_street.hdf5"
    with h5py.File(weights, "w") as file:
        file.attrs["model_config"] = "{}"
    with pytest.raises(InputError) as caught:
        adopt(folder)
    assert weights.name in caught.value.subject
    weights.write_bytes(b"no weights at all")
    with pytest.raises(InputError):
        adopt(folder)


def test_names_come_from_the_spec_where_none_is_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Project and task of clearml_config count; without either they must be named, in more than two letters."""
    spec = folder / "experiment_spec.txt"
    text = spec.read_text()
    monkeypatch.delenv("CLEARML_API_ACCESS_KEY")
    with pytest.raises(UsageError, match="ClearML is not configured"):  # which comes after the names
        adopt(folder, project="", task="")
    for project, seen in (("ab", ""), ("street/ab/x", "'ab'"), ("street//x", "''")):
        with pytest.raises(UsageError, match="3 characters") as caught:
            adopt(folder, project=project)
        assert caught.value.evidence == seen
    with pytest.raises(UsageError, match="3 characters"):
        adopt(folder, task="ab")
    request = AdoptionRequest(folder=folder, project="street", task="train", tags=("street", " "))
    with pytest.raises(UsageError, match="--tag is empty"):
        adopt_results(request, steps=Steps())
    spec.write_text(re.sub(r"clearml_config \{[^}]*\}", "", text))
    for project, task, option in (("", "train", "--project"), ("street", "", "--task")):
        with pytest.raises(UsageError, match=f"{option} is missing"):
            adopt(folder, project=project, task=task)


def test_no_weights_are_read_where_clearml_is_not_configured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be gigabytes: wrong ones are not looked at."""
    for weights in folder.rglob("*.hdf5"):
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError):
        adopt(folder)
    monkeypatch.delenv("CLEARML_API_ACCESS_KEY")
    with pytest.raises(UsageError, match="ClearML is not configured"):
        adopt(folder)


def test_a_log_that_would_never_end_is_refused(folder: Path) -> None:
    """A pipe into which nobody writes, and a device that goes on for ever, are no log."""
    os.mkfifo(folder / "pipe")
    for log in (folder / "pipe", Path("/dev/zero"), folder, folder / "none.log"):
        request = AdoptionRequest(folder=folder, log=log, project="street", task="train")
        with pytest.raises(InputError, match=r"is no file|does not exist"):
            adopt_results(request, steps=Steps())
