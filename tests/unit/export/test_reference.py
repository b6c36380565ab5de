"""The numpy reading of Keras computes in bands, which must not show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keras_files import KerasFile

from tao2serve.errors import InputError
from tao2serve.export import reference
from tao2serve.export.graph.convolutions import convolution
from tao2serve.export.graph.fragment import Value
from tao2serve.tao.hdf5 import read_keras_hdf5


@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 2)])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_bands_do_not_change_a_convolution(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strides: tuple[int, int],
    dilation: tuple[int, int],
    padding: str,
) -> None:
    """One output row at a time, three at a time, or the whole image at once: the same numbers, batch or not."""
    file = KerasFile(input_chw=(3, 23, 31))
    x = file.conv(
        "conv1", file.input, 3, 5, kernel=(5, 3), strides=strides, dilation=dilation, padding=padding, activation="relu"
    )
    file.heads(x, 5)
    model = read_keras_hdf5(file.write(tmp_path / "model.hdf5"))
    images = np.random.default_rng(1).random((2, 3, 23, 31), dtype=np.float32)
    whole = reference.forward(model, images)
    columns = whole.bbox.shape[3]
    for rows in (1, 3):
        monkeypatch.setattr(reference, "_BAND_ELEMENTS", rows * columns * 5 * 3 * 3)
        banded = reference.forward(model, images)
        np.testing.assert_allclose(banded.bbox, whole.bbox, rtol=0, atol=1e-5)
        np.testing.assert_allclose(banded.coverage, whole.coverage, rtol=0, atol=1e-5)


def test_a_kernel_of_another_form_is_refused(tmp_path: Path) -> None:
    """Nine rows by one are not read as three by three, although the numbers are as many."""
    file = KerasFile()
    x = file.conv("conv1", file.input, 3, 4)
    name, kernel = file.weights["conv1"][0]
    file.weights["conv1"][0] = (name, kernel.reshape(9, 1, 3, 4))
    file.heads(x, 4)
    model = read_keras_hdf5(file.write(tmp_path / "model.hdf5"))
    with pytest.raises(InputError, match="does not fit its inputs"):
        reference.forward(model, np.zeros((1, 3, 32, 48), np.float32))


def test_forward_leaves_images_and_weights_as_they_are(tmp_path: Path) -> None:
    """Arithmetic in place happens on results only, so a model and its images can be used again."""
    file = KerasFile()
    x = file.batch_norm("bn", file.input, 3)
    file.heads(file.conv("conv1", x, 3, 4), 4)
    model = read_keras_hdf5(file.write(tmp_path / "model.hdf5"))
    images = np.random.default_rng(0).random((1, 3, 32, 48), dtype=np.float32)
    before = images.copy()
    first = reference.forward(model, images)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(reference.forward(model, images).bbox, first.bbox)


def test_the_graph_holds_views_of_the_weights_it_was_given(tmp_path: Path) -> None:
    """An export does not copy the weights before the ONNX model is put together."""
    file = KerasFile()
    file.heads(file.conv("conv1", file.input, 3, 4), 4)
    model = read_keras_hdf5(file.write(tmp_path / "model.hdf5"))
    layer = next(x for x in model.layers if x.name == "conv1")
    made = convolution(layer, (Value(name="input_1:0", shape=(3, 32, 48)),))
    assert [x.name for x in made.constants] == ["conv1/kernel:0", "conv1/bias:0"]
    for constant, weight in zip(made.constants, layer.weights, strict=True):
        assert np.shares_memory(constant.values, weight.values)
