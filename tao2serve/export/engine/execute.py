"""Run a plan here, with the `tensorrt` package and `cuda-python`: the numbers `verify` compares."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from tao2serve.errors import InputError, ToolError
from tao2serve.export.engine.machine import import_tensorrt
from tao2serve.export.engine.plan import read_plan
from tao2serve.export.reference import Outputs
from tao2serve.tao.keras import Array
from tao2serve.values import BOXES_OUTPUT

__all__ = ["run_plan"]

_HINT: Final = "pip install 'tao2serve[tensorrt]'"


def run_plan(path: Path, images: Array) -> Outputs:
    """Return what a plan says about images as it takes them, in batches that its profile allows.

    (N, C, H, W) in [0, 1], or (N, H, W, 3) uint8; which one, and what the bbox grid holds, its signature says.
    A plan with host code of its own, as version-compatible ones have, is refused by TensorRT, since we do not
    allow it. Raises InputError for a plan or images that do not fit, ToolError without tensorrt, cuda-python or
    a GPU.
    """
    read_plan(path)  # a damaged or foreign file is better refused here than inside TensorRT
    trt, trouble = import_tensorrt()
    if trt is None:
        raise ToolError("the tensorrt package", "is not here", evidence=trouble, hint=_HINT)
    with _loaded(path, trt, _import_cuda()) as loaded:
        return loaded.run(images)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A plan on the GPU. The calls on named tensors are in TensorRT 8.6, 10 and 11 alike."""

    path: Path
    trt: Any
    cuda: Any
    engine: Any
    context: Any
    stream: Any

    def run(self, images: Array) -> Outputs:
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = [name for name in names if self.engine.get_tensor_mode(name) == self.trt.TensorIOMode.INPUT]
        if len(inputs) != 1:
            raise InputError(str(self.path), "does not have exactly one input", evidence=", ".join(inputs)[:300])
        outputs = [name for name in names if name not in inputs]
        coverage = _named(self.path, outputs, "output_cov")
        bbox = BOXES_OUTPUT if BOXES_OUTPUT in outputs else _named(self.path, outputs, "output_bbox")
        wanted = tuple(self.engine.get_tensor_shape(inputs[0]))
        if images.ndim != 4 or not len(images) or images.shape[1:] != wanted[1:]:
            raise InputError(
                str(self.path), "cannot take these images", evidence=f"images {images.shape}, the plan wants {wanted}"
            )
        if (images.dtype == np.uint8) != (np.dtype(self._dtype(inputs[0])) == np.uint8):
            raise InputError(
                str(self.path),
                "cannot take these images",
                evidence=f"images of {images.dtype}, the plan wants {np.dtype(self._dtype(inputs[0]))}",
            )
        least, _, most = (shape[0] for shape in self.engine.get_tensor_profile_shape(inputs[0], 0))
        size = min(max(len(images), least), most)
        parts = [
            self._batch(inputs[0], outputs, _filled(images[start : start + size], size))
            for start in range(0, len(images), size)
        ]
        return Outputs(
            coverage=np.concatenate([part[coverage] for part in parts])[: len(images)],
            bbox=np.concatenate([part[bbox] for part in parts])[: len(images)],
        )

    def _batch(self, source: str, outputs: list[str], images: Array) -> dict[str, Array]:
        cuda, kinds = self.cuda, self.cuda.cudaMemcpyKind
        batch = np.ascontiguousarray(images, dtype=self._dtype(source))
        if not self.context.set_input_shape(source, batch.shape):
            raise ToolError(str(self.path), "refuses a batch", evidence=f"shape {batch.shape}")
        with ExitStack() as held:
            address = self._allocated(held, source, batch.nbytes)
            _check(cuda, cuda.cudaMemcpy(address, batch.ctypes.data, batch.nbytes, kinds.cudaMemcpyHostToDevice))
            found = {
                name: np.empty(tuple(self.context.get_tensor_shape(name)), dtype=self._dtype(name)) for name in outputs
            }
            addresses = {name: self._allocated(held, name, array.nbytes) for name, array in found.items()}
            if not self.context.execute_async_v3(int(self.stream)):
                raise ToolError(str(self.path), "could not be run by TensorRT")
            _check(cuda, cuda.cudaStreamSynchronize(self.stream))
            for name, array in found.items():
                _check(
                    cuda,
                    cuda.cudaMemcpy(array.ctypes.data, addresses[name], array.nbytes, kinds.cudaMemcpyDeviceToHost),
                )
        return {name: array.astype(np.float32) for name, array in found.items()}

    def _allocated(self, held: ExitStack, name: str, size: int) -> int:
        """Return the address of memory on the GPU that is this tensor's until `held` is closed."""
        address = int(_check(self.cuda, self.cuda.cudaMalloc(size)))
        held.callback(self.cuda.cudaFree, address)
        self.context.set_tensor_address(name, address)
        return address

    def _dtype(self, name: str) -> Any:
        return self.trt.nptype(self.engine.get_tensor_dtype(name))


@contextmanager
def _loaded(path: Path, trt: Any, cuda: Any) -> Iterator[_Loaded]:
    _check(cuda, cuda.cudaFree(0))  # the first use of CUDA: without a GPU it fails here, in words
    runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise InputError(
            str(path),
            f"is refused by TensorRT {trt.__version__}",
            hint="it was built for another TensorRT or GPU, or is damaged: build it again",
        )
    stream = _check(cuda, cuda.cudaStreamCreate())
    try:
        context = engine.create_execution_context()
        yield _Loaded(path=path, trt=trt, cuda=cuda, engine=engine, context=context, stream=stream)
    finally:
        cuda.cudaStreamDestroy(stream)


def _import_cuda() -> Any:
    """Import cuda-python's runtime bindings, by today's name or the one they had before CUDA 12.6."""
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise ToolError("the cuda-python package", "is not here", hint=_HINT)


def _filled(images: Array, size: int) -> Array:
    """Repeat the last image until there are `size` of them."""
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])


def _named(path: Path, names: list[str], role: str) -> str:
    """Return the output whose name is `role` in one of TAO's spellings; see signature.py."""
    for name in names:
        if name.split("/")[0].removesuffix(":0") == role:
            return name
    raise InputError(
        str(path),
        f"has no output {role}",
        evidence=f"outputs: {', '.join(names)}"[:300],
        hint="only DetectNet_v2 models are supported",
    )


def _check(cuda: Any, answer: tuple[Any, ...]) -> Any:
    """Return what a CUDA call gave. Raises ToolError with CUDA's own words."""
    status, *rest = answer
    if status != cuda.cudaError_t.cudaSuccess:
        words = cuda.cudaGetErrorString(status)[-1]
        raise ToolError(
            "CUDA",
            "failed",
            evidence=f"{status.name}: {words.decode('utf-8', 'replace') if isinstance(words, bytes) else words}",
            hint="is a GPU here, and a driver for this CUDA?",
        )
    return rest[0] if rest else None
