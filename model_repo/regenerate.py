"""Write the sample's Triton model `street_1` beside this file: `python model_repo/regenerate.py`.

It needs tao2serve installed. Run it after a change of the sample's weights, of the exporter, of the generated
config.pbtxt, of tao2serve/runtime/triton_model.py, or of the version number, which the ONNX file carries.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tao2serve.export.convert import export_onnx
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.tao.spec import read_spec
from tao2serve.triton.config import ModelConfig
from tao2serve.triton.repository import remove_model, write_model
from tao2serve.values import TritonModel

NAME = "street_1"
PRUNED = SAMPLE / "pruned"


def regenerate(repository: Path) -> TritonModel:
    """Write the model into `repository`, in the place of the one that is there."""
    (weights,) = (PRUNED / "weights").glob("*.hdf5")
    with tempfile.TemporaryDirectory() as scratch:
        artifact = export_onnx(
            weights, output=Path(scratch) / "model.onnx", spec=read_spec(PRUNED / "experiment_spec.txt")
        )
        remove_model(NAME, repository=repository)  # write_model never changes a model that is there
        # The defaults of a deployment, whatever the settings of this machine are.
        return write_model(
            artifact,
            ModelConfig(name=NAME, signature=artifact.signature, precision=artifact.precision),
            repository=repository,
        )


if __name__ == "__main__":
    written = regenerate(Path(__file__).resolve().parent)
    for path in sorted(written.path.rglob("*")):
        if path.is_file():
            print(path.relative_to(written.repository), path.stat().st_size, "bytes")  # noqa: T201 - its result
