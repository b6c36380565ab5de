"""Write the sample's Triton models beside this file: `python model_repo/regenerate.py`.

It needs tao2serve installed, and does what `tao2serve build` does, with the default settings. Run it after a change
of the sample's weights, of the exporter, of the generated config.pbtxt, of anything in tao2serve/runtime, or of the
version number, which the ONNX file carries.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tao2serve.build import BuildRequest, build
from tao2serve.config import PlacementKind, Settings
from tao2serve.registry.source import Source
from tao2serve.sandbox.samples import SAMPLE
from tao2serve.steps import Steps

DETECTORS = ("street", "street_pictures_detector")
EXAMPLES: dict[str, PlacementKind] = {"street": "endpoint", "street_pictures": "ensemble"}
RUNTIME = Path(__file__).resolve().parents[1] / "tao2serve" / "runtime"
PRUNED = SAMPLE / "pruned"


def regenerate(repository: Path) -> tuple[Path, ...]:
    """Write the models into `repository`, in the place of those that are there; return their folders."""
    (weights,) = (PRUNED / "weights").glob("*.hdf5")
    written = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, placement in EXAMPLES.items():
            request = BuildRequest(source=Source(text=str(weights)), name=name, repository=Path(scratch))
            # The defaults, whatever the settings of this machine are.
            built = build(request, Settings.model_construct(placement=placement), steps=Steps())
            for model in built.models:
                target = repository / model.name
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(model.path, target)
                written.append(target)
    _link(repository)
    return tuple(written)


def _link(repository: Path) -> None:
    """Put links where `build` leaves copies: the same bytes once are enough for git."""
    copies = [(folder, RUNTIME) for folder in repository.glob("*/1/runtime")]
    copies += [(repository / name / "1/model.py", RUNTIME / "triton_model.py") for name in DETECTORS]
    copies.append((repository / "street_pictures_detector/1/model.onnx", repository / "street/1/model.onnx"))
    for copy, original in copies:
        if copy.is_dir():
            shutil.rmtree(copy)
        else:
            copy.unlink()
        copy.symlink_to(os.path.relpath(original, copy.parent))


if __name__ == "__main__":
    for folder in regenerate(Path(__file__).resolve().parent):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                print(path.relative_to(folder.parent), path.stat().st_size, "bytes")  # noqa: T201 - its result
