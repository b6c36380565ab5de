"""What a user wants made of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tao2serve.errors import UsageError
from tao2serve.export.precision.calibrate import DEFAULT_METHOD, CalibrationMethod
from tao2serve.export.precision.write import Precision

__all__ = ["ArtifactRequest", "EngineWish", "to_serve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWish:
    """An engine besides the ONNX file, for batches from `min_batch` to `max_batch`."""

    min_batch: int = 1
    opt_batch: int = 8
    max_batch: int = 8
    workspace_bytes: int = 2 << 30
    timing_cache: Path | None = None
    trtexec: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRequest:
    """What to make of the weights. Without a precision they keep their own.

    int8 takes its ranges from `calibration_cache` (TensorRT's, or the scales TAO writes after quantization-aware
    training), else from `calibration_images`, else from the weights of a model trained for quantization. What a
    precision costs is measured on `images`, else on the calibration images, else on synthetic pictures.

    `uint8_input` and `absolute_boxes` ask for a lean graph, made last, from the graph in its precision; its boxes need
    an experiment spec. With None for `uint8_input` a model that cannot be made to take pixels stays what it is.
    """

    precision: Precision | None = None
    calibration_images: Path | None = None
    calibration_cache: Path | None = None
    calibration_method: CalibrationMethod = DEFAULT_METHOD
    fold_batch_norm: bool = False
    uint8_input: bool | None = False
    absolute_boxes: bool = False
    images: Path | None = None
    labels: Path | None = None
    accept_parity: bool = False
    must_be_judged: bool = False  # for what will be served: a precision that nothing could judge is refused too
    engine: EngineWish | None = None

    def __post_init__(self) -> None:
        if self.precision != "int8" and (self.calibration_images or self.calibration_cache):
            raise UsageError(
                "--calibration-images and --calibration-cache", "are for int8 only", hint="add: --precision int8"
            )

    @property
    def wants_pixels(self) -> bool:
        return self.uint8_input is not False

    @property
    def lean_options(self) -> tuple[str, ...]:
        """The options of `export` that ask for a lean graph."""
        wanted = (("--uint8-input", self.wants_pixels), ("--absolute-boxes", self.absolute_boxes))
        return tuple(option for option, given in wanted if given)


def to_serve() -> ArtifactRequest:
    """What is made of weights to serve them, unless somebody says otherwise."""
    return ArtifactRequest(uint8_input=None)
