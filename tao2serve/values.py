"""Frozen values that cross from one step of a deployment to the next."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "BOXES_OUTPUT",
    "IMAGE_MEDIA_TYPES",
    "PIXELS_INPUT",
    "InputModel",
    "Lineage",
    "MetricReading",
    "ModelArtifact",
    "ModelSignature",
    "Prediction",
    "Tensor",
    "TrainedModel",
    "TritonModel",
]

# What an endpoint takes, by the ending of a file's name; the endpoint itself looks at the bytes.
IMAGE_MEDIA_TYPES: Final = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".bmp": "image/bmp",
    ".webp": "image/webp",
}


# Tensor names of graphs that do more than TAO's: what they take and give is told by these.
PIXELS_INPUT: Final = "pixels"
BOXES_OUTPUT: Final = "output_boxes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One named tensor of a model; `shape` leaves out the batch dimension, which is always dynamic."""

    name: str
    datatype: str  # Triton's spelling: FP32, FP16, UINT8 …
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSignature:
    """The named input and outputs of a DetectNet_v2 network.

    `input` is (C, H, W), `coverage` is (classes, h, w), `bbox` is (4 * classes, h, w). A graph may instead take
    pixels, `input` being (H, W, 3) UINT8 of that name, and may give boxes in network pixels instead of offsets.
    """

    input: Tensor
    coverage: Tensor
    bbox: Tensor

    @property
    def takes_pixels(self) -> bool:
        """Whether the graph itself scales and transposes: its input is (H, W, 3) uint8 RGB."""
        return self.input.name == PIXELS_INPUT and self.input.datatype == "UINT8"

    @property
    def gives_boxes(self) -> bool:
        """Whether the graph itself decodes: `bbox` holds L, T, R, B in network pixels."""
        return self.bbox.name == BOXES_OUTPUT

    @property
    def is_lean(self) -> bool:
        """Whether the graph does more than TAO's."""
        return self.takes_pixels or self.gives_boxes

    @property
    def width(self) -> int:
        return self.input.shape[1 if self.takes_pixels else 2]

    @property
    def height(self) -> int:
        return self.input.shape[0 if self.takes_pixels else 1]

    @property
    def stride(self) -> int:
        """Input pixels per grid cell, from the shapes (never assumed: 16, 32 and 224 all occur)."""
        return round(self.width / self.coverage.shape[2])

    @property
    def class_count(self) -> int:
        return self.coverage.shape[0]

    def __str__(self) -> str:
        sizes = "x".join(str(size) for size in self.input.shape)
        taken, given = " uint8 pixels" if self.takes_pixels else " input", ", boxes" if self.gives_boxes else ""
        return f"{sizes}{taken}, {self.class_count} classes, stride {self.stride}{given}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArtifact:
    """A file this project built, or accepted as it is, with what is needed to serve it."""

    format: str  # onnx | tensorrt_plan
    path: Path
    sha256: str
    precision: str  # fp32 | fp16 | int8
    signature: ModelSignature
    source_sha256: str
    companions: tuple[Path, ...] = ()  # further files the model refers to (ONNX external data)
    warnings: tuple[str, ...] = ()  # what its user must know, a sentence or two each
    batches: tuple[int, int] | None = None  # the smallest and largest batch a plan was built for; ONNX takes any


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One box: x1, y1, x2, y2 in pixels of the original image."""

    bbox: tuple[float, float, float, float]
    score: float
    raw_score: float
    class_id: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputModel:
    """A model that a training run started from, as ClearML has it."""

    model_id: str
    name: str
    uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a trained model comes from: what ClearML links, and what TAO's own experiment spec says."""

    parent_task_id: str = ""
    parent_task_name: str = ""
    input_models: tuple[InputModel, ...] = ()
    pretrained_model_file: str = ""  # of the experiment spec
    load_graph: bool | None = None  # of the experiment spec; None: ClearML holds no spec
    evidence: tuple[str, ...] = ()  # what says pruned or unpruned, the strongest first


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricReading:
    """What one source says of a checkpoint at its own epoch; ratios in [0, 1]."""

    source: str  # status.json | scalars | console
    mean_average_precision: float | None
    average_precision: tuple[tuple[str, float], ...] = ()  # by class


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """What ClearML tracks of one trained TAO model: the model and the task that made it."""

    model_id: str
    name: str
    task_id: str
    task_name: str
    project: str
    tags: tuple[str, ...]
    uri: str
    fetchable: bool
    unfetchable_reason: str = ""
    pruned: bool | None = None
    epoch: int | None = None
    epoch_source: str = ""  # metadata | file name | last evaluation
    mean_average_precision: float | None = None  # ratio in [0, 1]
    metric_source: str = ""  # where the mAP was read: status.json | scalars | console
    metric_note: str = ""  # that sources disagree, or why there is none
    average_precision: tuple[tuple[str, float], ...] = ()  # by class, of the same source
    readings: tuple[MetricReading, ...] = ()  # every source that has this epoch, the preferred one first
    lineage: Lineage = Lineage()
    task_status: str = ""
    task_tags: tuple[str, ...] = ()
    framework: str = ""
    last_update: str = ""
    sha256: str = ""  # of the weights, when ClearML knows it
    registered_model_id: str = ""  # uploaded later: the model that holds only a path
    registered_uri: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TritonModel:
    """One model version in a Triton model repository."""

    name: str
    version: int
    repository: Path
    backend: str  # python | tensorrt | ensemble
    created: bool  # False when the same content was there already

    @property
    def path(self) -> Path:
        return self.repository / self.name
