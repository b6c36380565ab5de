"""The parts of one image's way through the path, each measured alone, in one thread of this process."""

from __future__ import annotations

import inspect
import io
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectors import Detector
from PIL import Image

from tao2serve.runtime.preprocess import read_pixels, to_tensor

__all__ = ["OneCall", "alone_ms", "keep_freed_memory", "reader", "timed_by_turns"]


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees; otherwise a large tensor's buffers are faulted in anew at each call.

    glibc raises its thresholds to the largest block freed so far, up to 32 MB. It makes the calls measured alone as
    cheap as they can be.
    """
    bytearray(31 << 20)


def timed_by_turns(parts: Mapping[str, Callable[[int], Any]], *, rounds: int, repeats: int = 3) -> dict[str, float]:
    """Return each part's median in milliseconds; they take turns, the first round is a warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(rounds + 1):
        for name, part in parts.items():
            for repeat in range(repeats):
                start = time.perf_counter()
                part(number * repeats + repeat)
                if number:
                    taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in taken.items()}


def alone_ms(detector: Detector, pictures: tuple[Path, ...], *, rounds: int = 7) -> dict[str, float]:
    """Return what decoding, scaling and making the tensor cost, without any server."""
    bodies = [path.read_bytes() for path in pictures]
    read = {mode: reader(detector, mode) for mode in modes()}
    pixels = read["lanczos"](bodies[0])

    def body(index: int) -> bytes:
        return bodies[index % len(bodies)]

    def one(call: Callable[[bytes], Any], index: int) -> None:
        call(body(index))

    parts: dict[str, Callable[[int], Any]] = {
        "full decode": lambda index: Image.open(io.BytesIO(body(index))).convert("RGB").load(),
        **{f"decode and resize ({mode})": partial(one, call) for mode, call in read.items()},
        "to float planes": lambda index: to_tensor(pixels, detector.params),
    }
    return timed_by_turns(parts, rounds=rounds)


def reader(detector: Detector, mode: str) -> Callable[[bytes], np.ndarray[Any, Any]]:
    """Return the runtime's own reading of a picture: decoding and resizing, (H, W, 3) uint8."""
    options: dict[str, Any] = {"mode": mode} if "mode" in inspect.signature(read_pixels).parameters else {}
    return lambda body: read_pixels(body, detector.params, **options)[0]


def modes() -> tuple[str, ...]:
    """The ways of resizing that this code knows."""
    return ("lanczos", "fast") if "mode" in inspect.signature(read_pixels).parameters else ("lanczos",)


class OneCall:
    """One local gRPC call to a Triton model with a picture's tensor, as tritonclient's own client makes it."""

    def __init__(self, address: str, model: str) -> None:
        from tritonclient.grpc import InferenceServerClient

        self._client: Any = InferenceServerClient(address)
        self._model = model
        config = self._client.get_model_config(model).config
        (tensor,) = config.input
        self._name, self._shape = tensor.name, tuple(tensor.dims)
        self.datatype = {2: "UINT8", 11: "FP32"}[tensor.data_type]  # TYPE_UINT8, TYPE_FP32

    @property
    def tensor_bytes(self) -> int:
        return int(np.prod(self._shape)) * (1 if self.datatype == "UINT8" else 4)

    def tensor(self, pixels: np.ndarray[Any, Any], detector: Detector) -> np.ndarray[Any, Any]:
        """Return the batch of one that this model takes."""
        array = pixels if self.datatype == "UINT8" else to_tensor(pixels, detector.params)
        assert array.shape == self._shape
        return np.ascontiguousarray(array)[None]

    def __call__(self, tensor: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        from tritonclient.grpc import InferInput

        given = InferInput(self._name, tensor.shape, self.datatype)
        given.set_data_from_numpy(tensor)
        result = self._client.infer(self._model, [given])
        return [result.as_numpy(output.name) for output in result.get_response().outputs]
