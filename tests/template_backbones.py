"""TAO's DetectNet_v2 backbones: the same graph, layer names and settings as its own templates make.

Behaviour learned from tao_tensorflow1_backend (core/templates, cv/detectnet_v2/model) at TAO 5.0.
"""

from __future__ import annotations

from template_layers import Backbone

_RESNET_BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
}
_VGG_BLOCKS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
_MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5)
_MOBILENET_V2 = (
    (16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1), (96, 1),
)  # fmt: skip
_DARKNET_19 = {1: (64,), 2: (128, 64, 128), 3: (256, 128, 256), 4: (512, 256, 512, 256, 512),
               5: (1024, 512, 1024, 512, 1024)}  # fmt: skip
_DARKNET_53 = (1, 2, 8, 8, 4)
_EFFICIENTNET = (  # kernel, repeats, channels in, channels out, expansion, stride
    (3, 1, 32, 16, 1, 1), (3, 2, 16, 24, 6, 2), (5, 2, 24, 40, 6, 2), (3, 3, 40, 80, 6, 2),
    (5, 3, 80, 112, 6, 1), (5, 4, 112, 192, 6, 2), (3, 1, 192, 320, 6, 1),
)  # fmt: skip


def _letters(count: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[:count]


def resnet(net: Backbone, *, depth: int, all_projections: bool = True, use_pooling: bool = False) -> None:
    net.beta = 0.9  # most values then pass their ReLU: cut at random, 101 layers turn float noise into chaos
    net.conv("conv1", 64, 7, stride=2)
    net.bn("bn_conv1")
    net.activation()
    if use_pooling:
        net.pool("", 3, 2)
    strides = (1, 2, 2, 2) if use_pooling else (2, 2, 2, 1)
    for stage, (blocks, first_stride) in enumerate(zip(_RESNET_BLOCKS[depth], strides, strict=True), 1):
        base = 64 << (stage - 1)
        parts = [(1, base), (3, base), (1, 4 * base)] if depth >= 50 else [(3, base), (3, base)]
        for letter in _letters(blocks):
            stride = first_stride if letter == "a" else 1
            _residual(net, f"block_{stage}{letter}_", parts, stride, project=all_projections or letter == "a")
    if use_pooling:
        net.pool("", 7, 7, class_name="AveragePooling2D")


def _residual(net: Backbone, prefix: str, parts: list[tuple[int, int]], stride: int, *, project: bool) -> None:
    start = shortcut = net.x
    for number, (kernel, filters) in enumerate(parts, 1):
        net.conv(f"{prefix}conv_{number}", filters, kernel, stride=stride if number == 1 else 1)
        net.bn(f"{prefix}bn_{number}")
        if number < len(parts):
            net.activation(f"{prefix}relu_{number}")
    end = net.x
    if project:
        net.conv(f"{prefix}conv_shortcut", parts[-1][1], 1, stride=stride, padding="valid", feed=start)
        shortcut = net.bn(f"{prefix}bn_shortcut")
    net.sum([end, shortcut])
    net.activation(f"{prefix}relu")


def vgg(net: Backbone, *, depth: int, use_pooling: bool = False) -> None:
    for block, repeats in enumerate(_VGG_BLOCKS[depth], 1):
        for letter in _letters(repeats):
            strided = letter == "a" and block > 1 and not use_pooling
            net.conv(f"block_{block}{letter}_conv_1", min(64 << (block - 1), 512), stride=2 if strided else 1)
            net.bn(f"block_{block}{letter}_bn_1")
            net.activation(f"block_{block}{letter}_relu")
        if use_pooling and block < 5:
            net.pool(f"block{block}_pool", 2, 2)


def googlenet(net: Backbone) -> None:
    def unit(name: str, bn_name: str, filters: int, kernel: int, *, stride: int = 1, feed: str = "") -> str:
        net.conv(name, filters, kernel, stride=stride, feed=feed)
        net.bn(bn_name)
        return net.activation()

    unit("conv1", "bn_conv1", 64, 7, stride=2)
    net.pool("pool1", 2, 2)
    unit("conv2_reduce", "bn_conv2_reduce", 64, 1)
    unit("conv2", "bn_conv2", 192, 3)
    net.pool("pool2", 2, 2)
    for index, widths in _INCEPTION.items():
        start, prefix, ends = net.x, f"inception_{index}_", []
        for branch in (("1x1",), ("3x3_reduce", "3x3"), ("5x5_reduce", "5x5"), ("pool", "pool_proj")):
            feed = start
            for part in branch:
                if part == "pool":
                    feed = net.pool(f"{prefix}pool", 3, 1, feed=feed)
                    continue
                place = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj").index(part)
                kernel = int(part[0]) if part in ("3x3", "5x5") else 1
                feed = unit(prefix + part, f"{prefix}{part}_bn", widths[place], kernel, feed=feed)
            ends.append(feed)
        net.join(ends, f"{prefix}output")
        if index == "3b":
            net.pool("pool3", 2, 2)


def mobilenet_v1(net: Backbone) -> None:
    net.pad("conv1_pad")
    net.conv("conv1", 32, stride=2, padding="valid", bias=False)
    net.bn("conv1_bn")
    net.relu("conv_block_relu")
    for block, (filters, stride) in enumerate(_MOBILENET_V1, 1):
        net.pad(f"conv_pad_{block}")
        net.depthwise(f"conv_dw_{block}", stride=stride)
        net.bn(f"conv_dw_{block}_bn")
        net.relu(f"conv_dw_{block}_relu")
        net.conv(f"conv_pw_{block}", filters, 1, padding="valid", bias=False)
        net.bn(f"conv_pw_{block}_bn")
        net.relu(f"conv_pw_relu_{block}")


def mobilenet_v2(net: Backbone) -> None:
    net.pad("conv1_pad")
    net.conv("conv1", 32, stride=2, padding="valid", bias=False)
    net.bn("bn_conv1", momentum=0.999)
    net.relu("re_lu_0")
    for block, (filters, stride) in enumerate(_MOBILENET_V2):
        start, prefix = net.x, f"block_{block}_" if block else "expanded_conv_"
        is_residual = block > 0 and stride == 1 and _MOBILENET_V2[block - 1][0] == filters
        if block:
            net.conv(f"{prefix}expand", 6 * _MOBILENET_V2[block - 1][0], 1, padding="valid", bias=False)
            net.bn(f"{prefix}expand_bn", momentum=0.999)
            net.relu(f"re_lu_{block + 1}")
        net.pad(f"{prefix}depthwise_pad")
        net.depthwise(f"{prefix}depthwise", stride=stride)
        net.bn(f"{prefix}depthwise_bn", momentum=0.999)
        net.relu(f"{prefix}relu")
        net.conv(f"{prefix}project", filters, 1, padding="valid", bias=False)
        net.bn(f"{prefix}project_bn", momentum=0.999)
        if is_residual:
            net.sum([start, net.x], f"{prefix}add")


def darknet(net: Backbone, *, depth: int) -> None:
    def unit(name: str, filters: int, kernel: int, *, stride: int = 1) -> str:
        net.conv(name, filters, kernel, stride=stride, bias=False)
        net.bn(f"{name}_bn")
        return net.leaky(f"{name}_lrelu")

    unit("conv1", 32, 3)
    for block in range(1, 6):
        if depth == 19:
            net.pool(f"maxpool_{block}", 2, 2)
            for number, filters in enumerate(_DARKNET_19[block], 1):
                unit(f"b{block}_conv{number}", filters, 3 if number % 2 else 1)
            continue
        unit(f"conv{block + 1}", 32 << block, 3, stride=2)
        for number in range(1, _DARKNET_53[block - 1] + 1):
            start = net.x
            unit(f"b{block}_conv{number}_1", 16 << block, 1)
            unit(f"b{block}_conv{number}_2", 32 << block, 3)
            net.sum([start, net.x], f"b{block}_add{number}")


def squeezenet(net: Backbone) -> None:
    net.conv("conv1", 96, 7, stride=2)
    net.activation("conv1_relu")
    net.pool("pool1", 3, 2)
    for block in range(2, 10):
        squeeze, prefix = 16 * (block // 2), f"fire{block}_"
        net.conv(f"{prefix}squeeze_conv", squeeze, 1)
        start = net.activation(f"{prefix}squeeze")
        net.conv(f"{prefix}expand_conv1x1", 4 * squeeze, 1)
        left = net.activation(f"{prefix}expand_1x1")
        net.conv(f"{prefix}expand_conv3x3", 4 * squeeze, 3, feed=start)
        right = net.activation(f"{prefix}expand_3x3")
        net.join([left, right], f"fire{block}")
        if block in (4, 8):
            net.pool(f"pool{block}", 3, 2)


def efficientnet_b0(net: Backbone) -> None:
    """TAO asks for stride 16 here, but the list it cuts is a copy: the model has stride 32."""
    height, width = net.file.input_chw[1:]

    def pad(name: str, kernel: int) -> None:
        """One zero less at the start where the size is even, as TAO works it out when it builds the model."""
        half = kernel // 2
        net.pad(name, [[half - 1 + height % 2, half], [half - 1 + width % 2, half]])

    pad("stem_conv_pad", 3)
    net.conv("stem_conv", 32, stride=2, padding="valid", bias=False)
    net.bn("stem_bn")
    net.activation("stem_activation", "swish")
    height, width = (height + 1) // 2, (width + 1) // 2
    number = 0
    for stage, (kernel, repeats, first_in, filters, expansion, first_stride) in enumerate(_EFFICIENTNET, 1):
        for letter in _letters(repeats):
            prefix, start = f"block{stage}{letter}_", net.x
            designed_in, stride = (first_in, first_stride) if letter == "a" else (filters, 1)
            if expansion > 1:
                net.conv(f"{prefix}expand_conv", expansion * designed_in, 1, bias=False)
                net.bn(f"{prefix}expand_bn")
                net.activation(f"{prefix}expand_activation", "swish")
            if stride == 2:
                pad(f"{prefix}dwconv_pad", kernel)
                height, width = (height + 1) // 2, (width + 1) // 2
            net.depthwise(f"{prefix}dwconv", kernel, stride=stride, padding="valid" if stride == 2 else "same")
            net.bn(f"{prefix}bn")
            _excite(net, prefix, designed_in // 4, expansion * designed_in)
            net.conv(f"{prefix}project_conv", filters, 1, bias=False)
            net.bn(f"{prefix}project_bn")
            if stride == 1 and designed_in == filters:
                if number:
                    config = {"rate": 0.2 * number / 16, "noise_shape": [None, 1, 1, 1], "seed": None}
                    net.add(f"{prefix}drop", "Dropout", config, [net.x], net.width)
                net.sum([net.x, start], f"{prefix}add")
            number += 1
    net.conv("top_conv", 1280, 1, bias=False)
    net.bn("top_bn")
    net.activation("top_activation", "swish")


def _excite(net: Backbone, prefix: str, squeezed: int, expanded: int) -> None:
    source = net.activation(f"{prefix}activation", "swish")
    width = net.width
    net.add(f"{prefix}se_squeeze", "GlobalAveragePooling2D", {"data_format": "channels_first"}, [source], width)
    net.add(f"{prefix}se_reshape", "Reshape", {"target_shape": [-1, 1, 1]}, [net.x], width)
    net.conv(f"{prefix}se_reduce", squeezed, 1, activation="swish")
    net.conv(f"{prefix}se_expand", expanded, 1, activation="sigmoid")
    net.add(f"{prefix}se_excite", "Multiply", {}, [source, net.x], width)
