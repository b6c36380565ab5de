"""The strides that a spec states or implies, to hold against a model's."""

from __future__ import annotations

from dataclasses import dataclass

from tao2serve.tao.spec_values import ExperimentSpec, ModelSettings

__all__ = ["StatedStride", "fits_stride", "stated_strides", "template_stride"]

# Of TAO's templates, from its source and from running it (docs/tao.md). efficientnet_b0 and darknet are meant to
# be cut to 16 in DetectNet_v2 and come out with 32: both are let pass.
_STRIDES = {
    "resnet": (16,),
    "vgg": (16,),
    "googlenet": (16,),
    "mobilenet_v1": (16,),
    "mobilenet_v2": (16,),
    "squeezenet": (16,),
    "darknet": (16, 32),
    "efficientnet_b0": (16, 32),
}
_POOLED_RESNET = 224  # 32, and an average pooling of 7


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedStride:
    """Strides that would fit what `source` says."""

    strides: tuple[int, ...]
    source: str

    def __str__(self) -> str:
        return f"{self.source}: {' or '.join(map(str, self.strides))}"


def stated_strides(spec: ExperimentSpec) -> tuple[StatedStride, ...]:
    """Return what spec and clustering file say of the stride; empty where nothing follows from them."""
    found: list[StatedStride] = []
    if spec.inference and spec.inference.stride:
        found.append(StatedStride(strides=(spec.inference.stride,), source=f"inferencer_config.stride in {spec.path}"))
    if spec.clustering_file and spec.clustering_file.stride:
        found.append(
            StatedStride(strides=(spec.clustering_file.stride,), source=f"stride in {spec.clustering_file.path}")
        )
    if spec.model and (implied := _implied(spec.model)):
        name = f"{spec.arch}{' with use_pooling' if spec.model.use_pooling else ''}"
        found.append(StatedStride(strides=implied, source=f"{name}, as model_config in {spec.path} has it"))
    return tuple(found)


def template_stride(arch: str, *, use_pooling: bool) -> int | None:
    """Return the stride that a template comes out with, None for one that is not known."""
    if arch == "resnet" and use_pooling:
        return _POOLED_RESNET
    return max(_STRIDES[arch]) if arch in _STRIDES else None


def fits_stride(pixels: int, cells: int, stride: int) -> bool:
    """Say whether a stride can give so many cells along one side.

    TAO's layers halve an odd size downward (pooling of 2) or upward (convolution, pooling of 3), so several of
    them end between the floor and the ceiling of the quotient.
    """
    return stride > 0 and pixels // stride <= cells <= -(-pixels // stride)


def _implied(model: ModelSettings) -> tuple[int, ...]:
    if model.load_graph:
        return ()  # the graph is that of pretrained_model_file, whatever the spec says beside it
    if model.arch == "resnet" and model.use_pooling:
        return (_POOLED_RESNET,)
    return _STRIDES.get(model.arch, ())
