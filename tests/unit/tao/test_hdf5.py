"""Keras HDF5 files become frozen values, and damaged or hostile ones an InputError."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_files import KerasFile, tiny_resnet, write_keras

from tao2serve.errors import InputError
from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import open_model, sample_images
from tao2serve.export.parity import check_parity
from tao2serve.tao.hdf5 import read_keras_hdf5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_resnet(tmp_path / "model.hdf5")


def test_layers_come_in_order_with_their_weights(source: Path) -> None:
    """Layers, what feeds them and their weights are there, read-only."""
    model = read_keras_hdf5(source)
    by_name = {layer.name: layer for layer in model.layers}
    assert model.inputs == ("input_1",)
    assert (model.coverage, model.bbox) == ("output_cov", "output_bbox")
    assert by_name["add_1"].inbound == ("block_1a_bn_1", "block_1a_conv_shortcut")
    assert [w.name for w in by_name["conv1"].weights] == ["conv1/kernel:0", "conv1/bias:0"]
    with pytest.raises(ValueError, match="read-only"):
        by_name["conv1"].weights[0].values[0] = 0
    with pytest.raises(FrozenInstanceError):
        model.name = "other"  # type: ignore[misc]


def test_attributes_may_be_bytes(tmp_path: Path) -> None:
    """Files of h5py 2, whose attributes are bytes, read like those of h5py 3."""
    file = KerasFile()
    file.heads(file.conv("conv1", file.input, 3, 4), 4)
    first = read_keras_hdf5(file.write(tmp_path / "bytes.hdf5", as_bytes=True))
    second = read_keras_hdf5(file.write(tmp_path / "text.hdf5"))
    assert first.keras_version == second.keras_version == "2.2.4"
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]


def test_weight_names_are_followed(tmp_path: Path) -> None:
    """Arrays are found by `weight_names`, even where they lie under another name than the layer's."""
    file = KerasFile()
    file.heads(file.conv("conv1", file.input, 3, 4), 4)
    file.weights["conv1"] = [(name.replace("conv1/", "conv1_1/"), x) for name, x in file.weights["conv1"]]
    model = read_keras_hdf5(file.write(tmp_path / "model.hdf5"))
    assert next(x for x in model.layers if x.name == "conv1").weights[0].name == "conv1_1/kernel:0"


def test_layers_in_any_order(tmp_path: Path) -> None:
    """The graph decides the order of layers, not the file."""
    file = KerasFile()
    file.heads(file.conv("conv1", file.input, 3, 4), 4)
    file.layers.reverse()
    names = [layer.name for layer in read_keras_hdf5(file.write(tmp_path / "model.hdf5")).layers]
    assert names.index("input_1") < names.index("conv1") < names.index("output_cov")


def test_a_model_within_a_model_is_flattened(tmp_path: Path) -> None:
    """A nested model gives the numbers of the flat one; its weights are shared out in Keras's order."""
    flat = KerasFile()
    x = flat.conv("conv1", flat.input, 3, 4)
    x = flat.batch_norm("bn_1", x, 4)
    x = flat.conv("conv2", x, 4, 5)
    inner_layers = list(flat.layers)
    inner_weights = {name: flat.weights[name] for name in ("conv1", "bn_1", "conv2")}
    flat.heads(x, 5)
    plain = flat.write(tmp_path / "flat.hdf5")

    trainable = [*inner_weights["conv1"], *inner_weights["bn_1"][:2], *inner_weights["conv2"]]
    nested_entry: dict[str, Any] = {
        "name": "backbone",
        "class_name": "Model",
        "config": {
            "name": "backbone",
            "layers": inner_layers,
            "input_layers": [["input_1", 0, 0]],
            "output_layers": [["conv2", 0, 0]],
        },
        "inbound_nodes": [[["input_1", 0, 0, {}]]],
    }
    heads = json.loads(json.dumps(flat.layers[-2:]).replace('"conv2"', '"backbone"'))
    config = flat.model_config()
    config["config"]["layers"] = [flat.layers[0], nested_entry, *heads]
    weights = {
        "input_1": [],
        "backbone": trainable + inner_weights["bn_1"][2:],
        "output_bbox": flat.weights["output_bbox"],
        "output_cov": flat.weights["output_cov"],
    }
    write_keras(tmp_path / "nested.hdf5", config, weights)

    artifact = export_onnx(tmp_path / "nested.hdf5", output=tmp_path / "nested.onnx")
    images = sample_images(artifact.signature)
    assert check_parity(artifact, tmp_path / "nested.hdf5", images=images).passed
    wanted, found = open_model(plain).run(images), open_model(tmp_path / "nested.hdf5").run(images)
    np.testing.assert_array_equal(wanted.coverage, found.coverage)
    np.testing.assert_array_equal(wanted.bbox, found.bbox)


def _refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_keras_hdf5(path)
    assert str(path) in caught.value.subject
    return caught.value


def test_missing_foreign_and_truncated_files(tmp_path: Path, source: Path) -> None:
    """No file, a file of another kind, and a file cut off anywhere are InputErrors that name it."""
    assert "does not exist" in _refused(tmp_path / "none.hdf5").fact
    (tmp_path / "text.hdf5").write_text("kitti_config { }")
    assert "not an HDF5 file" in _refused(tmp_path / "text.hdf5").fact
    content = source.read_bytes()
    for part in (0.02, 0.3, 0.9):
        cut = tmp_path / "cut.hdf5"
        cut.write_bytes(content[: int(len(content) * part)])
        _refused(cut)


def test_hdf5_without_a_graph(tmp_path: Path) -> None:
    """A weights-only file is refused, saying what is missing."""
    path = tmp_path / "weights.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("conv1")
    assert "without a Keras model" in _refused(path).fact


@pytest.mark.parametrize(
    ("config", "fact"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a Keras model"),
        ('{"class_name": "Sequential", "config": {"layers": []}}', "not a Keras functional model"),
        ('{"class_name": "Model", "config": {"layers": []}}', "no layers"),
        ('{"class_name": "Model", "config": {"layers": [3]}}', "a layer that is not one"),
    ],
)
def test_broken_graphs(tmp_path: Path, config: str, fact: str) -> None:
    """A graph that is not one is refused."""
    write_keras(tmp_path / "model.hdf5", config, {})
    assert fact in _refused(tmp_path / "model.hdf5").fact


def test_loops_and_unknown_references(tmp_path: Path) -> None:
    """A loop, and a reference to a layer that is not there, name the layer."""
    for feed, fact in (("conv1", "loop"), ("nowhere", "no layer makes")):
        file = KerasFile()
        file.heads(file.conv("conv1", file.input, 3, 4), 4)
        file.layers[1]["inbound_nodes"] = [[[feed, 0, 0, {}]]]
        error = _refused(file.write(tmp_path / "model.hdf5"))
        assert fact in error.fact
        assert "layer conv1" in error.subject


def test_files_that_reach_outside_themselves(tmp_path: Path, source: Path) -> None:
    """External links, soft links and external storage are refused, not followed."""
    secret = tiny_resnet(tmp_path / "secret.hdf5")
    weights = "model_weights/conv1/conv1/bias:0"
    for link in (h5py.ExternalLink(str(secret), "/" + weights), h5py.SoftLink("/model_weights/bn_conv1")):
        with h5py.File(source, "r+") as file:
            del file[weights]
            file[weights] = link
        assert "is a link" in _refused(source).fact
    with h5py.File(source, "r+") as file:
        del file[weights]
        file.create_dataset(weights, (8,), "f4", external=[(str(secret), 0, 32)])
    error = _refused(source)
    assert "another file" in error.fact
    assert "layer conv1" in error.subject


def test_weights_that_would_fill_the_memory(source: Path) -> None:
    """A few bytes that declare terabytes, or a gigabyte they do not hold, are refused before anything is read."""
    for size in (1 << 40, 1 << 28):
        with h5py.File(source, "r+") as file:
            del file["model_weights/conv1/conv1/bias:0"]
            file["model_weights/conv1"].create_dataset("conv1/bias:0", (size,), "f4", chunks=(1 << 20,))
        assert "more weights" in _refused(source).fact


def test_weights_of_another_kind(source: Path) -> None:
    """Text and not-a-number are no weights."""
    name = "model_weights/conv1/conv1/bias:0"
    for values, fact in ((np.array([b"x"] * 8), "not floating"), (np.full(8, np.nan), "not finite")):
        with h5py.File(source, "r+") as file:
            del file[name]
            file[name] = values
        assert fact in _refused(source).fact


@pytest.mark.parametrize("length", [0, (1 << 64) - 16, 1 << 40])
def test_heaps_that_would_hang_the_library(source: Path, length: int) -> None:
    """A heap object whose size leads nowhere is found before libhdf5 loops over it."""
    content = bytearray(source.read_bytes())
    heap = content.index(b"GCOL")
    content[heap + 16 : heap + 18] = b"\0\0"  # the first object becomes free space …
    content[heap + 24 : heap + 32] = length.to_bytes(8, "little")  # … of a size that cannot be
    source.write_bytes(content)
    assert "damaged HDF5" in _refused(source).fact


@pytest.mark.parametrize("length", [0xFFFFFFF0, 1 << 24])
def test_a_text_longer_than_its_place(source: Path, length: int) -> None:
    """A damaged length of a text attribute is found before libhdf5 allocates it, up to 4 GiB."""
    content = bytearray(source.read_bytes())
    scalar = b"\x01" + bytes(7)  # the attribute's dataspace; its text's length follows
    place = content.index(scalar, content.index(b"model_config") + 16) + len(scalar)
    content[place : place + 4] = length.to_bytes(4, "little")
    source.write_bytes(content)
    assert "longer than its place" in _refused(source).evidence


def test_a_scalar_weight_stays_one(tmp_path: Path) -> None:
    """A QDQ layer's scale has no dimension in the file and none when read."""
    file = KerasFile()
    x = file.layer("conv1_qdq", "QDQ", {}, [file.input], [("scaling_factor", np.array(4.5))])
    file.heads(x, 3)
    model = read_keras_hdf5(file.write(tmp_path / "model.hdf5"))
    (scale,) = next(layer for layer in model.layers if layer.name == "conv1_qdq").weights
    assert scale.values.shape == ()
    assert scale.values == np.float32(4.5)


def test_long_lists_of_names_are_cut_into_parts(source: Path) -> None:
    """Keras writes a list of names over 64 KiB as `weight_names0`, `weight_names1`, …, in order."""
    whole = read_keras_hdf5(source)
    with h5py.File(source, "r+") as file:
        for group, key in ((file["model_weights"], "layer_names"), (file["model_weights/bn_conv1"], "weight_names")):
            names = group.attrs[key]
            del group.attrs[key]
            group.attrs[f"{key}0"], group.attrs[f"{key}1"] = names[:3], names[3:]
    for layer, wanted in zip(read_keras_hdf5(source).layers, whole.layers, strict=True):
        assert [weight.name for weight in layer.weights] == [weight.name for weight in wanted.weights]
