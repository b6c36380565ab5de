"""Whatever graph TAO's layers form: folding changes no number, float16 and int8 load and stay near."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from keras_files import KerasFile
from precision_files import largest_ranges, model_of, outputs
from random_graphs import graphs

from tao2serve.errors import InputError
from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import sample_images
from tao2serve.export.precision.fold import fold_batch_norm
from tao2serve.export.precision.int8 import quantize
from tao2serve.export.precision.nodes import with_outputs
from tao2serve.export.precision.write import to_precision
from tao2serve.runtime.values import Float32


def _has_live_convolution(model: onnx.ModelProto, images: Float32) -> bool:
    """Whether any convolution takes more than zeros."""
    taken = sorted({node.input[0] for node in model.graph.node if node.op_type == "Conv"})
    return any(np.any(values) for values in outputs(with_outputs(model, taken), images)[-len(taken) :])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(file=graphs())
def test_any_graph_in_every_precision(file: KerasFile) -> None:
    """Folded equals unfolded within float noise; int8 and float16 pass ONNX's checker, run, and are finite."""
    with tempfile.TemporaryDirectory() as folder:
        source = file.write(Path(folder) / "model.hdf5")
        try:
            artifact = export_onnx(source, output=Path(folder) / "model.onnx")
        except InputError:
            return  # a window that does not fit; tests/property/test_export_random_graphs.py judges that
        model, images = model_of(artifact), sample_images(artifact.signature)
        wanted = outputs(model, images)
        folded = fold_batch_norm(model)
        onnx.checker.check_model(folded, full_check=True)
        for ours, theirs in zip(wanted, outputs(folded, images), strict=True):
            np.testing.assert_allclose(theirs, ours, atol=1e-4 * max(1.0, float(np.abs(ours).max())))
        candidates = [
            (model_of(to_precision(artifact, precision="fp16", output=Path(folder) / "half.onnx", fold=True)), 0.05)
        ]
        if _has_live_convolution(model, images):  # else there is nothing to quantize, which is an InputError
            candidates.append((quantize(model, largest_ranges(artifact), subject="test").model, 0.5))
        for candidate, error in candidates:
            onnx.checker.check_model(candidate, full_check=True)
            for ours, theirs in zip(wanted, outputs(candidate, images), strict=True):
                assert theirs.shape == ours.shape
                assert np.isfinite(theirs).all()
                assert np.abs(theirs - ours).mean() <= error * max(1.0, float(np.abs(ours).max()))
