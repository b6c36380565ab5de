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

import numpy as np
from google.protobuf import text_format

from tao2serve.errors import InputError
from tao2serve.tao.schema import SPEC_FAMILIES, new_spec_message
from tao2serve.tao.spec_values import (
    ClassHandling,
    ClearMLConfig,
    Clustering,
    ExperimentSpec,
    InferenceSettings,
    InputSize,
    ModelSettings,
    TrainingSettings,
)

__all__ = ["ExperimentSpec", "read_spec"]

_Value = TypeVar("_Value")

_MAX_BYTES = 8 << 20  # the tutorials' specs are 10 KB
_MAX_NESTING = 64  # theirs nest 6 deep; the parser recurses


def read_spec(path: Path) -> ExperimentSpec:
    """Read a training or inference spec.

    Raises InputError for a file that is missing, is not text format (with line and column), is a spec of
    another kind, or names no classes or no input size.
    """
    message = _parse(path, _read_text(path))
    for name, family in SPEC_FAMILIES.items():
        if len(getattr(message, name)):
            raise InputError(
                str(path),
                f"is {family}, not a DetectNet_v2 experiment spec",
                evidence=f"it has {name}",
                hint="give the spec that `detectnet_v2 train` or `detectnet_v2 inference` was run with",
            )
    if message.HasField("inferencer_config") or message.HasField("bbox_handler_config"):
        spec = _inference(path, message)
    else:
        spec = _training(path, message)
    _check(spec)
    return spec


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise InputError(str(path), "is too large for an experiment spec", evidence=f"{size} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(str(path), "cannot be read", evidence=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise InputError(str(path), "is not a text file", evidence=str(error)) from error


def _parse(path: Path, text: str) -> Any:
    message = new_spec_message()
    if max(text.count("{"), text.count("<"), text.count("[")) > 100_000 or _nesting(text) > _MAX_NESTING:
        raise InputError(str(path), "nests too deeply for an experiment spec")
    try:
        text_format.Parse(text, message, allow_unknown_field=True)
    except text_format.ParseError as error:
        raise InputError(str(path), "is not protobuf text format as TAO reads it", evidence=str(error)[:300]) from error
    except (ValueError, TypeError, OverflowError, RecursionError, AssertionError) as error:
        # the parser lets some broken literals through to Python's own conversions
        raise InputError(
            str(path),
            "is not protobuf text format as TAO reads it",
            evidence=f"{type(error).__name__}: {str(error)[:200]}",
        ) from error
    return message


def _nesting(text: str) -> int:
    """Return the deepest nesting, counting brackets in strings too: an upper bound is enough."""
    depth = deepest = 0
    for character in text:
        if character in "{<[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}>]":
            depth -= 1
    return deepest


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


def _shortest(value: float) -> float:
    """Return the shortest decimal with the same float32 value, which is what the author wrote."""
    return float(str(np.float32(value)))


def _clustering(config: Any) -> Clustering:
    kind = config.DESCRIPTOR.fields_by_name["clustering_algorithm"].enum_type
    known = kind.values_by_number.get(config.clustering_algorithm)
    return Clustering(
        algorithm=known.name if known else str(config.clustering_algorithm),
        coverage_threshold=_shortest(config.coverage_threshold),
        minimum_bounding_box_height=config.minimum_bounding_box_height,
        dbscan_eps=_shortest(config.dbscan_eps),
        dbscan_min_samples=config.dbscan_min_samples,
        dbscan_confidence_threshold=_shortest(config.dbscan_confidence_threshold),
        nms_iou_threshold=_shortest(config.nms_iou_threshold),
        nms_confidence_threshold=_shortest(config.nms_confidence_threshold),
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
        bbox_scale=_shortest(objectives.bbox.scale) if objectives.HasField("bbox") else None,
        bbox_offset=_shortest(objectives.bbox.offset) if objectives.HasField("bbox") else None,
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
        freeze_blocks=tuple(_shortest(item) for item in config.freeze_blocks),
        dropout_rate=_shortest(config.dropout_rate),
        has_coverage=config.objective_set.HasField("cov"),
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
