"""Small models, pictures and ranges for the tests of precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from keras_files import KerasFile, tiny_resnet
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import sample_images
from tao2serve.export.inference import open_session
from tao2serve.export.precision.int8 import foldable
from tao2serve.export.precision.observe import largest_values
from tao2serve.export.precision.placement import place
from tao2serve.export.precision.ranges import Ranges, ranges_of
from tao2serve.runtime import DetectorParams
from tao2serve.runtime.values import ClassParams, Float32
from tao2serve.values import ModelArtifact

PARAMS = DetectorParams(
    channels=3,
    height=32,
    width=48,
    bbox_scale=35.0,
    bbox_offset=0.5,
    classes=tuple(ClassParams(name=name, coverage_threshold=0.4) for name in ("car", "person")),
)


def detector(folder: Path) -> ModelArtifact:
    """The little residual network of `tiny_resnet`, exported."""
    return export_onnx(tiny_resnet(folder / "tiny.hdf5"), output=folder / "tiny.onnx")


def exported(file: KerasFile, folder: Path) -> ModelArtifact:
    return export_onnx(file.write(folder / "model.hdf5"), output=folder / "model.onnx")


def model_of(artifact: ModelArtifact) -> ModelProto:
    return onnx.load(str(artifact.path))


def outputs(model: ModelProto, images: Float32) -> list[Float32]:
    """Every output of the graph for images (N, C, H, W)."""
    results: list[Float32] = open_session(model.SerializeToString()).run(None, {model.graph.input[0].name: images})
    return results


def largest_ranges(artifact: ModelArtifact) -> Ranges:
    """Ranges of every tensor int8 asks for, over two synthetic images; none for one that is zero on both."""
    model = model_of(artifact)
    prepared = foldable(model, subject="test")
    amax = largest_values(prepared, place(prepared.graph).tensors, [sample_images(artifact.signature)], subject="test")
    alive = {name: value for name, value in amax.items() if value}
    return ranges_of(alive, model, subject="test", source="calibration images", method="minmax", images=2)


def write_pictures(folder: Path, count: int, *, size: tuple[int, int] = (60, 40)) -> tuple[Path, ...]:
    """Write PNG pictures of soft colours, each another; lossless, so that pixels can be compared."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"{index:03d}.png" for index in range(count))
    for index, path in enumerate(paths):
        coarse = np.random.default_rng(index).integers(0, 255, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return paths


def hand_made(
    nodes: list[NodeProto], weights: dict[str, Float32], *, opset: int = 13, others: tuple[str, ...] = ()
) -> ModelProto:
    """A detector of one class: input_1 (N, 3, 16, 24) → … → features (N, 4, 16, 24) → both heads.

    `others` are further outputs of the graph.
    """
    heads = {
        "cov/w": np.full((1, 4, 1, 1), 0.1, np.float32),
        "bbox/w": np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4, 1, 1),
    }
    tail = [
        helper.make_node("Conv", ["features", "cov/w"], ["raw"], name="cov"),
        helper.make_node("Sigmoid", ["raw"], ["output_cov"], name="sigmoid"),
        helper.make_node("Conv", ["features", "bbox/w"], ["output_bbox"], name="bbox"),
    ]
    shapes = {"output_cov": [1, 16, 24], "output_bbox": [4, 16, 24]}
    graph = helper.make_graph(
        [*nodes, *tail],
        "hand_made",
        [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["N", 3, 16, 24])],
        [
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape]) for name, shape in shapes.items()),
            *(helper.make_empty_tensor_value_info(name) for name in others),
        ],
        initializer=[numpy_helper.from_array(array, name=name) for name, array in (weights | heads).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def accepted(model: ModelProto, folder: Path) -> ModelArtifact:
    path = folder / "accepted.onnx"
    onnx.save(model, str(path))
    return accept_onnx(path)
