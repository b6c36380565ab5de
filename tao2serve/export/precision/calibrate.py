"""Ranges from calibration images: the very pixels that are served, through the float32 network.

Two passes, so that memory stays at one image's activations: the first finds the largest values, the second fills
histograms of fixed width. onnxruntime's own calibrators keep every activation of the images they get, and widen a
histogram that began on a dark picture bin by bin without a limit; from them come the rules that read a histogram.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from onnx import ModelProto

from tao2serve.errors import InputError
from tao2serve.export.inference import onnxruntime
from tao2serve.export.precision.int8 import foldable
from tao2serve.export.precision.observe import Observed, largest_values, pictures
from tao2serve.export.precision.placement import place
from tao2serve.export.precision.ranges import LEVELS, Ranges, ranges_of
from tao2serve.images import find_images
from tao2serve.runtime import DetectorParams

__all__ = ["DEFAULT_METHOD", "FEW_IMAGES", "METHODS", "CalibrationMethod", "calibrate", "calibration_images"]

CalibrationMethod = Literal["minmax", "entropy", "percentile"]

METHODS: Final[tuple[CalibrationMethod, ...]] = ("minmax", "entropy", "percentile")
DEFAULT_METHOD: Final[CalibrationMethod] = "percentile"
FEW_IMAGES: Final = 50
_MOST_IMAGES: Final = 300
_BINS: Final = {"entropy": 1024, "percentile": 4096}  # over both signs; the time entropy takes grows with the square
_PERCENTILE: Final = 99.999
_QUANTIZED_BINS: Final = 128


def calibration_images(folder: Path, *, most: int = _MOST_IMAGES) -> tuple[Path, ...]:
    """Return the images of a folder in the order of their names, evenly thinned out to `most`.

    Raises InputError if there is none.
    """
    found = find_images(folder)
    step = max(len(found) / most, 1.0)
    return tuple(found[int(index * step)] for index in range(min(most, len(found))))


def calibrate(
    model: ModelProto,
    images: Sequence[Path],
    *,
    params: DetectorParams,
    subject: str,
    method: CalibrationMethod = DEFAULT_METHOD,
    on_news: Callable[[str], None] = lambda _: None,
) -> Ranges:
    """Measure the ranges int8 needs; `model` is what `load_model` gives of an fp32 artifact, not folded.

    Raises InputError for images that are none, and for a network whose values are not finite on them.
    """
    if not images:
        raise InputError(subject, "cannot be calibrated without images")
    prepared = foldable(model, subject=subject)
    names = place(prepared.graph).tensors
    total = len(images)
    amax = largest_values(
        prepared,
        names,
        (picture.tensor for picture in pictures(images, params)),
        subject=subject,
        seen=lambda number: on_news(f"largest values: {number} of {total} images"),
    )
    infinite = [name for name, value in amax.items() if not np.isfinite(value)]
    if infinite:
        raise InputError(subject, "has values that are not finite on these images", evidence=", ".join(infinite[:5]))
    if not any(amax.values()):
        raise InputError(subject, "has no convolution that takes anything but zeros on these images")
    if method != "minmax":
        amax = _clipped(prepared, amax, images, params=params, subject=subject, method=method, on_news=on_news)
    dead = sorted(name for name, value in amax.items() if not value)
    notes = [f"{total} images are few: {FEW_IMAGES} or more of what is served say more"] if total < FEW_IMAGES else []
    notes += [f"{name} is zero on every image and stays float" for name in dead]
    return ranges_of(
        {name: value for name, value in amax.items() if value},
        model,
        subject=subject,
        source="calibration images",
        method=method,
        images=total,
        notes=tuple(notes),
    )


def _clipped(
    model: ModelProto,
    amax: Mapping[str, float],
    images: Sequence[Path],
    *,
    params: DetectorParams,
    subject: str,
    method: CalibrationMethod,
    on_news: Callable[[str], None],
) -> dict[str, float]:
    """Return ranges that leave out rare large values, by onnxruntime's rule; where it finds none, `amax`."""
    onnxruntime()
    from onnxruntime.quantization.calibrate import HistogramCollector

    names = [name for name, value in amax.items() if value]
    collector: Any = HistogramCollector(
        method=method,
        symmetric=False,
        num_bins=_BINS[method],
        num_quantized_bins=_QUANTIZED_BINS,
        percentile=_PERCENTILE,
        scenario="same",
    )
    observed = Observed(model, names, subject=subject)
    # The first values set the width of the bins for good.
    _silently(collector.collect, {name: np.array([amax[name]], dtype=np.float32) for name in names})
    for number, picture in enumerate(pictures(images, params), start=1):
        _silently(collector.collect, observed.run(picture.tensor))
        on_news(f"histograms: {number} of {len(images)} images")
    on_news(f"choosing ranges by {method}")
    if method == "entropy":
        _leave_out_zeros(collector.histogram_dict)
    found = _silently(collector.compute_collection_result)
    clipped = dict(amax)
    for name in names:
        limit = float(max(abs(found[name][0]), abs(found[name][1])))
        # Where hardly any value is not zero the rule finds zero; less than one step of the whole range is no range.
        if amax[name] / LEVELS <= limit < amax[name]:
            clipped[name] = limit
    return clipped


def _silently(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call what prints: stdout is the command's result."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call(*arguments)


def _leave_out_zeros(histograms: dict[str, Any]) -> None:
    """Give the two bins around zero the height of their neighbours.

    Half of what a Relu gives is exactly zero. onnxruntime's rule counts that peak and then chooses a fifth of the
    range that is needed (docs/precision.md); NVIDIA's pytorch-quantization levels it as well.
    """
    for name, (heights, *rest) in histograms.items():
        changed, middle = heights.copy(), len(heights) // 2
        changed[middle - 1], changed[middle] = heights[middle - 2], heights[middle + 1]
        histograms[name] = (changed, *rest)
