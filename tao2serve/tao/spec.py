"""TAO's experiment spec (protobuf text format), for training or for inference, as one frozen value.

Absent fields read as proto3's 0, "" or false, exactly as NVIDIA's own classes read them; what TAO then
takes instead is said where it is used (`params.py`). Numbers are float32 in TAO and keep its value:
0.00499999988824 in the file and 0.005 here are the same float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from tao2serve.errors import InputError
from tao2serve.tao.schema import CLUSTERING_FILE_FIELD, SPEC_FAMILIES
from tao2serve.tao.spec_values import (
    ClassHandling,
    ClearMLConfig,
    Clustering,
    EvaluationBox,
    EvaluationSettings,
    ExperimentSpec,
    InferenceSettings,
    InputSize,
    ModelSettings,
    TrainingSettings,
)
from tao2serve.tao.text import enum_name, parse_message, shortest

__all__ = ["ExperimentSpec", "read_spec"]

_Value = TypeVar("_Value")


def read_spec(path: Path) -> ExperimentSpec:
    """Read a training or inference spec.

    Raises InputError for a file that is missing, is not text format (with line and column), is a spec of
    another kind, or names no classes or no input size.
    """
    message = parse_message(path, "Spec")
    for name, family in SPEC_FAMILIES.items():
        if len(getattr(message, name)):
            beside = ", and this file beside it with --clustering" if name == CLUSTERING_FILE_FIELD else ""
            raise InputError(
                str(path),
                f"is {family}, not a DetectNet_v2 experiment spec",
                evidence=f"it has {name}",
                hint=f"give the spec that `detectnet_v2 train` or `detectnet_v2 inference` was run with{beside}",
            )
    if message.HasField("inferencer_config") or message.HasField("bbox_handler_config"):
        spec = _inference(path, message)
    else:
        spec = _training(path, message)
    _check(spec)
    return spec


def _check(spec: ExperimentSpec) -> None:
    if not spec.classes:
        raise InputError(
            str(spec.path),
            "names no target classes",
            hint="cost_function_config.target_classes (training) or inferencer_config.target_classes "
            "(inference) must list them in the order of training",
        )
    if "" in spec.classes or len(set(spec.classes)) != len(spec.classes):
        raise InputError(str(spec.path), "names a target class twice or not at all", evidence=", ".join(spec.classes))
    if min(spec.input.width, spec.input.height, spec.input.channels) < 1:
        raise InputError(
            str(spec.path),
            "gives no input size",
            evidence=f"width {spec.input.width}, height {spec.input.height}, channels {spec.input.channels}",
        )


def _clustering(config: Any) -> Clustering:
    return Clustering(
        algorithm=enum_name(config, "clustering_algorithm"),
        coverage_threshold=shortest(config.coverage_threshold),
        minimum_bounding_box_height=config.minimum_bounding_box_height,
        dbscan_eps=shortest(config.dbscan_eps),
        dbscan_min_samples=config.dbscan_min_samples,
        dbscan_confidence_threshold=shortest(config.dbscan_confidence_threshold),
        nms_iou_threshold=shortest(config.nms_iou_threshold),
        nms_confidence_threshold=shortest(config.nms_confidence_threshold),
    )


def _training(path: Path, message: Any) -> ExperimentSpec:
    image, training = message.augmentation_config.preprocessing, message.training_config
    visualizer = training.visualizer
    objectives = message.model_config.objective_set
    return ExperimentSpec(
        path=path,
        kind="experiment",
        classes=tuple(item.name for item in message.cost_function_config.target_classes),
        input=InputSize(
            width=image.output_image_width,
            height=image.output_image_height,
            channels=image.output_image_channel,
            minimum=image.output_image_min,
            maximum=image.output_image_max,
            enable_auto_resize=image.enable_auto_resize,
        ),
        handling=_frozen(
            {
                item.key: ClassHandling(clustering=_clustering(item.value.clustering_config))
                for item in message.postprocessing_config.target_class_config
            }
        ),
        model=_model(message.model_config),
        training=TrainingSettings(
            enable_qat=training.enable_qat,
            batch_size_per_gpu=training.batch_size_per_gpu,
            num_epochs=training.num_epochs,
            target_class_mapping=_frozen(
                {item.key: item.value for item in message.dataset_config.target_class_mapping}
            ),
            visualizer_enabled=visualizer.enabled,
            clearml=_clearml(visualizer.clearml_config) if visualizer.HasField("clearml_config") else None,
        ),
        bbox_scale=shortest(objectives.bbox.scale) if objectives.HasField("bbox") else None,
        bbox_offset=shortest(objectives.bbox.offset) if objectives.HasField("bbox") else None,
        evaluation=_evaluation(message.evaluation_config) if message.HasField("evaluation_config") else None,
    )


def _model(config: Any) -> ModelSettings:
    return ModelSettings(
        arch=config.arch,
        num_layers=config.num_layers,
        use_pooling=config.use_pooling,
        use_batch_norm=config.use_batch_norm,
        all_projections=config.all_projections,
        load_graph=config.load_graph,
        pretrained_model_file=config.pretrained_model_file,
        freeze_bn=config.freeze_bn,
        freeze_blocks=tuple(shortest(item) for item in config.freeze_blocks),
        dropout_rate=shortest(config.dropout_rate),
        has_coverage=config.objective_set.HasField("cov"),
    )


def _evaluation(config: Any) -> EvaluationSettings:
    return EvaluationSettings(
        average_precision_mode=enum_name(config, "average_precision_mode"),
        minimum_overlap=_frozen(
            {item.key: shortest(item.value) for item in config.minimum_detection_ground_truth_overlap}
        ),
        boxes=_frozen(
            {
                item.key: EvaluationBox(
                    minimum_height=item.value.minimum_height,
                    maximum_height=item.value.maximum_height,
                    minimum_width=item.value.minimum_width,
                    maximum_width=item.value.maximum_width,
                )
                for item in config.evaluation_box_config
            }
        ),
    )


def _clearml(config: Any) -> ClearMLConfig:
    return ClearMLConfig(
        project=config.project,
        task=config.task,
        tags=tuple(config.tags),
        reuse_last_task_id=config.reuse_last_task_id,
        continue_last_task=config.continue_last_task,
        deferred_init=config.deferred_init,
    )


def _inference(path: Path, message: Any) -> ExperimentSpec:
    inferencer, handler = message.inferencer_config, message.bbox_handler_config
    on_tensorrt = inferencer.HasField("tensorrt_config")
    on_keras = inferencer.HasField("tlt_config")
    return ExperimentSpec(
        path=path,
        kind="inference",
        classes=tuple(inferencer.target_classes),
        input=InputSize(
            width=inferencer.image_width, height=inferencer.image_height, channels=inferencer.image_channels
        ),
        handling=_frozen(
            {
                item.key: ClassHandling(
                    clustering=_clustering(item.value.clustering_config),
                    confidence_model=item.value.confidence_model,
                    output_map=item.value.output_map,
                    bbox_color=(
                        item.value.bbox_color.R,
                        item.value.bbox_color.G,
                        item.value.bbox_color.B,
                    ),
                )
                for item in handler.classwise_bbox_handler_config
            }
        ),
        inference=InferenceSettings(
            batch_size=inferencer.batch_size,
            stride=inferencer.stride,
            backend="tensorrt_config" if on_tensorrt else "tlt_config" if on_keras else "",
            tlt_model=inferencer.tlt_config.model if on_keras else None,
            trt_engine=inferencer.tensorrt_config.trt_engine if on_tensorrt else None,
            kitti_dump=handler.kitti_dump,
            overlay_linewidth=handler.overlay_linewidth,
        ),
    )


def _frozen(items: Mapping[str, _Value]) -> Mapping[str, _Value]:
    return MappingProxyType(dict(items))
