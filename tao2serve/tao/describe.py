"""What kind of TAO model a Keras file holds: template, depth, pruned or not, and what is unusual about it.

The file does not say (docs/tao.md), so it is told by the layers: how the first ones are named, what joins
them, and whether the channel counts are those the template starts with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tao2serve.tao.keras import KerasLayer, KerasModel
from tao2serve.tao.widths import designed_filters

__all__ = ["KNOWN_CLASSES", "ModelDescription", "describe"]

#: The layers DetectNet_v2 models are made of: TAO's templates, their pruned and their quantization-aware forms.
KNOWN_CLASSES = frozenset(
    {
        *("InputLayer", "Conv2D", "DepthwiseConv2D", "QuantizedConv2D", "QuantizedDepthwiseConv2D"),
        *("BatchNormalization", "Activation", "ReLU", "LeakyReLU", "Dropout", "SpatialDropout2D", "QDQ"),
        *("MaxPooling2D", "AveragePooling2D", "GlobalAveragePooling2D", "ZeroPadding2D", "Reshape"),
        *("Add", "Multiply", "Concatenate"),
    }
)

_CONVOLUTIONS = frozenset({"Conv2D", "QuantizedConv2D"})
_HEADS = frozenset({"output_cov", "output_bbox"})
_RESNET_BASIC = {4: 10, 8: 18, 16: 34}  # number of residual blocks → depth
_RESNET_BOTTLENECK = {16: 50, 33: 101, 50: 152, 66: 200}
# A layer only this template has. Quantization-aware training changes classes, never these names.
_TELLING_NAMES = {
    "stem_conv": "efficientnet_b0",
    "conv_dw_1": "mobilenet_v1",
    "expanded_conv_depthwise": "mobilenet_v2",
    "conv1_lrelu": "darknet",
    "fire2_squeeze_conv": "squeezenet",
    "inception_3a_1x1": "googlenet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """`template` is TAO's `arch`; `num_layers` is None where it has no meaning or is not recognised.

    `use_pooling` and `all_projections` are TAO's settings, None for templates that do not have them; a ResNet 10
    has a projection in every block whatever was asked for. `unusual` says, for a person, what no template has.
    """

    template: str
    num_layers: int | None
    pruned: bool
    quantization_aware: bool
    batch_norm: bool
    use_pooling: bool | None
    all_projections: bool | None
    parameter_count: int
    unusual: tuple[str, ...]


def describe(model: KerasModel) -> ModelDescription:
    """Tell template, depth and pruning from the layers. Every DetectNet_v2 model gets an answer."""
    layers = {layer.name: layer for layer in model.layers}
    convolutions = [x for x in model.layers if x.class_name in _CONVOLUTIONS and x.name not in _HEADS]
    template = _template(layers)
    classes = {layer.class_name for layer in model.layers}
    additions = sum(layer.class_name == "Add" for layer in model.layers)
    projections = sum(layer.name.endswith("_conv_shortcut") for layer in convolutions)
    return ModelDescription(
        template=template,
        num_layers=_depth(template, layers, additions, len(convolutions)),
        pruned=_is_pruned(template, convolutions),
        quantization_aware=model.quantization_aware,
        batch_norm="BatchNormalization" in classes,
        use_pooling="MaxPooling2D" in classes if template in ("resnet", "vgg") else None,
        all_projections=projections == additions if template == "resnet" else None,
        parameter_count=sum(weight.values.size for layer in model.layers for weight in layer.weights),
        unusual=_unusual(model, convolutions, template),
    )


def _template(layers: Mapping[str, KerasLayer]) -> str:
    for name, template in _TELLING_NAMES.items():
        if name in layers:
            return template
    # Names that are not TAO's: the operations still tell the family.
    classes = {layer.class_name.removeprefix("Quantized") for layer in layers.values()}
    if "DepthwiseConv2D" in classes:
        if "Multiply" in classes:
            return "efficientnet_b0"
        return "mobilenet_v2" if "Add" in classes else "mobilenet_v1"
    if "LeakyReLU" in classes:
        return "darknet"
    if "Concatenate" in classes:
        return "googlenet" if "BatchNormalization" in classes else "squeezenet"
    return "resnet" if "Add" in classes else "vgg"


def _depth(template: str, layers: Mapping[str, KerasLayer], additions: int, convolutions: int) -> int | None:
    if template == "resnet":
        return (_RESNET_BOTTLENECK if _has_bottleneck(layers) else _RESNET_BASIC).get(additions)
    if template == "darknet":
        return 53 if additions else 19
    if template == "vgg":
        return {13: 16, 16: 19}.get(convolutions)
    return None


def _has_bottleneck(names: Iterable[str]) -> bool:
    return any(name.endswith("_conv_3") for name in names)


def _is_pruned(template: str, convolutions: list[KerasLayer]) -> bool:
    bottleneck = _has_bottleneck(layer.name for layer in convolutions)
    for layer in convolutions:
        designed = designed_filters(template, layer.name, bottleneck=bottleneck)
        if designed is not None and layer.pair("filters")[0] != designed:
            return True
    return False


def _unusual(model: KerasModel, convolutions: list[KerasLayer], template: str) -> tuple[str, ...]:
    """Name what no template has: layers by their class, convolutions by their name, the first few of these."""
    foreign = [f"layer {x.name} is a {x.class_name}" for x in model.layers if x.class_name not in KNOWN_CLASSES]
    unknown = [x.name for x in convolutions if designed_filters(template, x.name) is None]
    if unknown:
        foreign.append(f"convolutions that {template} does not have: {', '.join(unknown[:5])}")
    return tuple(foreign)
