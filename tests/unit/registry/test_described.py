"""Rows of ClearML's list of models."""

from __future__ import annotations

from typing import Any

import pytest

from tao2serve.registry.described import is_trained, own_epoch, training_task


def row(uri: str = "http://f/model.hdf5", **metadata: str) -> dict[str, Any]:
    return {"uri": uri, "task": "t", "metadata": {key: {"key": key, "value": value} for key, value in metadata.items()}}


@pytest.mark.parametrize(
    ("uri", "trained"),
    [
        ("http://f/run_09%253A01/model.HDF5", True),
        ("file:///workspace/model.tlt", True),
        ("s3://bucket/a.onnx", True),
        ("http://f/model.zip", False),
        ("http://f/uploading_file", False),
        ("", False),
    ],
)
def test_what_tao_trains_is_told_by_its_file(uri: str, trained: bool) -> None:
    """The ending of the path decides, whatever is quoted or asked for behind it."""
    assert is_trained(row(uri)) is trained
    assert not is_trained({**row(uri), "task": None})


def test_an_upload_that_was_cut_off_is_none() -> None:
    """The hash comes last: without it the file may not be whole."""
    assert not is_trained(row(registered_model="m", training_task="r"))
    assert is_trained(row(registered_model="m", training_task="r", sha256="0" * 64))
    assert training_task(row(training_task="r")) == "r"
    assert training_task(row()) == "t"


def test_the_epoch_a_model_names() -> None:
    """Metadata before the name of the file; the name of a folder, and what is no number, say nothing."""
    assert own_epoch(row("http://f/epoch-9/model.epoch-30.hdf5", epoch="7")) == (7, "metadata")
    assert own_epoch(row("http://f/epoch-9/model.epoch-30.hdf5", epoch="x")) == (30, "file name")
    assert own_epoch(row("http://f/x.hdf5", original_uri="file:///w/model.epoch-5.hdf5")) == (5, "file name")
    assert own_epoch(row("http://f/epoch-9/final.hdf5")) == (None, "")
    assert own_epoch({"uri": None, "metadata": None}) == (None, "")
