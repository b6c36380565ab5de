"""The part of TAO's experiment spec we read, as protobuf messages built in code (no protoc step).

Text format knows fields by name alone, so the field numbers here are our own. Whatever is not listed is
skipped by the parser, as `allow_unknown_field` promises. Names and types: docs/tao.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["CLUSTERING_FILE_FIELD", "SPEC_FAMILIES", "message_fields", "new_message"]

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": _Field.TYPE_STRING,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "uint32": _Field.TYPE_UINT32,
    "bool": _Field.TYPE_BOOL,
}

CLUSTERING_FILE_FIELD = "classwise_clustering_config"

#: Top-level messages of other kinds of TAO text files, recognised by name only.
SPEC_FAMILIES = {
    "kitti_config": "a dataset conversion spec",
    "coco_config": "a dataset conversion spec",
    CLUSTERING_FILE_FIELD: "a clustering file of tao-toolkit-triton-apps",
    "yolov3_config": "a YOLOv3 experiment spec",
    "yolov4_config": "a YOLOv4 experiment spec",
    "ssd_config": "an SSD experiment spec",
    "dssd_config": "a DSSD experiment spec",
    "retinanet_config": "a RetinaNet experiment spec",
    "lpr_config": "an LPRNet experiment spec",
    "eval_config": "the experiment spec of another TAO network",
    "train_config": "the experiment spec of another TAO network",
}

# message → "field type"; `*` repeats; other capitalised types are messages of this table.
# A map is a repeated {key value} here, which text format writes alike; a later key replaces an earlier one.
_MESSAGES: dict[str, tuple[str, ...]] = {
    "Spec": (
        "dataset_config DatasetConfig",
        "augmentation_config AugmentationConfig",
        "postprocessing_config PostprocessingConfig",
        "model_config ModelConfig",
        "cost_function_config CostFunctionConfig",
        "training_config TrainingConfig",
        "evaluation_config EvaluationConfig",
        "bbox_rasterizer_config Empty",
        "inferencer_config InferencerConfig",
        "bbox_handler_config BboxHandlerConfig",
        *(f"{name} Empty*" for name in SPEC_FAMILIES),
    ),
    "Empty": (),
    "DatasetConfig": ("target_class_mapping ClassMapping*",),
    "ClassMapping": ("key string", "value string"),
    "AugmentationConfig": ("preprocessing Preprocessing",),
    "Preprocessing": (
        "output_image_width uint32",
        "output_image_height uint32",
        "output_image_min uint32",
        "output_image_max uint32",
        "output_image_channel uint32",
        "enable_auto_resize bool",
    ),
    "PostprocessingConfig": ("target_class_config PostprocessingEntry*",),
    "PostprocessingEntry": ("key string", "value PostprocessingClass"),
    "PostprocessingClass": ("clustering_config ClusteringConfig",),
    "ClusteringConfig": (
        "coverage_threshold float",
        "minimum_bounding_box_height int32",
        "clustering_algorithm ClusteringAlgorithm",
        "dbscan_eps float",
        "dbscan_min_samples int32",
        "neighborhood_size int32",
        "dbscan_confidence_threshold float",
        "nms_iou_threshold float",
        "nms_confidence_threshold float",
    ),
    "ModelConfig": (
        "pretrained_model_file string",
        "num_layers int32",
        "use_pooling bool",
        "use_batch_norm bool",
        "dropout_rate float",
        "objective_set ObjectiveSet",
        "freeze_bn bool",
        "freeze_blocks float*",
        "arch string",
        "load_graph bool",
        "all_projections bool",
    ),
    "ObjectiveSet": ("bbox BboxObjective", "cov CoverageObjective"),
    "BboxObjective": ("input string", "scale float", "offset float"),
    "CoverageObjective": ("input string",),
    "CostFunctionConfig": ("target_classes TargetClass*",),
    "TargetClass": ("name string",),
    "TrainingConfig": (
        "batch_size_per_gpu uint32",
        "num_epochs uint32",
        "enable_qat bool",
        "visualizer Visualizer",
    ),
    "Visualizer": ("enabled bool", "clearml_config ClearMLConfig"),
    "ClearMLConfig": (
        "project string",
        "task string",
        "tags string*",
        "reuse_last_task_id bool",
        "continue_last_task bool",
        "deferred_init bool",
    ),
    "InferencerConfig": (
        "tlt_config TltConfig",
        "tensorrt_config TensorrtConfig",
        "batch_size int32",
        "image_height int32",
        "image_width int32",
        "image_channels int32",
        "target_classes string*",
        "stride int32",
    ),
    "TltConfig": ("model string",),
    "TensorrtConfig": ("trt_engine string", "etlt_model string"),
    "BboxHandlerConfig": (
        "kitti_dump bool",
        "disable_overlay bool",
        "overlay_linewidth int32",
        "classwise_bbox_handler_config ClasswiseEntry*",
    ),
    "ClasswiseEntry": ("key string", "value ClasswiseConfig"),
    "ClasswiseConfig": (
        "clustering_config ClusteringConfig",
        "confidence_model string",
        "output_map string",
        "bbox_color BboxColor",
    ),
    "EvaluationConfig": (
        "minimum_detection_ground_truth_overlap Overlap*",
        "evaluation_box_config EvaluationBoxEntry*",
        "average_precision_mode AveragePrecisionMode",
    ),
    "Overlap": ("key string", "value float"),
    "EvaluationBoxEntry": ("key string", "value EvaluationBox"),
    "EvaluationBox": (
        "minimum_height int32",
        "maximum_height int32",
        "minimum_width int32",
        "maximum_width int32",
    ),
    # The clustering file of tao-toolkit-triton-apps; a message of its own, and its root.
    "ClusteringFile": ("linewidth int32", "stride int32", f"{CLUSTERING_FILE_FIELD} ClusteringFileEntry*"),
    "ClusteringFileEntry": ("key string", "value ClusteringFileClass"),
    "ClusteringFileClass": (
        "coverage_threshold float",
        "minimum_bounding_box_height int32",
        "dbscan_config DbscanConfig",
        "bbox_color BboxColor",
    ),
    "DbscanConfig": (
        "dbscan_eps float",
        "dbscan_min_samples float",
        "neighborhood_size int32",
        "dbscan_confidence_threshold float",
    ),
    "BboxColor": ("R int32", "G int32", "B int32"),
}
_ENUMS = {
    "ClusteringAlgorithm": ("DBSCAN", "NMS", "HYBRID"),
    "AveragePrecisionMode": ("SAMPLE", "INTEGRATE"),
}
_PACKAGE = "tao2serve.spec"


def new_message(kind: str) -> Any:
    """Return an empty message: "Spec" holds a training or an inference spec, "ClusteringFile" a clustering file."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{kind}"))()


@cache
def message_fields(kind: str) -> Mapping[str, str]:
    """Return the fields of a message and the message or scalar each holds; none for a kind the schema has not."""
    return MappingProxyType(
        {name: held.rstrip("*") for name, held in (line.split() for line in _MESSAGES.get(kind, ()))}
    )


@cache
def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="tao2serve/spec.proto", package=_PACKAGE, syntax="proto3")
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, line in enumerate(fields, start=1):
            _add_field(message, number, line)
    pool = descriptor_pool.DescriptorPool()  # our own, so that NVIDIA's classes may live in the same process
    pool.Add(file)
    return pool


def _add_field(message: descriptor_pb2.DescriptorProto, number: int, line: str) -> None:
    name, kind = line.split()
    repeated, kind = kind.endswith("*"), kind.rstrip("*")
    added = message.field.add(
        name=name, number=number, label=_Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    )
    if kind in _SCALARS:
        added.type = _SCALARS[kind]
        return
    added.type = _Field.TYPE_ENUM if kind in _ENUMS else _Field.TYPE_MESSAGE
    added.type_name = f".{_PACKAGE}.{kind}"
