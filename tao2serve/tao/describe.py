"""What kind of TAO model a Keras file holds: template, depth, pruned or not.

The file does not say (docs/tao.md), so it is told by the layers: which classes occur, and
whether the channel counts are those the template starts with. Pruning leaves irregular ones behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tao2serve.tao.keras import KerasLayer, KerasModel

__all__ = ["ModelDescription", "describe"]

_CONVOLUTIONS = frozenset({"Conv2D", "QuantizedConv2D"})
_HEADS = frozenset({"output_cov", "output_bbox"})
_RESNET_BASIC = {4: 10, 8: 18, 16: 34}  # number of residual blocks → depth
_RESNET_BOTTLENECK = {16: 50, 33: 101}
_RESNET_BLOCK = re.compile(r"block_(\d)[a-z]+_conv_(\d|shortcut)$")

_WIDTHS = {
    "vgg": {64, 128, 256, 512},
    "darknet": {32, 64, 128, 256, 512, 1024},
    "squeezenet": {16, 32, 48, 64, 96, 128, 192, 256},
    "googlenet": {16, 24, 32, 48, 64, 96, 112, 128, 144, 160, 192, 208, 224, 256, 288, 320, 384},
    "mobilenet_v1": {32, 64, 128, 256, 512, 1024},
    "mobilenet_v2": {16, 24, 32, 64, 96, 144, 160, 192, 320, 384, 576, 960, 1280},
    "efficientnet_b0": {
        *(4, 6, 8, 10, 20, 28, 48),  # squeeze-and-excite
        *(16, 24, 32, 40, 80, 96, 112, 144, 192, 240, 320, 480, 672, 1152, 1280),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """`template` is TAO's `arch`; `num_layers` is None where it has no meaning or is not recognised."""

    template: str
    num_layers: int | None
    pruned: bool  # False also for a model pruned so evenly that every channel count is a usual one
    quantization_aware: bool
    parameter_count: int


def describe(model: KerasModel) -> ModelDescription:
    """Tell template, depth and pruning from the layers. Every DetectNet_v2 model gets an answer."""
    convolutions = [x for x in model.layers if x.class_name in _CONVOLUTIONS and x.name not in _HEADS]
    template = _template(model)
    return ModelDescription(
        template=template,
        num_layers=_depth(template, model, len(convolutions)),
        pruned=_resnet_pruned(convolutions) if template == "resnet" else _pruned(template, convolutions),
        quantization_aware=model.quantization_aware,
        parameter_count=sum(weight.values.size for layer in model.layers for weight in layer.weights),
    )


def _template(model: KerasModel) -> str:
    classes = {layer.class_name.removeprefix("Quantized") for layer in model.layers}
    if "DepthwiseConv2D" in classes:
        if "Multiply" in classes:
            return "efficientnet_b0"
        return "mobilenet_v2" if "Add" in classes else "mobilenet_v1"
    if "LeakyReLU" in classes:
        return "darknet"
    if "Concatenate" in classes:
        is_fire = any(layer.name.startswith("fire") for layer in model.layers)
        return "squeezenet" if is_fire else "googlenet"
    return "resnet" if "Add" in classes else "vgg"


def _depth(template: str, model: KerasModel, convolutions: int) -> int | None:
    additions = sum(layer.class_name == "Add" for layer in model.layers)
    if template == "resnet":
        has_bottleneck = any(layer.name.endswith("_conv_3") for layer in model.layers)
        return (_RESNET_BOTTLENECK if has_bottleneck else _RESNET_BASIC).get(additions)
    if template == "darknet":
        return 53 if additions else 19
    if template == "vgg":
        return {13: 16, 16: 19}.get(convolutions)
    return None


def _filters(layer: KerasLayer) -> int:
    return layer.pair("filters")[0]


def _pruned(template: str, convolutions: Iterable[KerasLayer]) -> bool:
    return any(_filters(layer) not in _WIDTHS[template] for layer in convolutions)


def _resnet_pruned(convolutions: Iterable[KerasLayer]) -> bool:
    """Stage n of a ResNet has 64·2ⁿ⁻¹ channels, four times that behind a bottleneck; the stem has 64."""
    layers = tuple(convolutions)
    widening = 4 if any(layer.name.endswith("_conv_3") for layer in layers) else 1
    for layer in layers:
        block = _RESNET_BLOCK.search(layer.name)
        width = 64 << (int(block[1]) - 1) if block else 64
        if block and block[2] in ("3", "shortcut"):
            width *= widening
        if _filters(layer) != width:
            return True
    return False
