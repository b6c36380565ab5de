"""How far ONNX files are from our numpy reading of a Keras file, as JSON on stdout. Run by tao2serve's environment."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from tao2serve.export.parity import run_model, sample_images
from tao2serve.export.signature import read_signature


def main() -> None:
    """Print the largest differences of coverage and bbox: each file to the reference, the others to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the Keras HDF5 file")
    parser.add_argument("candidates", type=Path, nargs="+", help="ONNX files, ours first")
    parser.add_argument("--images", type=int, default=2)
    options = parser.parse_args()
    images = sample_images(read_signature(options.candidates[0]), count=options.images)
    wanted = run_model(options.source, images)
    first = None
    found = {}
    for path in options.candidates:
        outputs = run_model(path, images)
        first = first or outputs
        found[path.stem] = {
            against: {
                "coverage": float(np.abs(outputs.coverage - other.coverage).max()),
                "bbox": float(np.abs(outputs.bbox - other.bbox).max()),
            }
            for against, other in (("to_numpy_reading", wanted), ("to_first", first))
        }
    print(
        json.dumps(
            {
                "images": options.images,
                "coverage_range": [float(wanted.coverage.min()), float(wanted.coverage.max())],
                "bbox_range": [float(wanted.bbox.min()), float(wanted.bbox.max())],
                "max_abs_difference": found,
            }
        )
    )


if __name__ == "__main__":
    main()
