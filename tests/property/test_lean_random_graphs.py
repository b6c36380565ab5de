"""Whatever graph TAO's layers form, in whatever precision: made lean it gives the same bits."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_files import KerasFile
from onnx_files import like_keras2onnx
from random_graphs import graphs

from tao2serve.errors import InputError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.convert import export_onnx
from tao2serve.export.inference import open_session
from tao2serve.export.lean import make_lean
from tao2serve.export.precision.observe import float_tensors, largest_values
from tao2serve.export.precision.ranges import ranges_of
from tao2serve.export.precision.write import to_precision
from tao2serve.images import network_input
from tao2serve.runtime import DetectorParams
from tao2serve.runtime.candidates import absolute_boxes
from tao2serve.runtime.values import ClassParams
from tao2serve.values import ModelArtifact

FORMS = st.sampled_from(["fp32", "folded", "fp16", "int8", "keras2onnx"])


def _in_form(artifact: ModelArtifact, form: str, folder: Path, images: np.ndarray) -> ModelArtifact:
    output = folder / f"{form}.onnx"
    if form == "keras2onnx":
        onnx.save(like_keras2onnx(onnx.load(str(artifact.path))), str(output))
        return accept_onnx(output)
    if form == "int8":
        model = onnx.load(str(artifact.path))
        amax = largest_values(model, float_tensors(model, subject="test"), [images], subject="test")
        alive = {name: value for name, value in amax.items() if value}
        ranges = ranges_of(alive, model, subject="test", source="calibration images", method="minmax", images=1)
        return to_precision(artifact, precision="int8", output=output, ranges=ranges)
    if form == "fp16":
        return to_precision(artifact, precision="fp16", output=output, fold=True)
    return artifact if form == "fp32" else to_precision(artifact, precision="fp32", output=output, fold=True)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    file=graphs(),
    form=FORMS,
    scale=st.floats(0.5, 100, width=32),
    offset=st.floats(-2, 2, width=32),
    seed=st.integers(0, 9),
)
def test_a_lean_graph_gives_the_same_bits(file: KerasFile, form: str, scale: float, offset: float, seed: int) -> None:
    """Coverage is equal and boxes are those of `absolute_boxes`, in a batch, at onnxruntime's default level."""
    with tempfile.TemporaryDirectory() as folder:
        source = file.write(Path(folder) / "model.hdf5")
        _, height, width = file.input_chw
        pixels = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        try:
            artifact = export_onnx(source, output=Path(folder) / "model.onnx")
            images = network_input(pixels, artifact.signature)
            artifact = _in_form(artifact, form, Path(folder), images)
        except InputError:
            return  # a window that does not fit, or nothing to quantize; others judge that
        signature = artifact.signature
        wanted = open_session(artifact.path).run(
            [signature.coverage.name, signature.bbox.name], {signature.input.name: images}
        )
        if wanted[0].shape[1:] != signature.coverage.shape:
            return  # keras2onnx's pads can make another grid than the file declares, which is refused elsewhere
        classes = tuple(ClassParams(name=str(number)) for number in range(signature.class_count))
        params = DetectorParams(
            channels=signature.input.shape[0], height=height, width=width, bbox_scale=scale, bbox_offset=offset,
            classes=classes,
        )  # fmt: skip
        lean = make_lean(
            artifact, output=Path(folder) / "lean.onnx", uint8_input=True, absolute_boxes=True, params=params
        )
        assert accept_onnx(lean.path).signature == lean.signature
        found = open_session(lean.path).run([signature.coverage.name, "output_boxes"], {"pixels": pixels})
        np.testing.assert_array_equal(found[0], wanted[0])
        np.testing.assert_array_equal(found[1], np.stack([absolute_boxes(grid, params) for grid in wanted[1]]))
