"""The experiment spec → what accuracy is measured with."""

from __future__ import annotations

from types import MappingProxyType
from typing import cast, get_args

from tao2serve.errors import InputError
from tao2serve.parity.accuracy import AccuracySettings, ClassSettings, Mode
from tao2serve.tao.spec_values import EvaluationSettings, ExperimentSpec

__all__ = ["accuracy_settings"]


def accuracy_settings(spec: ExperimentSpec) -> AccuracySettings:
    """Return the settings TAO would evaluate with.

    A spec without evaluation_config (inference specs have none) gives IoU 0.5, all sizes and SAMPLE, which is
    what tao_deploy evaluates with. Raises InputError where TAO would refuse: a class without its overlap or its
    box limits; and for settings under which no box could count.
    """
    evaluation = spec.evaluation
    mapping = spec.training.target_class_mapping if spec.training else {}
    classes = tuple(
        ClassSettings(name=name) if evaluation is None else _class_settings(spec, evaluation, name)
        for name in spec.classes
    )
    mode = "SAMPLE" if evaluation is None else evaluation.average_precision_mode
    if mode not in get_args(Mode):
        raise InputError(str(spec.path), "has an unknown average_precision_mode", evidence=mode)
    return AccuracySettings(
        network_size=(spec.input.width, spec.input.height),
        classes=classes,
        class_mapping=MappingProxyType(dict(mapping)),
        mode=cast(Mode, mode),
    )


def _class_settings(spec: ExperimentSpec, evaluation: EvaluationSettings, name: str) -> ClassSettings:
    missing = [
        field
        for field, keys in (
            ("minimum_detection_ground_truth_overlap", evaluation.minimum_overlap),
            ("evaluation_box_config", evaluation.boxes),
        )
        if name not in keys
    ]
    if missing:
        raise InputError(
            str(spec.path),
            f"does not say how class {name} is evaluated",
            evidence=f"evaluation_config has no {' and no '.join(missing)} with that key",
            hint="TAO refuses such a spec too; `default` is not a key here",
        )
    overlap, box = evaluation.minimum_overlap[name], evaluation.boxes[name]
    if not 0 <= overlap <= 1:
        raise InputError(
            str(spec.path), f"has a minimum overlap for class {name} that is no IoU", evidence=f"{overlap:g}"
        )
    if not (0 <= box.minimum_height <= box.maximum_height > 0 and 0 <= box.minimum_width <= box.maximum_width > 0):
        raise InputError(
            str(spec.path),
            f"has box limits for class {name} that no box is within",
            evidence=f"height {box.minimum_height} to {box.maximum_height}, "
            f"width {box.minimum_width} to {box.maximum_width}; what is left out reads as 0",
            hint="maximum_height and maximum_width are usually 9999",
        )
    return ClassSettings(
        name=name,
        minimum_overlap=overlap,
        minimum_height=box.minimum_height,
        maximum_height=box.maximum_height,
        minimum_width=box.minimum_width,
        maximum_width=box.maximum_width,
    )
