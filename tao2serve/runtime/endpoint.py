"""ClearML Serving's `Preprocess` class for a detector on Triton.

It defines `process` alone: clearml-serving 1.3.5 calls `preprocess` and `postprocess` of a Triton endpoint
synchronously in the event loop, and its own tensor path fills protobuf fields float by float (hundreds of
milliseconds for one image). Here CPU work runs in threads, or all of it on Triton, and tensors travel as raw contents.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from numpy.typing import NDArray

from . import ensemble
from .answer import ServedModel, Timing, answer, decoded, images_of
from .candidates import BoxEncoding
from .header import ImageError
from .metrics import measured_by
from .postprocess import postprocess
from .reading import ReadInput, read_input
from .resize import ResizeMode
from .triton_client import (
    TIMED_OUT,
    UNAVAILABLE,
    ImageRefusedError,
    InputTensor,
    TritonClient,
    TritonError,
    bytes_element,
)
from .values import DetectorParams, Float32

SETTINGS_FILE: Final = "endpoint.json"
PARAMS_FILE: Final = "params.json"
DEFAULT_TRITON: Final = "127.0.0.1:8001"
UNPROCESSABLE: Final = 422

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What one deployed endpoint version needs to know, read from `endpoint.json` beside this file.

    `placement` says where pictures are read and boxes clustered: here, or in an ensemble on Triton, which takes the
    picture's bytes; the names of the network's tensors are of use here alone.
    """

    model: ServedModel
    triton_model: str
    placement: Literal["endpoint", "ensemble"]
    resize: ResizeMode
    input: Literal["float32", "uint8"]  # what the network takes: scaled planes, or pixels
    boxes: BoxEncoding  # what it gives
    input_name: str
    coverage_name: str
    bbox_name: str
    deadline_s: float
    max_pixels: int
    max_bytes: int

    @classmethod
    def read(cls, path: Path) -> EndpointSettings:
        """Raises ValueError naming the members that this version of the runtime does not know, or misses."""
        document = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(cls)}
        if odd := sorted(known ^ set(document)):
            raise ValueError(f"{path.name} and the runtime beside it are of different versions: {', '.join(odd)}")
        return cls(**{**document, "model": ServedModel(**document["model"])})


class Preprocess:
    """One instance a process and endpoint version, used by many requests at once."""

    def __init__(self) -> None:
        folder = Path(__file__).parent
        self._settings = EndpointSettings.read(folder / SETTINGS_FILE)
        self._params = DetectorParams.from_dict(json.loads((folder / PARAMS_FILE).read_text(encoding="utf-8")))
        # More pictures at once than there are cores would not be done sooner, and each would be done later.
        self._pool = ThreadPoolExecutor(max_workers=max(2, _cores()), thread_name_prefix="detector")
        self._client: TritonClient | None = None
        self._measured = measured_by(self._settings.model, [one.name for one in self._params.classes])

    async def process(self, data: Any, state: dict[str, Any], collect_custom_statistics_fn: Any = None) -> Any:
        """Answer one request, and count it if the service shows metrics."""
        return await self._measured(self._replied(data))

    async def _replied(self, data: Any) -> Any:
        """Return the response; a body that is no image gets 422 with a sentence, never an exception.

        Exceptions would be wrapped and logged to ClearML for each request.
        """
        try:
            images, is_list = images_of(data, max_bytes=self._settings.max_bytes)
            # One deadline for all: clearml-serving waits for requests in flight before it applies a change.
            deadline = time.monotonic() + self._settings.deadline_s
            answers = await self._detect_all(images, deadline)
        except ImageError as error:
            return _reply({"detail": str(error)}, status=UNPROCESSABLE)
        except TritonError as fault:
            return _reply({"detail": fault.detail}, status=fault.status)
        return _reply({"results": answers} if is_list else answers[0])

    async def _detect_all(self, images: tuple[bytes | str, ...], deadline: float) -> list[dict[str, Any]]:
        """Ask about all images at once, so that Triton may batch them; the first that fails fails the request."""
        detect = self._detect_there if self._settings.placement == "ensemble" else self._detect_here
        if len(images) == 1:
            return [await detect(images[0], deadline)]
        outcomes = await asyncio.gather(*(detect(image, deadline) for image in images), return_exceptions=True)
        answers = []
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, ImageError):
                raise ImageError(f"images[{index}]: {outcome}")
            if isinstance(outcome, BaseException):
                raise outcome
            answers.append(outcome)
        return answers

    async def _detect_here(self, image: bytes | str, deadline: float) -> dict[str, Any]:
        """Read the picture and cluster the boxes in this process; Triton runs the network."""
        settings = self._settings
        start = time.perf_counter()
        read = await self._in_thread(self._read, image, deadline)
        if isinstance(read, ImageError):
            raise read
        tensor, image_size = read
        ready = time.perf_counter()
        outputs = await self._infer((tensor.data.cast("B"),), deadline)
        inferred = time.perf_counter()
        cov, bbox = outputs[settings.coverage_name][0], outputs[settings.bbox_name][0]

        def finish() -> dict[str, Any]:
            found = postprocess(cov, bbox, self._params, image_size=image_size, boxes=settings.boxes)
            done = time.perf_counter()
            timing = Timing(
                preprocess=(ready - start) * 1e3,
                infer=(inferred - ready) * 1e3,
                postprocess=(done - inferred) * 1e3,
                total=(done - start) * 1e3,
            )
            return answer(found, self._params, image_size=image_size, model=settings.model, timing=timing)

        return await self._in_thread(finish)

    async def _detect_there(self, image: bytes | str, deadline: float) -> dict[str, Any]:
        """Hand the picture's bytes to the ensemble; `infer` is what its first and last model did not take."""
        start = time.perf_counter()
        content = image if isinstance(image, bytes) else await self._in_thread(decoded, image)
        if len(content) > self._settings.max_bytes:  # not worth sending
            raise ImageError(f"the image has {len(content):,} bytes, and the limit is {self._settings.max_bytes:,}")
        outputs = await self._infer(bytes_element(content), deadline)
        total_ms = (time.perf_counter() - start) * 1e3
        first_ms, last_ms = (float(outputs[name][0, 0]) for name in (ensemble.PREPROCESS_MS, ensemble.POSTPROCESS_MS))
        timing = Timing(preprocess=first_ms, infer=total_ms - first_ms - last_ms, postprocess=last_ms, total=total_ms)
        width, height = outputs[ensemble.IMAGE_SIZE][0].tolist()
        rows: Float32 = outputs[ensemble.DETECTIONS][0, : int(outputs[ensemble.COUNT][0, 0])]
        found = ensemble.from_rows(rows)
        return answer(found, self._params, image_size=(width, height), model=self._settings.model, timing=timing)

    def _read(self, image: bytes | str, deadline: float) -> ReadInput | ImageError:
        settings = self._settings
        if time.monotonic() > deadline:  # it waited for a thread until nobody waits for it
            raise TritonError(TIMED_OUT, f"{settings.model.endpoint} has too many requests to answer this one in time")
        try:
            return read_input(
                decoded(image),
                self._params,
                as_pixels=settings.input == "uint8",
                max_bytes=settings.max_bytes,
                max_pixels=settings.max_pixels,
                mode=settings.resize,
            )
        except MemoryError:
            raise TritonError(UNAVAILABLE, "the server has no memory left for this picture") from None

    async def _infer(self, contents: tuple[bytes | memoryview, ...], deadline: float) -> dict[str, NDArray[Any]]:
        if self._client is None:  # made in the event loop that uses it
            self._client = _client(self._settings, self._params)
        try:
            return await self._client.infer(contents, timeout_s=max(deadline - time.monotonic(), 0.001))
        except ImageRefusedError as error:
            raise ImageError(str(error)) from error

    async def _in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _client(settings: EndpointSettings, params: DetectorParams) -> TritonClient:
    if settings.placement == "ensemble":
        tensor = InputTensor(name=ensemble.IMAGE, datatype="BYTES", shape=(1, 1))
        outputs: tuple[str, ...] = ensemble.OUTPUTS
    else:
        size = (params.height, params.width)
        tensor = (
            InputTensor(name=settings.input_name, datatype="UINT8", shape=(1, *size, 3))
            if settings.input == "uint8"
            else InputTensor(name=settings.input_name, datatype="FP32", shape=(1, params.channels, *size))
        )
        outputs = (settings.coverage_name, settings.bbox_name)
    return TritonClient(
        _triton_address(), settings.triton_model, tensor=tensor, outputs=outputs, refusal=ensemble.REFUSED
    )


def _triton_address() -> str:
    """Return the address clearml-serving itself would use: its configuration, its variable, its default."""
    service = sys.modules.get("clearml_serving.serving.preprocess_service")
    if service is not None:
        configured = service.BasePreprocessRequest.get_server_config().get("triton_grpc_server")
        if configured:
            return str(configured)
    return os.environ.get("CLEARML_DEFAULT_TRITON_GRPC_ADDR") or DEFAULT_TRITON


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _reply(document: dict[str, Any], *, status: int = 200) -> Any:
    """Return a finished response, which spares FastAPI a walk through the whole document."""
    return _reply_class()(document, status)


@cache
def _reply_class() -> Any:
    from starlette.responses import JSONResponse

    class Reply(JSONResponse):
        """clearml-serving looks up in it, as in a dict, the metrics that are configured for the endpoint."""

        def __init__(self, document: dict[str, Any], status: int) -> None:
            super().__init__(document, status_code=status)
            self.document = document

        def keys(self) -> Any:
            return self.document.keys()

        def __getitem__(self, name: str) -> Any:
            return self.document[name]

    return Reply
