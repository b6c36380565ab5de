"""An experiment spec, examined for training, for serving and for being tracked, before any of it is begun."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tao2serve.errors import InputError
from tao2serve.tao.params import to_params
from tao2serve.tao.project_name import too_short_in
from tao2serve.tao.schema import SPEC_FAMILIES
from tao2serve.tao.spec import read_spec
from tao2serve.tao.spec_class_check import check_classes, check_clustering
from tao2serve.tao.spec_fields_check import check_fields
from tao2serve.tao.spec_findings import Finding
from tao2serve.tao.spec_tree import SpecSyntaxError, SpecTree, parse_tree
from tao2serve.tao.spec_view import View, root_view
from tao2serve.tao.stride import template_stride
from tao2serve.tao.text import parse_text, read_text

__all__ = ["CheckedSpec", "check_spec"]

_PLACE: Final = re.compile(r"^(\d+):\d+ : (.*)", re.DOTALL)
_QUANTIZED_IN_VAIN: Final = ("mobilenet_v1", "mobilenet_v2")
_GRID_LIMIT: Final = (
    "the grid's cells are not a stride apart, and NVIDIA's own programs then disagree on where boxes lie"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedSpec:
    """What was found, in the order of the file; `kind` is experiment or inference."""

    path: Path
    kind: str
    classes: tuple[str, ...]
    stride: int | None  # None where the graph is another file's
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")


def check_spec(path: Path) -> CheckedSpec:
    """Examine a training or inference spec and return all that is wrong with it.

    Raises InputError for a file that is missing, no text, or a spec of another kind.
    """
    text = read_text(path)
    broken = _broken(path, text)
    if broken is not None:
        return CheckedSpec(path=path, kind="", classes=(), stride=None, findings=(broken,))
    tree = parse_tree(text)
    root = root_view(tree)
    for name, family in SPEC_FAMILIES.items():
        if root.has(name):
            raise InputError(str(path), f"is {family}, not a DetectNet_v2 experiment spec", evidence=f"it has {name}")
    if root.has("inferencer_config") or root.has("bbox_handler_config"):
        inferencer = root.message("inferencer_config")
        classes = [scalar.string for block in inferencer.blocks for scalar in block.scalars("target_classes")]
        kind, stride, found = "inference", int(inferencer.number("stride")) or None, list(_inference(root, classes))
    else:
        classes = [target.text("name") for target in root.message("cost_function_config").messages("target_classes")]
        kind, stride, found = "experiment", _stride(root), list(_training(root, tree))
    if not any(finding.severity == "error" for finding in found):
        found += _unusable(path)
    order = sorted(found, key=lambda finding: (finding.line or 0, finding.field))
    return CheckedSpec(
        path=path, kind=kind, classes=tuple(dict.fromkeys(classes)), stride=stride, findings=tuple(dict.fromkeys(order))
    )


def _broken(path: Path, text: str) -> Finding | None:
    try:
        parse_text(path, text, "Spec")
        parse_tree(text)
    except (InputError, SpecSyntaxError) as error:
        said = error.evidence or error.fact if isinstance(error, InputError) else str(error)
        place = _PLACE.match(said)
        return Finding(
            severity="error", stage="training", field="", line=int(place[1]) if place else None,
            problem=place[2] if place else said, why="TAO reads no further, and neither does anything that serves",
            remedy="mend the text: fields are `name: value` or `name { … }`, texts stand in quotes",
        )  # fmt: skip
    return None


def _training(root: View, tree: SpecTree) -> Iterator[Finding]:
    yield from check_fields(tree)
    yield from check_classes(root)
    yield from _sizes(root.message("augmentation_config").message("preprocessing"), _stride(root), root)
    yield from _schedule(root)
    yield from _tracking(root.message("training_config"))


def _stride(root: View) -> int | None:
    """Return the stride of the network that the spec builds; None if the graph is that of another file."""
    model = root.message("model_config")
    if model.truth("load_graph"):
        return None
    return template_stride(model.text("arch"), use_pooling=model.truth("use_pooling"))


def _sizes(image: View, stride: int | None, root: View) -> Iterator[Finding]:
    if not image.exists:
        return
    arch = root.message("model_config").text("arch")
    for name in ("output_image_width", "output_image_height"):
        pixels = int(image.number(name))
        if stride and pixels and pixels % stride:
            near = sorted({max(stride, pixels // stride * stride), -(-pixels // stride) * stride})
            yield Finding(
                severity="error", stage="serving", field=image.at(name), line=image.line_of(name),
                problem=f"is {pixels}, not a multiple of {stride}, the stride of {arch or 'the network'}"
                + (" with use_pooling" if stride > 32 else ""),
                why=_GRID_LIMIT, remedy=f"take {' or '.join(map(str, near))}",
            )  # fmt: skip
    channels = int(image.number("output_image_channel"))
    if channels not in (1, 3):
        yield Finding(
            severity="error", stage="serving", field=image.at("output_image_channel"),
            line=image.line_of("output_image_channel"), problem=f"is {channels}",
            why="pictures have 3 channels, or 1 in gray: nothing else can be trained or served",
            remedy="output_image_channel: 3",
        )  # fmt: skip


def _schedule(root: View) -> Iterator[Finding]:
    training, evaluation = root.message("training_config"), root.message("evaluation_config")
    epochs = training.number("num_epochs")
    visualizer = training.message("visualizer")
    every = visualizer.number("infrequent_logging_frequency") or 1
    if visualizer.truth("enabled") and epochs and every > epochs:
        yield Finding(
            severity="error", stage="training", field=visualizer.at("infrequent_logging_frequency"),
            line=visualizer.line_of("infrequent_logging_frequency"),
            problem=f"is {every:g}, and there are {epochs:g} epochs",
            why="TAO ends in a ValueError before the first epoch", remedy=f"give {epochs:g} or less",
        )  # fmt: skip
    first = evaluation.number("first_validation_epoch")
    if epochs and first > epochs:
        yield Finding(
            severity="warning", stage="training", field=evaluation.at("first_validation_epoch"),
            line=evaluation.line_of("first_validation_epoch"),
            problem=f"is {first:g}, after the last of {epochs:g} epochs",
            why="the run is never evaluated: no mAP is in ClearML or status.json to choose it by",
            remedy=f"give {epochs:g} or less",
        )  # fmt: skip
    model = root.message("model_config")
    if training.truth("enable_qat") and model.text("arch") in _QUANTIZED_IN_VAIN:
        yield Finding(
            severity="warning", stage="training", field=training.at("enable_qat"), line=training.line_of("enable_qat"),
            problem=f"is true, and TAO trains {model.text('arch')} without quantization all the same",
            why="the model has no scales for int8", remedy="enable_qat: false",
        )  # fmt: skip


def _tracking(training: View) -> Iterator[Finding]:
    if not training.exists:
        return
    visualizer = training.message("visualizer")
    clearml = visualizer.message("clearml_config")
    if not clearml.exists:
        yield Finding(
            severity="warning", stage="tracking", field=clearml.path,
            line=(visualizer if visualizer.exists else training).line, problem="is missing",
            why="ClearML hears nothing of the run: no metrics, no model to choose and deploy",
            remedy="tao2serve spec patch SPEC --project NAME --task NAME --in-place",
        )  # fmt: skip
        return
    yield from _named(clearml)
    if not visualizer.truth("enabled"):
        yield Finding(
            severity="warning", stage="tracking", field=visualizer.at("enabled"), line=visualizer.line_of("enabled"),
            problem="is not true", why="ClearML gets the losses, but not the mAP and AP of the evaluations as scalars",
            remedy="tao2serve spec patch SPEC … --debug-image-every N, or enabled: true and num_images: 3",
        )  # fmt: skip
    for name in ("continue_last_task", "reuse_last_task_id"):
        if clearml.truth(name):
            yield Finding(
                severity="warning", stage="tracking", field=clearml.at(name), line=clearml.line_of(name),
                problem="is true", why="a retraining may then write over the task of the training before it",
                remedy=f"{name}: false",
            )  # fmt: skip


def _named(clearml: View) -> Iterator[Finding]:
    project = clearml.text("project")
    short = too_short_in(project)
    if short is not None:
        yield Finding(
            severity="error", stage="tracking", field=clearml.at("project"), line=clearml.line_of("project"),
            problem=f"is {project!r}; " + ("a name is wanted" if not project else f"{short!r} is too short"),
            why="ClearML takes no part of a project's path shorter than 3 characters; TAO then trains on untracked"
            if project
            else "the run lands in a project that ClearML's client makes up",
            remedy="tao2serve spec patch SPEC --project NAME --task NAME --in-place",
        )  # fmt: skip
    if not clearml.text("task").strip():
        yield Finding(
            severity="warning", stage="tracking", field=clearml.at("task"), line=clearml.line_of("task"),
            problem="is empty", why="all runs are then named detectnet_v2_train and their time, pruned or not",
            remedy="tao2serve spec patch SPEC --project NAME --task NAME --in-place",
        )  # fmt: skip
    tags = [scalar.string for block in clearml.blocks for scalar in block.scalars("tags")]
    if any(not tag.strip() for tag in tags):
        yield Finding(
            severity="warning", stage="tracking", field=clearml.at("tags"), line=clearml.line_of("tags"),
            problem="holds an empty tag", why="no run can be chosen by it", remedy="take it out",
        )  # fmt: skip


def _inference(root: View, classes: list[str]) -> Iterator[Finding]:
    inferencer = root.message("inferencer_config")
    stride = int(inferencer.number("stride")) or 16
    for name in ("image_width", "image_height"):
        pixels = int(inferencer.number(name))
        if pixels < 1 or pixels % stride:
            yield Finding(
                severity="error", stage="serving", field=inferencer.at(name), line=inferencer.line_of(name),
                problem=f"is {pixels}, not a multiple of the stride, {stride}", why=_GRID_LIMIT,
                remedy="give the size that the model was trained with",
            )  # fmt: skip
    yield from check_clustering(
        root.message("bbox_handler_config"),
        "classwise_bbox_handler_config",
        classes,
        algorithms=False,
        fallback="default",
    )


def _unusable(path: Path) -> Iterator[Finding]:
    """What keeps the spec from being served, in the words that `deploy` would end with."""
    try:
        to_params(read_spec(path))
    except InputError as error:
        yield Finding(
            severity="error", stage="serving", field="", line=None,
            problem=f"{error.fact}{f': {error.evidence}' if error.evidence else ''}", why="deploy refuses it",
            remedy=error.hint or "see docs/tao.md",
        )  # fmt: skip
