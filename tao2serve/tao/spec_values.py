"""What an experiment spec says, as frozen values. Field names follow TAO's where they are the same thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tao2serve.errors import InputError

__all__ = [
    "ClassHandling",
    "ClearMLConfig",
    "Clustering",
    "ClusteringFile",
    "EvaluationBox",
    "EvaluationSettings",
    "ExperimentSpec",
    "InferenceSettings",
    "InputSize",
    "ModelSettings",
    "TrainingSettings",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSize:
    """Network input in pixels; `minimum` and `maximum` bound the side when `enable_auto_resize` is on."""

    width: int
    height: int
    channels: int
    minimum: int = 0
    maximum: int = 0
    enable_auto_resize: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering:
    """One class's clustering settings, as in the file; `algorithm` is DBSCAN, NMS or HYBRID."""

    algorithm: str
    coverage_threshold: float
    minimum_bounding_box_height: int  # pixels of the network input
    dbscan_eps: float
    dbscan_min_samples: int
    dbscan_confidence_threshold: float
    nms_iou_threshold: float
    nms_confidence_threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassHandling:
    """How one target class is clustered and drawn; only inference specs say more than the clustering."""

    clustering: Clustering
    confidence_model: str = ""
    output_map: str = ""
    bbox_color: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """`model_config` of a training spec."""

    arch: str
    num_layers: int  # 0 is TAO's 18
    use_pooling: bool
    use_batch_norm: bool
    all_projections: bool
    load_graph: bool
    pretrained_model_file: str
    freeze_bn: bool
    freeze_blocks: tuple[float, ...]
    dropout_rate: float
    has_coverage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearMLConfig:
    """`training_config.visualizer.clearml_config`: where TAO's hook registered the run."""

    project: str
    task: str
    tags: tuple[str, ...]
    reuse_last_task_id: bool
    continue_last_task: bool
    deferred_init: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """The rest of a training spec."""

    enable_qat: bool
    batch_size_per_gpu: int
    num_epochs: int
    target_class_mapping: Mapping[str, str]  # name in the dataset → target class
    visualizer_enabled: bool
    clearml: ClearMLConfig | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceSettings:
    """The rest of an inference spec."""

    batch_size: int
    stride: int
    backend: str  # tlt_config | tensorrt_config | "" where the spec names none
    tlt_model: str | None
    trt_engine: str | None
    kitti_dump: bool
    overlay_linewidth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationBox:
    """Boxes of other sizes, in network pixels, count nowhere in TAO's evaluation; an absent maximum is 0."""

    minimum_height: int
    maximum_height: int
    minimum_width: int
    maximum_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """`evaluation_config` of a training spec; the mappings are keyed by target class."""

    average_precision_mode: str  # SAMPLE | INTEGRATE
    minimum_overlap: Mapping[str, float]  # IoU
    boxes: Mapping[str, EvaluationBox]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteringFile:
    """A clustering file of tao-toolkit-triton-apps; `notes` say what could not be taken as it stands."""

    path: Path
    stride: int  # 0 where it does not say
    handling: Mapping[str, ClassHandling]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentSpec:
    """A training spec (`kind` "experiment") or an inference spec ("inference").

    `classes` are in the order of the network's channels. `handling` is keyed by class, with `default` as
    the fallback. `bbox_scale` and `bbox_offset` are None where the file does not say (inference specs).
    """

    path: Path
    kind: str
    classes: tuple[str, ...]
    input: InputSize
    handling: Mapping[str, ClassHandling]
    model: ModelSettings | None = None
    training: TrainingSettings | None = None
    inference: InferenceSettings | None = None
    bbox_scale: float | None = None
    bbox_offset: float | None = None
    evaluation: EvaluationSettings | None = None
    clustering_file: ClusteringFile | None = None  # laid over the spec's own clustering

    @property
    def enable_qat(self) -> bool:
        return self.training is not None and self.training.enable_qat

    @property
    def arch(self) -> str:
        return self.model.arch if self.model else ""

    @property
    def clearml(self) -> ClearMLConfig | None:
        return self.training.clearml if self.training else None

    def handling_of(self, name: str) -> ClassHandling:
        """Return the settings of a class, or of `default`. Raises InputError if there are neither."""
        found = self.handling.get(name) or self.handling.get("default")
        if found is None:
            raise InputError(
                str(self.path),
                f"has no clustering for class {name}",
                evidence=f"it has: {', '.join(self.handling) or 'none'}",
                hint="add it to postprocessing_config (training) or bbox_handler_config (inference)",
            )
        return found
