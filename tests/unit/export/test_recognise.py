"""An ONNX file tells its TAO template by the layer names that exporters keep."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from precision_files import largest_ranges
from templates import TEMPLATES, template

from tao2serve.export.convert import export_onnx
from tao2serve.export.precision.write import to_precision
from tao2serve.export.recognise import description_of, parameter_count
from tao2serve.tao.describe import describe
from tao2serve.tao.hdf5 import read_keras_hdf5

# One of every family, and what makes the depths differ; the rest would say the same again.
CHOSEN = [name for name in TEMPLATES if not name.endswith(("101", "34", "50_pooling", "19_pooling"))]


@pytest.mark.parametrize("name", CHOSEN)
def test_onnx_tells_what_hdf5_tells(tmp_path: Path, name: str) -> None:
    """Template, depth, pruning and settings are those told from the weights; folding and fp16 hide none of it."""
    source = template(name, input_chw=(3, 64, 96), width=0.25).write(tmp_path / "model.hdf5")
    wanted = describe(read_keras_hdf5(source))
    artifact = export_onnx(source, output=tmp_path / "model.onnx")
    forms = [artifact.path]
    if "224" not in name and "pooling" not in name:
        forms.append(to_precision(artifact, precision="fp16", fold=True, output=tmp_path / "half.onnx").path)
    for path in forms:
        found = description_of(onnx.load(str(path)), path)
        assert (found.template, found.num_layers, found.pruned) == (wanted.template, wanted.num_layers, wanted.pruned)
        assert (found.use_pooling, found.all_projections) == (wanted.use_pooling, wanted.all_projections)
    assert found.unusual == wanted.unusual


@pytest.mark.parametrize("pruned", [False, True])
def test_int8_hides_no_widths(tmp_path: Path, pruned: bool) -> None:
    """Kernels behind Q/DQ pairs still tell a pruned model from a whole one."""
    file = template("squeezenet", input_chw=(3, 64, 96), pruned=pruned)
    artifact = export_onnx(file.write(tmp_path / "model.hdf5"), output=tmp_path / "model.onnx")
    int8 = to_precision(artifact, precision="int8", ranges=largest_ranges(artifact), output=tmp_path / "int8.onnx")
    for path in (artifact.path, int8.path):
        assert description_of(onnx.load(str(path)), path).pruned is pruned


def test_names_that_were_lost_are_no_obstacle(tmp_path: Path) -> None:
    """Renamed tensors leave the operations to go by."""
    source = template("squeezenet", input_chw=(3, 64, 96), width=0.25).write(tmp_path / "model.hdf5")
    model = onnx.load(str(export_onnx(source, output=tmp_path / "model.onnx").path))
    for node in model.graph.node:
        node.name = ""
        node.output[:] = [name.replace("/", "_") for name in node.output]
        node.input[:] = [name.replace("/", "_") for name in node.input]
    assert description_of(model, tmp_path).template == "squeezenet"
    assert parameter_count(model) > 1000
