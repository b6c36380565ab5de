"""ClearML tracking, written into the text of an experiment spec.

Nothing but `training_config.visualizer.clearml_config` is changed, unless debug images are asked for: those are three
more fields of the visualizer. TAO merges what a file says twice, the later value counting, and so does this.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import InputError, Tao2ServeError, UsageError
from tao2serve.tao.project_name import SHORTEST_NAME, too_short_in
from tao2serve.tao.schema import SPEC_FAMILIES
from tao2serve.tao.spec_edit import Edit, NewField, appended, apply_edits, given, quoted, removed, replaced, shortened
from tao2serve.tao.spec_tree import Block, Field, Scalar, SpecSyntaxError, SpecTree, parse_tree
from tao2serve.tao.text import parse_text, read_text

__all__ = ["PatchedSpec", "TrackingPatch", "patch_spec", "patched_text"]

_DEBUG_IMAGES: Final = 3  # as many as NVIDIA's tutorial has; none at all would end TAO when it draws them
_PATH: Final = ("training_config", "visualizer", "clearml_config")
_IMAGE_FIELDS: Final = ("enabled", "num_images", "infrequent_logging_frequency")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingPatch:
    """What is to be written. `tags` None leaves those that are there, else they become exactly these."""

    project: str
    task: str
    tags: tuple[str, ...] | None = None
    debug_image_every: int | None = None  # epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchedSpec:
    """A spec's text before and after."""

    path: Path
    before: str
    after: str

    @property
    def changed(self) -> bool:
        return self.before != self.after


def patch_spec(path: Path, patch: TrackingPatch) -> PatchedSpec:
    """Return the spec with this tracking in it; nothing is written, and patching again changes nothing more.

    Raises InputError for what is no training spec, or where debug images would come after the last epoch;
    UsageError for a name that ClearML does not take.
    """
    _check_names(patch)
    text = read_text(path)
    return PatchedSpec(path=path, before=text, after=patched_text(path, text, patch))


def patched_text(path: Path, text: str, patch: TrackingPatch) -> str:
    """Return a spec's text with this tracking in it, as `patch_spec` does for a file; `path` is what errors name."""
    _require_training_spec(path, text)
    after = _tracked(path, text, patch)
    if patch.debug_image_every is not None:
        after = _with_debug_images(path, after, patch.debug_image_every)
    _require_nothing_else(path, text, after, with_images=patch.debug_image_every is not None)
    return after


def _check_names(patch: TrackingPatch) -> None:
    for option, value in (
        ("--project", patch.project),
        ("--task", patch.task),
        *(("--tag", tag) for tag in patch.tags or ()),
    ):
        if not value.strip() or not value.isprintable():
            raise UsageError(option, f"is {value!r}", hint="give a name of printable characters")
    short = too_short_in(patch.project)
    if short is not None:
        raise UsageError(
            "--project",
            f"is {patch.project!r}, and ClearML takes no part of it shorter than {SHORTEST_NAME} characters",
            evidence=f"{short!r}",
        )


def _require_training_spec(path: Path, text: str) -> None:
    message = parse_text(path, text, "Spec")
    family = next((family for name, family in SPEC_FAMILIES.items() if len(getattr(message, name))), None)
    if family is None and message.HasField("inferencer_config"):
        family = "an inference spec"
    if family is not None or not message.HasField("training_config"):
        raise InputError(
            str(path),
            f"is {family}, and no training run" if family else "has no training_config",
            hint="give the spec that `detectnet_v2 train` is run with",
        )


def _tree(path: Path, text: str) -> SpecTree:
    try:
        return parse_tree(text)
    except SpecSyntaxError as error:
        raise InputError(str(path), "cannot be edited: its text is not understood", evidence=str(error)) from error


def _tracked(path: Path, text: str, patch: TrackingPatch) -> str:
    tree = _tree(path, text)
    blocks = tree.walk(*_PATH)
    if not blocks:
        tags = tuple(NewField(name="tags", value=quoted(tag)) for tag in dict.fromkeys(patch.tags or ()))
        fields = (
            NewField(name="project", value=quoted(patch.project)),
            NewField(name="task", value=quoted(patch.task)),
            *tags,
        )
        return apply_edits(text, [_with_parents(tree, NewField(name="clearml_config", fields=fields))])
    edits: list[Edit] = []
    added: list[NewField] = []
    for name, value in (("project", patch.project), ("task", patch.task)):
        edit, new = _set_string(blocks, name, value)
        edits += edit
        added += new
    if patch.tags is not None:
        edit, new = _set_tags(tree, blocks, patch.tags)
        edits += edit
        added += new
    if added:
        edits.append(appended(tree, blocks[-1], added))
    return apply_edits(text, edits)


def _with_parents(tree: SpecTree, field: NewField) -> Edit:
    """Add a field to the visualizer, which is made if there is none."""
    visualizers = tree.walk(*_PATH[:2])
    if visualizers:
        return appended(tree, visualizers[-1], [field])
    return appended(tree, tree.walk(_PATH[0])[-1], [NewField(name="visualizer", fields=(field,))])


def _last(blocks: tuple[Block, ...], name: str) -> Field | None:
    """Return the field that counts: TAO merges, and the last one wins."""
    found = [field for block in blocks for field in block.all(name)]
    return found[-1] if found else None


def _set_string(blocks: tuple[Block, ...], name: str, value: str) -> tuple[list[Edit], list[NewField]]:
    field = _last(blocks, name)
    if field is None:
        return [], [NewField(name=name, value=quoted(value))]
    (scalar,) = field.values
    if isinstance(scalar, Block) or scalar.string == value:
        return [], []
    return [replaced(field, quoted(value, quote=scalar.text[:1] if scalar.is_string else '"'))], []


def _set_tags(tree: SpecTree, blocks: tuple[Block, ...], tags: tuple[str, ...]) -> tuple[list[Edit], list[NewField]]:
    missing = list(dict.fromkeys(tags))
    edits: list[Edit] = []
    for field in (field for block in blocks for field in block.all("tags")):
        keep = []
        for position, value in enumerate(field.values):
            if not isinstance(value, Block) and value.string in missing:
                missing.remove(value.string)
                keep.append(position)
        if not keep:
            edits.append(removed(tree, field))
        elif len(keep) < len(field.values):
            edits += shortened(tree, field, keep)
    return edits, [NewField(name="tags", value=quoted(tag)) for tag in missing]


def _with_debug_images(path: Path, text: str, every: int) -> str:
    """Have TAO draw its predictions each so many epochs; ClearML shows TensorFlow's pictures as debug samples."""
    epochs = parse_text(path, text, "Spec").training_config.num_epochs
    if every > epochs:
        raise InputError(
            str(path),
            f"trains {epochs} epochs, and TAO refuses to draw images every {every}",
            hint=f"give --debug-image-every {epochs} or less" if epochs else "give training_config.num_epochs",
        )
    values = ("true", str(_DEBUG_IMAGES), str(every))
    enough: tuple[Callable[[Scalar], bool], ...] = (
        lambda scalar: scalar.truth,
        lambda scalar: bool(scalar.number),
        lambda scalar: scalar.number == every,
    )
    for name, value, is_enough in zip(_IMAGE_FIELDS, values, enough, strict=True):
        text = _set_in_visualizer(path, text, name, value, is_enough)
    return text


def _set_in_visualizer(path: Path, text: str, name: str, value: str, is_enough: Callable[[Scalar], bool]) -> str:
    tree = _tree(path, text)
    visualizers = tree.walk(*_PATH[:2])
    field = _last(visualizers, name)
    if field is not None and all(isinstance(scalar, Block) or is_enough(scalar) for scalar in field.values):
        return text
    return apply_edits(text, [given(tree, visualizers, name, value)])


def _require_nothing_else(path: Path, before: str, after: str, *, with_images: bool) -> None:
    """Hold the two texts against each other, field by field: a defect of ours must never reach a file."""
    parse_text(path, after, "Spec")
    ignored = {_PATH, *(((*_PATH[:2], name)) for name in (_IMAGE_FIELDS if with_images else ()))}
    if _content(_tree(path, before).root, (), ignored) != _content(_tree(path, after).root, (), ignored):
        raise Tao2ServeError(str(path), "would be changed in more than its tracking", hint="report it with the spec")


def _content(block: Block, at: tuple[str, ...], ignored: Collection[tuple[str, ...]]) -> list[Any]:
    """Return all fields of a message but those ignored, as they are written; a visualizer left empty is none."""
    found: list[Any] = []
    for field in block.fields:
        path = (*at, field.name)
        if path in ignored:
            continue
        values = [_content(value, path, ignored) if isinstance(value, Block) else value.text for value in field.values]
        if path != _PATH[:2] or values != [[]]:
            found.append((field.name, values))
    return found
