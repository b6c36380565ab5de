"""Whether float32 can carry what a trained model computes: if not, no two programs agree on its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tao2serve.errors import InputError
from tao2serve.export.reference import layer_outputs
from tao2serve.tao.hdf5 import read_keras_hdf5
from tao2serve.tao.keras import Array, KerasModel

__all__ = ["check_computable"]

_SHARE = 0.1  # of the tolerance: onnxruntime's rounding is of the same size as ours, not the same
_HINT = "training diverged, or the file is damaged"


def check_computable(path: Path, images: Array, *, tolerance: float) -> None:
    """Raise InputError if a Keras model overflows on these images, or rounding alone explains `tolerance`.

    Runs our numpy reading in float32 and in float64 side by side. Asked once parity has failed: a file with
    weights of 1e20 in it is bad input, and not a mistake of the export.
    """
    model = read_keras_hdf5(path)
    for index in range(len(images)):
        _check_on(model, images[index : index + 1], tolerance)


def _check_on(model: KerasModel, image: Array, tolerance: float) -> None:
    largest = noise = 0.0
    at = ""
    exact = layer_outputs(model, image.astype(np.float64))
    for (name, value), (_, wanted) in zip(layer_outputs(model, image), exact, strict=True):
        reach = float(np.abs(wanted).max(initial=0.0))
        if not np.isfinite(value).all() or not np.isfinite(reach):
            raise InputError(
                f"{model.path}: layer {name}",
                "computes numbers that are not finite",
                evidence=f"on a synthetic picture; its values reach {reach:.3g} in float64",
                hint=_HINT,
            )
        if reach > largest:
            largest, at = reach, name
        if name in (model.coverage, model.bbox):
            noise = max(noise, float(np.abs(value - wanted).max(initial=0.0)))
    if noise > _SHARE * tolerance:
        raise InputError(
            f"{model.path}: layer {at}",
            "computes numbers too large for float32",
            evidence=f"they reach {largest:.3g}, and rounding alone moves the outputs by {noise:.3g}, "
            f"where {tolerance:g} is allowed",
            hint=_HINT,
        )
