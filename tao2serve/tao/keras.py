"""A Keras model as TAO saves it, as frozen values: layers, what feeds them, their weights.

Layer settings are read through the accessors here, so a setting that is missing or of another type is an
InputError that names file and layer, never a KeyError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from tao2serve.errors import InputError

__all__ = ["IDENTITY_CLASSES", "Array", "KerasLayer", "KerasModel", "Weight"]

Array = npt.NDArray[np.float32]

#: Layers that change no value when a trained model is used. TAO's own exporter drops QDQ as well.
IDENTITY_CLASSES = frozenset({"Dropout", "SpatialDropout2D", "QDQ"})

_MAX_SETTING = 1 << 16  # no kernel, stride, pad or channel count of a real network comes near


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One array of a layer; `name` is Keras's own, e.g. `conv1_1/kernel:0`; `values` is read-only float32."""

    name: str
    values: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasLayer:
    """One layer: its settings as in the file's JSON, what feeds it, its weights in Keras's order."""

    name: str
    class_name: str
    config: Mapping[str, object]
    inbound: tuple[str, ...]
    weights: tuple[Weight, ...]
    path: Path  # the file it came from, for errors

    def fail(self, fact: str, *, evidence: str = "", hint: str = "") -> NoReturn:
        """Raise InputError about this layer."""
        raise InputError(f"{self.path}: layer {self.name}", fact, evidence=evidence, hint=hint)

    def text(self, key: str, default: str) -> str:
        value = self.config.get(key, default)
        if value is None:
            return default
        if not isinstance(value, str):
            self.fail(f"{key} is not a name", evidence=repr(value)[:200])
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            self.fail(f"{key} is not true or false", evidence=repr(value)[:200])
        return value

    def number(self, key: str, default: float | None) -> float | None:
        """Return a finite number; the default also stands for an explicit null.

        An activation's limit may be saved as a Keras scalar, `{"class_name": "__ndarray__", "value": 0.1}`.
        """
        value = self.config.get(key, default)
        if isinstance(value, dict) and "value" in value:
            value = value["value"]
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
            self.fail(f"{key} is not a finite number", evidence=repr(value)[:200])
        return float(value)

    def pair(self, key: str, default: int | None = None) -> tuple[int, int]:
        """Return a (height, width) setting, each at least 1; one number stands for both."""
        value = self.config.get(key, default)
        both = [value, value] if isinstance(value, int) else value
        if not isinstance(both, list) or len(both) != 2:
            self.fail(f"{key} is not a pair of numbers", evidence=repr(value)[:200])
        height, width = (self._count(key, item, least=1) for item in both)
        return height, width

    def padding_sides(self) -> tuple[int, int, int, int]:
        """Return ZeroPadding2D's (top, bottom, left, right)."""
        value = self.config.get("padding")
        if isinstance(value, int):
            value = [value, value]
        if not isinstance(value, list) or len(value) != 2:
            self.fail("padding is not a pair", evidence=repr(value)[:200])
        sides: list[int] = []
        for item in value:
            pair = [item, item] if isinstance(item, int) else item
            if not isinstance(pair, list) or len(pair) != 2:
                self.fail("padding is not a pair of pairs", evidence=repr(value)[:200])
            sides += [self._count("padding", side, least=0) for side in pair]
        return sides[0], sides[1], sides[2], sides[3]

    def integers(self, key: str) -> tuple[int | None, ...]:
        """Return a shape as saved: numbers, null for an open dimension."""
        value = self.config.get(key)
        if not isinstance(value, list) or len(value) > 8:
            self.fail(f"{key} is not a shape", evidence=repr(value)[:200])
        for item in value:
            if item is not None and (isinstance(item, bool) or not isinstance(item, int) or abs(item) > 1 << 30):
                self.fail(f"{key} is not a shape", evidence=repr(value)[:200])
        return tuple(value)

    def weight(self, index: int, shape: tuple[int, ...], role: str) -> Array:
        """Return weight `index`, which must have `shape`."""
        if index >= len(self.weights):
            self.fail(f"has no {role}", evidence=f"weights: {[w.name for w in self.weights] or 'none'}")
        values = self.weights[index].values
        if values.shape != shape:
            self.fail(
                f"{role} does not fit the layer",
                evidence=f"{self.weights[index].name} is {values.shape}, the layer needs {shape}",
            )
        return values

    def expect_weights(self, count: int) -> None:
        """Raise InputError unless the layer has exactly `count` weights."""
        if len(self.weights) != count:
            names = [w.name for w in self.weights] or "none"
            self.fail(f"needs {count} weights, has {len(self.weights)}", evidence=f"weights: {names}")

    def _count(self, key: str, value: object, *, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MAX_SETTING:
            self.fail(f"{key} is out of range", evidence=repr(value)[:200])
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasModel:
    """A whole model. `layers` are ordered so that a layer comes after all that feed it."""

    path: Path
    sha256: str
    name: str
    keras_version: str
    layers: tuple[KerasLayer, ...]
    inputs: tuple[str, ...]  # names of InputLayers
    outputs: tuple[str, ...]  # names of the layers whose values leave the model

    @property
    def quantization_aware(self) -> bool:
        """Whether it was trained with quantization in the loop (it then carries QDQ layers)."""
        return any(x.class_name == "QDQ" or x.class_name.startswith("Quantized") for x in self.layers)

    def source_of(self, name: str) -> str:
        """Follow layers that change nothing back to the layer that makes the value."""
        by_name = {layer.name: layer for layer in self.layers}
        while by_name[name].class_name in IDENTITY_CLASSES:
            name = by_name[name].inbound[0]
        return name

    @property
    def coverage(self) -> str:
        """The layer that makes the coverage grid."""
        return self._output("output_cov")

    @property
    def bbox(self) -> str:
        """The layer that makes the bbox grid."""
        return self._output("output_bbox")

    def _output(self, wanted: str) -> str:
        for name in self.outputs:
            if name == wanted or self.source_of(name) == wanted:
                return name
        raise InputError(
            str(self.path),
            f"is not a DetectNet_v2 model: it has no output {wanted}",
            evidence=f"outputs: {', '.join(self.outputs)[:500]}",
            hint="a pretrained backbone or a model of another TAO network cannot be served as a detector",
        )
