"""DetectNet_v2 on a ResNet template, as TAO builds it, in PyTorch.

The modules carry the names of TAO's Keras layers, so a state dict maps onto an HDF5 file name by name.
Padding is TAO's patched one: `same` pads both sides by (k - 1 + 1) // 2, which is what PyTorch's symmetric
`padding` argument does; stock TF `same` at stride 2 would shift the features by a pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

__all__ = ["BlockPlan", "DetectNet", "NetworkPlan", "resnet_plan"]

_BN_EPSILON = 1e-3
_BN_MOMENTUM_KERAS = 0.99
_STAGE_BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2)}
_STAGE_STRIDES = (2, 2, 2, 1)  # with the stem's stride 2 that makes 16 input pixels per grid cell


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """One residual block: `hidden` channels after conv_1, `out` channels after conv_2 and the shortcut."""

    name: str  # block_1a …
    add_name: str  # add_1 …
    stride: int
    hidden: int
    out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """Everything that fixes the graph; two networks with equal plans share their state dict's shapes."""

    num_layers: int
    classes: int
    input_chw: tuple[int, int, int]
    stem: int
    blocks: tuple[BlockPlan, ...]

    @property
    def name(self) -> str:
        return f"resnet{self.num_layers}_nopool_bn_detectnet_v2"


def resnet_plan(
    num_layers: int, widths: tuple[int, int, int, int], *, stem: int, classes: int, input_chw: tuple[int, int, int]
) -> NetworkPlan:
    """Plan the unpruned ResNet-10 or -18 template with `widths` channels in its four stages."""
    blocks: list[BlockPlan] = []
    for stage, (count, width, stride) in enumerate(
        zip(_STAGE_BLOCKS[num_layers], widths, _STAGE_STRIDES, strict=True), start=1
    ):
        for index in range(count):
            blocks.append(
                BlockPlan(
                    name=f"block_{stage}{'abcdef'[index]}",
                    add_name=f"add_{len(blocks) + 1}",
                    stride=stride if index == 0 else 1,
                    hidden=width,
                    out=width,
                )
            )
    return NetworkPlan(num_layers=num_layers, classes=classes, input_chw=input_chw, stem=stem, blocks=tuple(blocks))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_BN_EPSILON, momentum=1 - _BN_MOMENTUM_KERAS)


class DetectNet(nn.Module):
    """The network: (N, C, H, W) in [0, 1] → coverage logits (N, K, H/16, W/16), bbox (N, 4K, H/16, W/16).

    Coverage comes out before its sigmoid (the exported layer has it), because the training cost is stabler so.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__()
        self.plan = plan
        self.layers = nn.ModuleDict({"conv1": _conv(plan.input_chw[0], plan.stem, 7, 2), "bn_conv1": _norm(plan.stem)})
        channels = plan.stem
        for block in plan.blocks:
            self.layers.update(
                {
                    f"{block.name}_conv_1": _conv(channels, block.hidden, 3, block.stride),
                    f"{block.name}_bn_1": _norm(block.hidden),
                    f"{block.name}_conv_2": _conv(block.hidden, block.out, 3),
                    f"{block.name}_bn_2": _norm(block.out),
                    f"{block.name}_conv_shortcut": _conv(channels, block.out, 1, block.stride),
                    f"{block.name}_bn_shortcut": _norm(block.out),
                }
            )
            channels = block.out
        self.layers["output_bbox"] = _conv(channels, 4 * plan.classes, 1)
        self.layers["output_cov"] = _conv(channels, plan.classes, 1)
        for layer in self.layers.values():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        # Nearly all cells are background: start there, or the first epoch is spent learning it.
        nn.init.normal_(self.layers["output_cov"].weight, std=0.01)
        nn.init.constant_(self.layers["output_cov"].bias, -3.0)
        nn.init.normal_(self.layers["output_bbox"].weight, std=0.01)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        layers = self.layers
        features = torch.relu(layers["bn_conv1"](layers["conv1"](images)))
        for block in self.plan.blocks:
            name = block.name
            hidden = torch.relu(layers[f"{name}_bn_1"](layers[f"{name}_conv_1"](features)))
            main = layers[f"{name}_bn_2"](layers[f"{name}_conv_2"](hidden))
            shortcut = layers[f"{name}_bn_shortcut"](layers[f"{name}_conv_shortcut"](features))
            features = torch.relu(main + shortcut)
        # bfloat16 would round a box to a quarter of a pixel: the two heads always run in float32.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            return layers["output_cov"](features), layers["output_bbox"](features)

    def parameter_count(self) -> int:
        """Count as Keras does: weights, biases and all four vectors of each batch normalisation."""
        return sum(t.numel() for n, t in self.state_dict().items() if not n.endswith("num_batches_tracked"))
