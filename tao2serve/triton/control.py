"""Control of a running Triton over gRPC: load, unload, ready."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from tao2serve.errors import NotReadyError, ServiceError

__all__ = ["ModelState", "ModelTraffic", "TritonControl", "wait_until_unloaded"]

READY: Final = "READY"
HELD: Final = (READY, "UNLOADING", "LOADING")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model as Triton's index has it; `state` is "" until it has begun to load."""

    state: str  # READY | LOADING | UNLOADING | UNAVAILABLE
    reason: str  # of UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTraffic:
    """What a loaded model was asked since it was loaded; Triton counts anew after each load."""

    answered: int
    failed: int
    last_request: datetime | None


class TritonControl:
    """A connection to one Triton; loading and unloading need its EXPLICIT mode. Use it as a context manager."""

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
        return self._says("is_server_ready")

    def is_live(self) -> bool:
        """Whether the server is there; it may have models that did not load. Never raises."""
        return self._says("is_server_live")

    def require_ready(self) -> None:
        """Raise ServiceError unless the server is there and ready."""
        if not self.is_ready():
            raise self._not("ready")

    def require_live(self) -> None:
        """Raise ServiceError unless the server is there; it may have models that did not load."""
        if not self.is_live():
            raise self._not("live")

    def parameters(self, name: str) -> dict[str, str]:
        """Return the parameters of a model that is loaded; raises ServiceError if it is not."""
        config = self._call("get_model_config", name, client_timeout=self._timeout_s).config
        return {key: str(value.string_value) for key, value in config.parameters.items()}

    def states(self) -> dict[str, ModelState]:
        """Return what Triton says of each model that it has found; of several versions, that of one that is ready.

        Raises ServiceError if it cannot be asked.
        """
        index = self._call("get_model_repository_index", "", client_timeout=self._timeout_s)
        found: dict[str, ModelState] = {}
        for entry in index.models:
            if entry.name not in found or entry.state == READY:
                reason = " ".join(str(entry.reason).split())
                found[entry.name] = ModelState(state=str(entry.state), reason=reason)
        return found

    def is_model_ready(self, name: str) -> bool:
        """Whether a model can take requests now; raises ServiceError if Triton cannot be reached."""
        return bool(self._call("is_model_ready", name, client_timeout=self._timeout_s))

    def models(self) -> dict[str, bool]:
        """Return the models of Triton's repository by name, and whether each is ready. Raises as `states` does."""
        return {name: model.state == READY for name, model in self.states().items()}

    def traffic(self) -> Mapping[str, ModelTraffic]:
        """Return the traffic of every loaded model by name; raises ServiceError if Triton cannot be reached."""
        statistics = self._call("get_inference_statistics", "", client_timeout=self._timeout_s)
        return {
            entry.name: ModelTraffic(
                answered=int(entry.inference_stats.success.count),
                failed=int(entry.inference_stats.fail.count),
                last_request=datetime.fromtimestamp(entry.last_inference / 1000, UTC) if entry.last_inference else None,
            )
            for entry in statistics.model_stats
        }

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

    def _says(self, method: str) -> bool:
        try:
            return bool(getattr(self._client, method)(client_timeout=self._timeout_s))
        except Exception:
            return False

    def _not(self, state: str) -> ServiceError:
        return ServiceError(
            f"Triton at {self.address}", f"cannot be reached or is not {state}", hint="start it, then run this again"
        )

    def _call(self, method: str, name: str, **options: float) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return getattr(self._client, method)(*((name,) if name else ()), **options)
        except InferenceServerException as error:
            if "DEADLINE_EXCEEDED" in str(error.status()):
                limit_s = options.get("client_timeout", 0.0)
                raise NotReadyError(
                    f"Triton model {name}",
                    f"was not done by Triton at {self.address} in {limit_s:g} s ({method.replace('_', ' ')})",
                    hint="its log says what it waits for",
                ) from error
            raise ServiceError(
                f"Triton model {name}" if name else "Triton's list of models",
                f"was refused by Triton at {self.address} ({method.replace('_', ' ')})",
                evidence=" ".join(str(error.message()).split())[:600],
                hint="is TAO2SERVE_MODEL_REPOSITORY the folder that this Triton was started with?",
            ) from error


def wait_until_unloaded(control: TritonControl, names: Sequence[str], *, timeout_s: float) -> None:
    """Return once Triton has let the models go: it ends their requests first, and says done before it is.

    Raises NotReadyError if that takes too long.
    """
    deadline = time.monotonic() + timeout_s
    while held := _held(control, names):
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"Triton model {held[0]}",
                f"is not unloaded after {timeout_s:g} s",
                hint="requests that do not end may hold it",
            )
        time.sleep(0.02)


def _held(control: TritonControl, names: Sequence[str]) -> list[str]:
    states = control.states()
    return [name for name in names if name in states and states[name].state in HELD]
