"""What is worth saying about a spec, or about a spec and a model, without being an error."""

from __future__ import annotations

from tao2serve.tao.describe import ModelDescription
from tao2serve.tao.spec_values import ExperimentSpec, ModelSettings

__all__ = ["notes_on"]

_DEFAULT_LAYERS = 18  # what TAO reads num_layers 0 as
_COUNTED_TEMPLATES = ("resnet", "vgg", "darknet")  # the others have one depth
_NEVER_QUANTIZED = ("mobilenet_v1", "mobilenet_v2")


def notes_on(spec: ExperimentSpec, *, description: ModelDescription | None = None) -> tuple[str, ...]:
    """Return plain sentences on differences that do no harm by themselves; empty when there are none.

    `description` is that of the Keras file, where there is one.
    """
    notes = [*_notes_on_mapping(spec)]
    if spec.clustering_file:
        notes += spec.clustering_file.notes
    if description and spec.model:
        notes += _notes_on_graph(spec.model, description)
        notes += _notes_on_quantization(spec, description)
    return tuple(notes)


def _notes_on_graph(model: ModelSettings, description: ModelDescription) -> list[str]:
    if model.load_graph or not model.arch:
        return []  # the graph is that of pretrained_model_file
    if model.arch != description.template:
        return [f"the spec says arch {model.arch}, the graph looks like {description.template}"]
    said = model.num_layers or _DEFAULT_LAYERS
    if model.arch in _COUNTED_TEMPLATES and description.num_layers not in (None, said):
        return [f"the spec says {said} layers, the graph looks like {model.arch}{description.num_layers}"]
    return []


def _notes_on_quantization(spec: ExperimentSpec, description: ModelDescription) -> list[str]:
    if spec.enable_qat and not description.quantization_aware:
        if description.template in _NEVER_QUANTIZED:
            return [f"enable_qat is true, but TAO trains {description.template} without quantization all the same"]
        return ["enable_qat is true, but the model has no quantization layers"]
    if description.quantization_aware and not spec.enable_qat:
        return ["the model has quantization layers, but enable_qat is not true"]
    return []


def _notes_on_mapping(spec: ExperimentSpec) -> list[str]:
    mapping = spec.training.target_class_mapping if spec.training else {}
    capital = sorted(name for name in mapping if name != name.lower())
    strange = sorted({value for value in mapping.values() if value not in spec.classes})
    notes = []
    if capital:
        notes.append(
            f"target_class_mapping has keys with capital letters ({', '.join(capital[:10])}): TAO's converter makes "
            "the names in the labels lower case, so these keys map nothing"
        )
    if strange:
        notes.append(f"target_class_mapping maps to what is no target class: {', '.join(strange[:10])}")
    return notes
