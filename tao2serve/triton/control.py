"""Control of a running Triton over gRPC: load, unload, ready."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tao2serve.errors import NotReadyError, ServiceError

__all__ = ["ModelTimes", "TritonControl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTimes:
    """What Triton counted for one model since it was loaded: milliseconds of all its requests together.

    An ensemble has a queue and times of its own for nothing: ask for the models of its steps.
    """

    requests: int
    executions: int  # batches
    queue_ms: float
    input_ms: float  # gathering the inputs of a batch
    infer_ms: float
    output_ms: float

    def since(self, earlier: ModelTimes) -> ModelTimes:
        """Return what was added since `earlier`."""
        return ModelTimes(
            requests=self.requests - earlier.requests,
            executions=self.executions - earlier.executions,
            queue_ms=self.queue_ms - earlier.queue_ms,
            input_ms=self.input_ms - earlier.input_ms,
            infer_ms=self.infer_ms - earlier.infer_ms,
            output_ms=self.output_ms - earlier.output_ms,
        )


class TritonControl:
    """A connection to one Triton in EXPLICIT mode; use it as a context manager."""

    def __init__(self, address: str, *, timeout_s: float = 10.0) -> None:
        from tritonclient.grpc import InferenceServerClient

        self.address = address
        self._timeout_s = timeout_s
        self._client: Any = InferenceServerClient(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def is_ready(self) -> bool:
        """Whether the server is there and ready; never raises."""
        try:
            return bool(self._client.is_server_ready(client_timeout=self._timeout_s))
        except Exception:
            return False

    def require_ready(self) -> None:
        """Raise ServiceError unless the server is there and ready."""
        if not self.is_ready():
            raise ServiceError(
                f"Triton at {self.address}", "cannot be reached or is not ready", hint="start it, then run this again"
            )

    def is_model_ready(self, name: str) -> bool:
        """Whether a model can take requests now; raises ServiceError if Triton cannot be reached."""
        return bool(self._call("is_model_ready", name, client_timeout=self._timeout_s))

    def load(self, name: str, *, timeout_s: float = 120.0) -> None:
        """Load a model and return when it is ready; an ensemble brings the models that it passes on to with it.

        Raises ServiceError with Triton's reason if it does not load, NotReadyError if it takes too long.
        """
        self.require_ready()
        deadline = time.monotonic() + timeout_s
        self._call("load_model", name, client_timeout=timeout_s)
        while not self.is_model_ready(name):
            if time.monotonic() > deadline:
                raise NotReadyError(f"Triton model {name}", f"is not ready after {timeout_s:g} s")
            time.sleep(0.05)

    def unload(self, name: str) -> None:
        """Unload a model; requests in flight end first. Not being loaded is no error."""
        self._call("unload_model", name, client_timeout=self._timeout_s)

    def times(self, name: str) -> ModelTimes:
        """Return what Triton counted for a loaded model; requests that failed are left out."""
        answer = self._call(
            "get_inference_statistics", name, as_json=True, client_timeout=self._timeout_s
        )  # numbers of 64 bits are text in protobuf's JSON, and zeros are left out
        (model,) = answer["model_stats"]
        counted: Mapping[str, Any] = model.get("inference_stats", {})

        def milliseconds(kind: str) -> float:
            return int(counted.get(kind, {}).get("ns", 0)) / 1e6

        return ModelTimes(
            requests=int(counted.get("success", {}).get("count", 0)),
            executions=int(model.get("execution_count", 0)),
            queue_ms=milliseconds("queue"),
            input_ms=milliseconds("compute_input"),
            infer_ms=milliseconds("compute_infer"),
            output_ms=milliseconds("compute_output"),
        )

    def _call(self, method: str, name: str, **options: float | bool) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return getattr(self._client, method)(name, **options)
        except InferenceServerException as error:
            if "DEADLINE_EXCEEDED" in str(error.status()):
                limit_s = options.get("client_timeout", 0.0)
                raise NotReadyError(
                    f"Triton model {name}",
                    f"was not done by Triton at {self.address} in {limit_s:g} s ({method.replace('_', ' ')})",
                    hint="its log says what it waits for",
                ) from error
            raise ServiceError(
                f"Triton model {name}",
                f"was refused by Triton at {self.address} ({method.replace('_', ' ')})",
                evidence=" ".join(str(error.message()).split())[:600],
                hint="is TAO2SERVE_MODEL_REPOSITORY the folder that this Triton was started with?",
            ) from error
