"""Run a model file here: Keras HDF5 by our numpy reading of it, ONNX by onnxruntime, a plan by TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tao2serve.errors import InputError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.encrypted import ENCRYPTED_SUFFIXES, refuse_encrypted
from tao2serve.export.engine.execute import run_plan
from tao2serve.export.engine.fit import require_fit
from tao2serve.export.engine.machine import read_machine
from tao2serve.export.engine.plan import is_plan, plan_artifact, read_plan
from tao2serve.export.graph.build import build_onnx
from tao2serve.export.inference import Provider, open_session
from tao2serve.export.lean import GraphDecoding, decoding_in
from tao2serve.export.reference import Outputs, forward
from tao2serve.export.signature import load_onnx, signature_of
from tao2serve.images import Pixels, network_input
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.keras import Array
from tao2serve.values import ModelSignature

__all__ = ["ModelKind", "OpenModel", "input_dtype", "open_model", "sample_images", "sample_pixels"]

ModelKind: TypeAlias = Literal["keras_hdf5", "onnx", "tensorrt_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model file, ready to run.

    `run` takes images as the network does, (N, C, H, W) float32 in [0, 1] or (N, H, W, 3) uint8 pixels; `see` takes
    pixels for any.
    """

    path: Path
    kind: ModelKind
    precision: str  # fp32 | fp16 | int8
    signature: ModelSignature
    forward: Callable[[Array], Outputs]
    decoding: GraphDecoding | None = None  # what its graph decodes boxes with, where it does and says so

    def see(self, pixels: Pixels) -> Outputs:
        """Run it on pixels (N, H, W, 3) uint8 RGB of the network's size, scaled here if the graph does not.

        Raises InputError for pixels of another size.
        """
        size = (self.signature.height, self.signature.width, 3)
        if pixels.ndim != 4 or not len(pixels) or pixels.shape[1:] != size or pixels.dtype != np.uint8:
            raise InputError(
                str(self.path),
                "cannot take these pixels",
                evidence=f"{pixels.dtype} {pixels.shape}, the model wants uint8 (N, {', '.join(map(str, size))})",
            )
        return self.run(network_input(pixels, self.signature))

    def run(self, images: Array) -> Outputs:
        """Return coverage and bbox, computed image by image, so that a batch costs the memory of one.

        Raises InputError for images of another size.
        """
        fits = self.signature.takes_pixels == (images.dtype == np.uint8)
        if not fits or images.ndim != 4 or not len(images) or images.shape[1:] != self.signature.input.shape:
            raise InputError(
                str(self.path),
                "cannot take these images",
                evidence=f"images {images.shape}{'' if fits else f' of {images.dtype}'}, the model wants "
                f"(N, {', '.join(map(str, self.signature.input.shape))})"
                + (" of uint8" if self.signature.takes_pixels else ""),
            )
        parts = [self.forward(images[index : index + 1]) for index in range(len(images))]
        return Outputs(
            coverage=np.concatenate([part.coverage for part in parts]),
            bbox=np.concatenate([part.bbox for part in parts]),
            boxes="absolute" if self.signature.gives_boxes else "offsets",
        )


def open_model(path: Path, *, provider: Provider = "cpu") -> OpenModel:
    """Open a model file by what it holds; an ONNX file runs on onnxruntime's `provider`.

    Raises InputError if it is none, damaged, or a plan that does not fit this machine; ToolError for a plan where
    there is no TensorRT, and a provider that is not there.
    """
    if not path.is_file():
        raise InputError(str(path), "is no file" if path.exists() else "does not exist")
    if path.suffix.lower() in ENCRYPTED_SUFFIXES:
        refuse_encrypted(path)
    if is_hdf5(path):
        return _open_hdf5(path)
    if is_plan(path):
        return _open_plan(path)
    return _open_onnx(path, provider)


def _open_plan(path: Path) -> OpenModel:
    plan = read_plan(path)
    artifact = plan_artifact(plan)
    require_fit(plan, read_machine())
    return OpenModel(
        path=path,
        kind="tensorrt_plan",
        precision=artifact.precision,
        signature=artifact.signature,
        forward=lambda images: run_plan(path, images),
    )


def _open_hdf5(path: Path) -> OpenModel:
    model = read_keras_hdf5(path)
    return OpenModel(
        path=path,
        kind="keras_hdf5",
        precision="fp32",
        signature=signature_of(build_onnx(model), subject=str(path)),
        forward=lambda images: forward(model, images),
    )


def _open_onnx(path: Path, provider: Provider) -> OpenModel:
    artifact = accept_onnx(path)  # which also keeps its weights inside its folder
    signature = artifact.signature
    session = open_session(path, provider=provider)
    names = [signature.coverage.name, signature.bbox.name]
    taken = input_dtype(signature)

    def run(images: Array) -> Outputs:
        try:
            coverage, bbox = session.run(names, {signature.input.name: images.astype(taken, copy=False)})
        except Exception as error:  # its exceptions share no base of their own
            raise InputError(str(path), "cannot be run by onnxruntime", evidence=str(error)[:300]) from error
        return Outputs(coverage=coverage.astype(np.float32), bbox=bbox.astype(np.float32))

    return OpenModel(
        path=path,
        kind="onnx",
        precision=artifact.precision,
        signature=signature,
        forward=run,
        decoding=decoding_in(load_onnx(path)) if signature.gives_boxes else None,
    )


def input_dtype(signature: ModelSignature) -> np.dtype[Any]:
    """Return numpy's type of a network's input."""
    return np.dtype({"FP16": "float16", "UINT8": "uint8"}.get(signature.input.datatype, "float32"))


def sample_images(signature: ModelSignature, *, count: int = 2, seed: int = 0) -> NDArray[Any]:
    """Return `count` synthetic images as the network takes them: soft blobs under noise, always the same.

    (N, C, H, W) float32 in [0, 1], or uint8 (N, H, W, 3).
    """
    if signature.takes_pixels:
        return sample_pixels(signature, count=count, seed=seed)
    return _blobs(count, signature.input.shape, seed)


def sample_pixels(signature: ModelSignature, *, count: int = 2, seed: int = 0) -> Pixels:
    """Return synthetic pixels (N, H, W, 3) uint8 of the network's size, always the same."""
    images = _blobs(count, (3, signature.height, signature.width), seed)
    return np.ascontiguousarray(np.rint(images * 255).astype(np.uint8).transpose(0, 2, 3, 1))


def _blobs(count: int, shape: tuple[int, ...], seed: int) -> Array:
    random = np.random.default_rng(seed)
    channels, height, width = shape
    coarse = random.random((count, channels, -(-height // 16), -(-width // 16)), dtype=np.float32)
    blobs = coarse.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    noise = random.random(blobs.shape, dtype=np.float32)
    return np.clip(np.float32(0.85) * blobs + np.float32(0.15) * noise, 0, 1)
