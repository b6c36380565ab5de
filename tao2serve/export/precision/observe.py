"""Run a model on pictures and look at the tensors inside it, one picture at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from tao2serve.errors import InputError
from tao2serve.export.inference import open_session
from tao2serve.export.precision.nodes import copy_of, with_outputs
from tao2serve.runtime import DetectorParams, ImageError, preprocess
from tao2serve.runtime.preprocess import MAX_BYTES
from tao2serve.runtime.values import Float32

__all__ = ["Observed", "Picture", "float_tensors", "largest_values", "pictures"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image as the network sees it; `tensor` is (1, C, H, W), `size` the original (width, height)."""

    path: Path
    tensor: Float32
    size: tuple[int, int]


class Observed:
    """A model in onnxruntime that also gives the tensors `names`."""

    def __init__(self, model: ModelProto, names: Sequence[str], *, subject: str) -> None:
        self._subject = subject
        self._names = list(names)
        self._session: Any = open_session(with_outputs(model, names).SerializeToString())
        self._input = self._session.get_inputs()[0].name

    def run(self, batch: Float32) -> dict[str, Float32]:
        """Return the tensors for a batch (N, C, H, W). Raises InputError where the run fails."""
        try:
            values = self._session.run(self._names, {self._input: batch})
        except Exception as error:  # onnxruntime's errors share no base of their own
            raise InputError(self._subject, "cannot be run", evidence=str(error)[:300]) from error
        return dict(zip(self._names, values, strict=True))


def float_tensors(model: ModelProto, *, subject: str) -> tuple[str, ...]:
    """Return the inputs and the tensors that nodes make, as far as they are float32."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:  # its own InferenceError, or a RuntimeError
        raise InputError(subject, "has a graph that contradicts itself", evidence=str(error)[:300]) from error
    described = (*graph.input, *graph.value_info, *graph.output)
    typed = {item.name for item in described if item.type.tensor_type.elem_type == TensorProto.FLOAT}
    fixed = {item.name for item in model.graph.initializer}
    made = [item.name for item in model.graph.input] + [name for node in model.graph.node for name in node.output]
    return tuple(dict.fromkeys(name for name in made if name in typed - fixed))


def pictures(paths: Sequence[Path], params: DetectorParams) -> Iterator[Picture]:
    """Yield the images as they are served. Raises InputError, once all were tried, naming those that are none."""
    refused: list[str] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                tensor, size = preprocess(file.read(MAX_BYTES + 1), params)
        except (ImageError, OSError) as error:
            refused.append(f"{path.name}: {error}"[:200])
            continue
        yield Picture(path=path, tensor=tensor[None], size=size)
    if refused:
        raise InputError(
            str(paths[0].parent),
            f"{len(refused)} of {len(paths)} images cannot be used",
            evidence="; ".join(refused[:5]),
        )


def largest_values(
    model: ModelProto,
    names: Sequence[str],
    batches: Iterable[Float32],
    *,
    subject: str,
    seen: Callable[[int], None] = lambda _: None,
) -> dict[str, float]:
    """Return the largest absolute value of each tensor over all batches; infinite where one is not a number.

    The graph itself reduces each tensor to a number, so that no more than its own working memory is needed.
    """
    reduced = copy_of(model)
    largest, total = _added_names(names, "largest"), _added_names(names, "total")
    for name in names:
        magnitude = f"{name}/magnitude"
        reduced.graph.node.extend(
            (
                helper.make_node("Abs", [name], [magnitude]),
                helper.make_node("ReduceMax", [magnitude], [largest[name]], keepdims=0),
                # A maximum may pass over what is not a number, a sum cannot.
                helper.make_node("ReduceMean", [magnitude], [total[name]], keepdims=0),
            )
        )
    observed = Observed(reduced, [*largest.values(), *total.values()], subject=subject)
    amax = dict.fromkeys(names, 0.0)
    for number, batch in enumerate(batches, start=1):
        values = observed.run(batch)
        for name in names:
            value = float(values[largest[name]])
            finite = np.isfinite(value) and np.isfinite(values[total[name]])
            amax[name] = max(amax[name], value) if finite else float("inf")
        seen(number)
    return amax


def _added_names(names: Sequence[str], role: str) -> dict[str, str]:
    return {name: f"{name}/{role}" for name in names}
