"""The spec of a retraining, made of that of the training: the pruned model is loaded with its graph."""

from __future__ import annotations

from pathlib import Path

from tao2serve.errors import InputError
from tao2serve.tao.spec_edit import apply_edits, given, quoted
from tao2serve.tao.spec_patch import TrackingPatch, patched_text
from tao2serve.tao.spec_tree import SpecSyntaxError, parse_tree
from tao2serve.tao.spec_view import root_view
from tao2serve.tao.text import parse_text, read_text

__all__ = ["UNPRUNED", "require_loads", "retraining_spec"]

UNPRUNED, PRUNED = "unpruned", "pruned"


def retraining_spec(spec: Path, *, pruned: str) -> str:
    """Return the text of `spec` with the pruned model, named as the container sees it, in place of the pretrained.

    Nothing else changes, but that a ClearML tag `unpruned` becomes `pruned`. Raises InputError for no training spec.
    """
    text = read_text(spec)
    parse_text(spec, text, "Spec")
    try:
        tree = parse_tree(text)
    except SpecSyntaxError as error:
        raise InputError(str(spec), "cannot be edited: its text is not understood", evidence=str(error)) from error
    models = tree.walk("model_config")
    if not models:
        raise InputError(str(spec), "has no model_config", hint="give the spec that the training is run with")
    for name, value in (("pretrained_model_file", quoted(pruned)), ("load_graph", "true")):
        tree = parse_tree(text)
        text = apply_edits(text, [given(tree, tree.walk("model_config"), name, value)])
    clearml = root_view(parse_tree(text)).message("training_config").message("visualizer").message("clearml_config")
    tags = tuple(scalar.string for block in clearml.blocks for scalar in block.scalars("tags"))
    if UNPRUNED not in tags:
        return text
    renamed = tuple(PRUNED if tag == UNPRUNED else tag for tag in tags)
    patch = TrackingPatch(project=clearml.text("project"), task=clearml.text("task"), tags=renamed)
    return patched_text(spec, text, patch)


def require_loads(spec: Path, *, pruned: str) -> None:
    """Raise InputError if a spec that is given for the retraining would not retrain the pruned model."""
    model = root_view(parse_tree(read_text(spec))).message("model_config")
    named, loads = model.text("pretrained_model_file"), model.truth("load_graph")
    if named != pruned or not loads:
        raise InputError(
            str(spec),
            "would not retrain the pruned model",
            evidence=f"model_config has pretrained_model_file {named!r}, load_graph {str(loads).lower()}",
            hint=f'write pretrained_model_file: "{pruned}" and load_graph: true, or leave the spec out: '
            "it is then made of the training's",
        )
