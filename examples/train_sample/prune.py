"""Channel pruning as TAO's `prune` does it: by norm, in groups, with equal channels where an Add joins two paths."""

from __future__ import annotations

from dataclasses import replace

import torch
from network import DetectNet

__all__ = ["pruned"]


def _strength(network: DetectNet, conv: str, norm: str) -> torch.Tensor:
    """L2 norm of each output channel of a convolution with its batch normalisation folded in."""
    kernel, bn = network.layers[conv].weight, network.layers[norm]
    gain = bn.weight.abs() / torch.sqrt(bn.running_var + bn.eps)
    return kernel.flatten(1).norm(dim=1) * gain


def _kept(strength: torch.Tensor, *, threshold: float, granularity: int, minimum: int) -> torch.Tensor:
    """Indices, in order, of channels stronger than `threshold` of the strongest; their number is rounded up."""
    wanted = int((strength > threshold * strength.max()).sum())
    count = min(max(-(-wanted // granularity) * granularity, minimum), len(strength))
    return torch.sort(torch.topk(strength, count).indices).values


def pruned(network: DetectNet, *, threshold: float = 0.5, granularity: int = 8, minimum: int = 16) -> DetectNet:
    """Return a narrower network that starts from this one's strongest channels; `network` is unchanged.

    Granularity and minimum are TAO's defaults. PyTorch 2.13 on CPU also needs the minimum: training a 7x7 stem
    with 8 output channels in channels-last layout corrupts its heap.
    """
    with torch.no_grad():
        return _pruned(network, threshold, granularity, minimum)


def _pruned(network: DetectNet, threshold: float, granularity: int, minimum: int) -> DetectNet:
    plan, source = network.plan, network.state_dict()

    def kept(strength: torch.Tensor) -> torch.Tensor:
        return _kept(strength, threshold=threshold, granularity=granularity, minimum=minimum)

    channels: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}  # layer → kept inputs, kept outputs
    inputs = kept(_strength(network, "conv1", "bn_conv1"))
    channels["conv1"] = (torch.arange(plan.input_chw[0]), inputs)
    stem, blocks = len(inputs), []
    for block in plan.blocks:
        name = block.name
        hidden = kept(_strength(network, f"{name}_conv_1", f"{name}_bn_1"))
        # Both paths into the Add keep the union of what either needs: the larger of the two strengths decides.
        out = kept(
            torch.maximum(
                _strength(network, f"{name}_conv_2", f"{name}_bn_2"),
                _strength(network, f"{name}_conv_shortcut", f"{name}_bn_shortcut"),
            )
        )
        channels[f"{name}_conv_1"] = (inputs, hidden)
        channels[f"{name}_conv_2"] = (hidden, out)
        channels[f"{name}_conv_shortcut"] = (inputs, out)
        blocks.append(replace(block, hidden=len(hidden), out=len(out)))
        inputs = out
    for head in ("output_bbox", "output_cov"):
        channels[head] = (inputs, torch.arange(network.layers[head].out_channels))

    target = DetectNet(replace(plan, stem=stem, blocks=tuple(blocks)))
    weights = target.state_dict()
    for key in weights:
        _, layer, part = key.split(".")
        conv = {"bn_conv1": "conv1"}.get(layer, layer.replace("_bn_", "_conv_"))
        kept_in, kept_out = channels[conv]
        if part == "num_batches_tracked":
            weights[key] = source[key].clone()
        elif source[key].dim() == 4:
            weights[key] = source[key][kept_out][:, kept_in].clone()
        else:
            weights[key] = source[key][kept_out].clone()
    target.load_state_dict(weights)
    return target
