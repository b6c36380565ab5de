"""ClearML Serving's `Preprocess` class for a detector on Triton.

It defines `process` alone: clearml-serving 1.3.5 calls `preprocess` and `postprocess` of a Triton endpoint
synchronously in the event loop, and its own tensor path fills protobuf fields float by float (hundreds of
milliseconds for one image). Here CPU work runs in threads and the tensor travels as raw contents.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .answer import ServedModel, Timing, answer, decoded, images_of
from .postprocess import postprocess
from .preprocess import ImageError, preprocess
from .values import DetectorParams, Float32

SETTINGS_FILE: Final = "endpoint.json"
PARAMS_FILE: Final = "params.json"
DEFAULT_TRITON: Final = "127.0.0.1:8001"
UNPROCESSABLE, UNAVAILABLE, TIMED_OUT = 422, 503, 504


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What one deployed endpoint version needs to know, read from `endpoint.json` beside this file."""

    model: ServedModel
    triton_model: str
    input_name: str
    coverage_name: str
    bbox_name: str
    deadline_s: float
    max_pixels: int
    max_bytes: int

    @classmethod
    def read(cls, path: Path) -> EndpointSettings:
        document = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            model=ServedModel(**document["model"]),
            **{name: value for name, value in document.items() if name != "model"},
        )


class Preprocess:
    """One instance a process and endpoint version, used by many requests at once."""

    def __init__(self) -> None:
        folder = Path(__file__).parent
        self._settings = EndpointSettings.read(folder / SETTINGS_FILE)
        self._params = DetectorParams.from_dict(json.loads((folder / PARAMS_FILE).read_text(encoding="utf-8")))
        self._client: Any = None

    async def process(self, data: Any, state: dict[str, Any], collect_custom_statistics_fn: Any = None) -> Any:
        """Answer one request; a body that is no image gets 422 with a sentence, never an exception.

        Exceptions would be wrapped and logged to ClearML for each request.
        """
        try:
            images, is_list = images_of(data, max_bytes=self._settings.max_bytes)
            # One deadline for all: clearml-serving waits for requests in flight before it applies a change.
            deadline = time.monotonic() + self._settings.deadline_s
            answers = [await self._detect(image, deadline) for image in images]
        except ImageError as error:
            return _refusal(UNPROCESSABLE, str(error))
        except _TritonError as fault:
            return _refusal(fault.status, fault.detail)
        return {"results": answers} if is_list else answers[0]

    async def _detect(self, image: bytes | str, deadline: float) -> dict[str, Any]:
        settings = self._settings
        start = time.perf_counter()
        tensor, image_size = await asyncio.to_thread(self._tensor, image)
        ready = time.perf_counter()
        cov, bbox = await self._infer(tensor, deadline)
        inferred = time.perf_counter()
        detections = await asyncio.to_thread(postprocess, cov, bbox, self._params, image_size=image_size)
        done = time.perf_counter()
        timing = Timing(
            preprocess=(ready - start) * 1e3,
            infer=(inferred - ready) * 1e3,
            postprocess=(done - inferred) * 1e3,
            total=(done - start) * 1e3,
        )
        return answer(detections, self._params, image_size=image_size, model=settings.model, timing=timing)

    def _tensor(self, image: bytes | str) -> tuple[Float32, tuple[int, int]]:
        settings = self._settings
        return preprocess(decoded(image), self._params, max_bytes=settings.max_bytes, max_pixels=settings.max_pixels)

    async def _infer(self, tensor: Float32, deadline: float) -> tuple[Float32, Float32]:
        from tritonclient.grpc import InferInput, InferRequestedOutput
        from tritonclient.grpc.aio import InferenceServerClient
        from tritonclient.utils import InferenceServerException

        settings = self._settings
        if self._client is None:  # made in the event loop that uses it
            self._client = InferenceServerClient(_triton_address())
        batch = InferInput(settings.input_name, (1, *tensor.shape), "FP32")
        batch.set_data_from_numpy(tensor[None])
        try:
            result = await self._client.infer(
                settings.triton_model,
                [batch],
                outputs=[
                    InferRequestedOutput(settings.coverage_name),
                    InferRequestedOutput(settings.bbox_name),
                ],
                client_timeout=max(deadline - time.monotonic(), 0.001),
            )
        except InferenceServerException as error:
            raise _TritonError.of(error, settings) from error
        return result.as_numpy(settings.coverage_name)[0], result.as_numpy(settings.bbox_name)[0]


class _TritonError(Exception):
    """Triton gave no answer: the HTTP status and the sentence the caller gets."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail

    @classmethod
    def of(cls, error: Any, settings: EndpointSettings) -> _TritonError:
        if "DEADLINE_EXCEEDED" in str(error.status()):
            return cls(TIMED_OUT, f"Triton gave no answer for {settings.triton_model} in {settings.deadline_s:g} s")
        reason = " ".join(str(error.message()).split())[:200]
        return cls(UNAVAILABLE, f"Triton cannot run {settings.triton_model}: {reason}")


def _triton_address() -> str:
    """Return the address clearml-serving itself would use: its configuration, its variable, its default."""
    service = sys.modules.get("clearml_serving.serving.preprocess_service")
    if service is not None:
        configured = service.BasePreprocessRequest.get_server_config().get("triton_grpc_server")
        if configured:
            return str(configured)
    return os.environ.get("CLEARML_DEFAULT_TRITON_GRPC_ADDR") or DEFAULT_TRITON


def _refusal(status: int, sentence: str) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"detail": sentence}, status_code=status)
