"""How many channels each convolution of a TAO template starts with, by the layer's name; pruning leaves fewer.

From tao_tensorflow1_backend, core/templates, TAO 5.0.
"""

from __future__ import annotations

import re

__all__ = ["designed_filters"]

# 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5, pool_proj
_INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_INCEPTION_PARTS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
_MOBILENET_V1 = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
_MOBILENET_V2 = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
_EFFICIENTNET = (32, 16, 24, 40, 80, 112, 192, 320)  # the stem, then each stage
_STEMS = {
    "resnet": {"conv1": 64},
    "googlenet": {"conv1": 64, "conv2_reduce": 64, "conv2": 192},
    "squeezenet": {"conv1": 96},
    "mobilenet_v1": {"conv1": 32},
    "mobilenet_v2": {"conv1": 32, "expanded_conv_project": 16, "conv_1": 1280},
    "efficientnet_b0": {"stem_conv": 32, "top_conv": 1280},
}


def designed_filters(template: str, name: str, *, bottleneck: bool = False) -> int | None:
    """Return the channels of convolution `name` before pruning, None for a name the template does not have.

    `bottleneck` tells a ResNet of 50 layers or more.
    """
    stem = _STEMS.get(template, {}).get(name)
    if stem is not None:
        return stem
    if template in ("resnet", "vgg"):
        return _block_filters(template, name, bottleneck=bottleneck)
    if template == "darknet":
        return _darknet_filters(name)
    if found := re.fullmatch(r"fire([2-9])_(squeeze_conv|expand_conv\dx\d)", name):
        return 16 * (int(found[1]) // 2) * (1 if found[2] == "squeeze_conv" else 4)
    if (found := re.fullmatch(r"inception_(\d[a-e])_(\w+)", name)) and found[2] in _INCEPTION_PARTS:
        widths = _INCEPTION.get(found[1])
        return widths and widths[_INCEPTION_PARTS.index(found[2])]
    if found := re.fullmatch(r"conv_pw_(\d+)", name):
        return _at(_MOBILENET_V1, int(found[1]) - 1)
    if template == "mobilenet_v2" and (found := re.fullmatch(r"block_(\d+)_(expand|project)", name)):
        block = int(found[1]) - (found[2] == "expand")
        width = _at(_MOBILENET_V2, block)
        return width and width * (6 if found[2] == "expand" else 1)
    if found := re.fullmatch(r"block([1-7])([a-z])_(expand_conv|se_reduce|se_expand|project_conv)", name):
        return _efficientnet_filters(int(found[1]), found[2], found[3])
    return None


def _at(widths: tuple[int, ...], index: int) -> int | None:
    return widths[index] if 0 <= index < len(widths) else None


def _block_filters(template: str, name: str, *, bottleneck: bool) -> int | None:
    found = re.fullmatch(r"block_([1-5])[a-z]+_conv_(\d|shortcut)", name)
    if not found:
        return None
    width = min(64 << (int(found[1]) - 1), 512)
    is_end = template == "resnet" and found[2] in ("3", "shortcut")
    return width * 4 if is_end and bottleneck else width


def _darknet_filters(name: str) -> int | None:
    if found := re.fullmatch(r"conv([1-6])", name):
        return 16 << int(found[1])
    if found := re.fullmatch(r"b([1-5])_conv\d_([12])", name):  # 53
        return (16 << int(found[1])) * int(found[2])
    if found := re.fullmatch(r"b([1-5])_conv([1-5])", name):  # 19
        return (32 << int(found[1])) >> (int(found[2]) % 2 == 0)
    return None


def _efficientnet_filters(stage: int, letter: str, part: str) -> int:
    before = _EFFICIENTNET[stage - 1] if letter == "a" else _EFFICIENTNET[stage]
    if part == "project_conv":
        return _EFFICIENTNET[stage]
    if part == "se_reduce":
        return before // 4
    return before * (1 if stage == 1 else 6)
