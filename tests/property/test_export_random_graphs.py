"""Whatever graph TAO's layers form: the ONNX file and the numpy reading of Keras give the same numbers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_files import KerasFile
from random_graphs import graphs
from templates import write_nested

from tao2serve.errors import InputError
from tao2serve.export.convert import export_onnx
from tao2serve.export.execution import sample_images
from tao2serve.export.parity import check_parity


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(file=graphs(), as_bytes=st.booleans(), levels=st.sampled_from([0, 0, 1, 2]))
def test_onnx_equals_the_numpy_reading(file: KerasFile, as_bytes: bool, levels: int) -> None:
    """Outputs agree, ONNX infers the same sizes, and only windows that do not fit are refused; nested or not."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.hdf5"
        if levels:
            write_nested(source, file, levels=levels)
        else:
            file.write(source, as_bytes=as_bytes)
        try:
            artifact = export_onnx(source, output=Path(folder) / "model.onnx")
        except InputError as error:
            # Windows that do not fit, or padding that makes the grid larger than the image.
            assert "impossible size" in error.fact or "no detector has" in error.fact  # noqa: PT017
            return
        model = onnx.load(str(artifact.path))
        onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        report = check_parity(artifact, source, images=sample_images(artifact.signature))
        assert report.passed, (report.worst, report.first_divergence)
        assert report.worst.max_abs < 1e-4 or np.isclose(report.worst.cosine, 1)
