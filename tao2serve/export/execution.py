"""Run a model file here: Keras HDF5 by our numpy reading of it, ONNX by onnxruntime, a plan by TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from tao2serve.errors import InputError
from tao2serve.export.accept import accept_onnx
from tao2serve.export.encrypted import ENCRYPTED_SUFFIXES, refuse_encrypted
from tao2serve.export.engine.execute import run_plan
from tao2serve.export.engine.fit import require_fit
from tao2serve.export.engine.machine import read_machine
from tao2serve.export.engine.plan import is_plan, plan_artifact, read_plan
from tao2serve.export.graph.build import build_onnx
from tao2serve.export.inference import Provider, open_session
from tao2serve.export.reference import Outputs, forward
from tao2serve.export.signature import signature_of
from tao2serve.tao.hdf5 import is_hdf5, read_keras_hdf5
from tao2serve.tao.keras import Array
from tao2serve.values import ModelSignature

__all__ = ["ModelKind", "OpenModel", "open_model", "sample_images"]

ModelKind: TypeAlias = Literal["keras_hdf5", "onnx", "tensorrt_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A model file, ready to run; `run` takes images (N, C, H, W) float32 in [0, 1]."""

    path: Path
    kind: ModelKind
    precision: str  # fp32 | fp16 | int8
    signature: ModelSignature
    forward: Callable[[Array], Outputs]

    def run(self, images: Array) -> Outputs:
        """Return coverage and bbox, computed image by image, so that a batch costs the memory of one.

        Raises InputError for images of another size.
        """
        if images.ndim != 4 or not len(images) or images.shape[1:] != self.signature.input.shape:
            raise InputError(
                str(self.path),
                "cannot take these images",
                evidence=f"images {images.shape}, the model wants "
                f"(N, {', '.join(map(str, self.signature.input.shape))})",
            )
        parts = [self.forward(images[index : index + 1]) for index in range(len(images))]
        return Outputs(
            coverage=np.concatenate([part.coverage for part in parts]),
            bbox=np.concatenate([part.bbox for part in parts]),
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
    taken = np.float16 if signature.input.datatype == "FP16" else np.float32

    def run(images: Array) -> Outputs:
        try:
            coverage, bbox = session.run(names, {signature.input.name: images.astype(taken, copy=False)})
        except Exception as error:  # its exceptions share no base of their own
            raise InputError(str(path), "cannot be run by onnxruntime", evidence=str(error)[:300]) from error
        return Outputs(coverage=coverage.astype(np.float32), bbox=bbox.astype(np.float32))

    return OpenModel(path=path, kind="onnx", precision=artifact.precision, signature=signature, forward=run)


def sample_images(signature: ModelSignature, *, count: int = 2, seed: int = 0) -> Array:
    """Return `count` synthetic images (N, C, H, W) in [0, 1]: soft blobs under noise, always the same."""
    random = np.random.default_rng(seed)
    channels, height, width = signature.input.shape
    coarse = random.random((count, channels, -(-height // 16), -(-width // 16)), dtype=np.float32)
    blobs = coarse.repeat(16, axis=2).repeat(16, axis=3)[:, :, :height, :width]
    noise = random.random(blobs.shape, dtype=np.float32)
    return np.clip(np.float32(0.85) * blobs + np.float32(0.15) * noise, 0, 1)
