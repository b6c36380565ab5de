"""The serving service: ClearML Serving's control-plane task, read and changed through clearml-serving's own library."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tao2serve.config import Settings
from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.registry.session import clearml, translated
from tao2serve.serving.names import triton_model_name
from tao2serve.serving.state import ServiceState, parse_state
from tao2serve.values import ModelSignature

__all__ = ["EndpointVersion", "ServingService", "find_service"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointVersion:
    """One registered version of an endpoint: `POST <base>/<name>/<version>`."""

    name: str
    version: int
    base_url: str

    @property
    def url(self) -> str:
        return f"{self.base_url}/{self.name}/{self.version}"

    @property
    def alias_url(self) -> str:
        return f"{self.base_url}/{self.name}"

    @property
    def triton_model(self) -> str:
        return triton_model_name(self.name, self.version)


class ServingService:
    """One serving service.

    Each change reads the service's configuration anew, since clearml-serving replaces it whole: whoever writes
    from an old copy takes away what others added. `turn` keeps other operations out meanwhile (Operation.turn).
    """

    def __init__(self, service_id: str) -> None:
        self.turn: Callable[[], AbstractContextManager[None]] = nullcontext
        self.id = service_id
        with translated(f"serving service {service_id}", "could not be read"):
            from clearml_serving.serving.model_request_processor import ModelRequestProcessor

            self._processor: Any = ModelRequestProcessor(task_id=service_id)
            self._task: Any = self._processor._task
            self._read()

    def setting(self, name: str) -> str:
        """Return one of the service's own settings (`serving_base_url`, `triton_grpc_server`), or ""."""
        value = self._processor.get_configuration().get(name)
        return str(value) if value and value != "None" else ""

    def base_url(self, settings: Settings) -> str:
        """Return the inference service's URL ending in /serve; a setting wins over what the service says.

        Raises UsageError if neither says it.
        """
        url = (settings.serving_base_url or self.setting("serving_base_url")).rstrip("/")
        if not url:
            raise UsageError(
                "URL of the inference service",
                "is said neither by a setting nor by the serving service",
                evidence=f"serving service {self.id}",
                hint="set TAO2SERVE_SERVING_BASE_URL=http://HOST:PORT/serve, "
                "or: clearml-serving config --base-serving-url URL",
            )
        return url

    def next_version(self, endpoint: str) -> int:
        """Return a version number that was never used for this endpoint, removed versions included.

        Preprocess code stays as an artifact when an endpoint is removed, and clearml-serving keeps a loaded
        package's submodules, so a number used twice would run old code. Read anew: inside an operation it stays free.
        """
        with translated(f"serving service {self.id}", "could not be read"):
            self._read()
        pattern = re.compile(rf"(?:py_code_)?{re.escape(endpoint)}[_/](\d+)")
        names = [*self._processor._endpoints, *self._task.artifacts]
        used = [int(match.group(1)) for name in names if (match := pattern.fullmatch(name))]
        return max(used, default=0) + 1

    def versions(self, endpoint: str) -> tuple[int, ...]:
        """Return the registered versions of an endpoint, ascending."""
        pattern = re.compile(rf"{re.escape(endpoint)}/(\d+)")
        return tuple(
            sorted(int(match.group(1)) for url in self._processor._endpoints if (match := pattern.fullmatch(url)))
        )

    def endpoints(self) -> tuple[str, ...]:
        """Return the urls of all registered endpoints."""
        return tuple(sorted(self._processor._endpoints))

    def aliases(self) -> tuple[str, ...]:
        """Return the names that route to versions."""
        return tuple(sorted(self._processor._canary_endpoints))

    def url_of(self, endpoint: str, settings: Settings) -> str:
        """Return the URL of `NAME` or `NAME/VERSION`; raises InputError naming what is registered if it is not."""
        known = sorted({*self.endpoints(), *self.aliases()})
        if endpoint not in known:
            raise InputError(
                f"endpoint {endpoint}",
                f"is not registered in serving service {self.id}",
                evidence=f"registered: {', '.join(known) or 'none'}",
            )
        return f"{self.base_url(settings)}/{endpoint}"

    def state(self) -> ServiceState:
        """Return what the service is configured to do, read anew."""
        with translated(f"serving service {self.id}", "could not be read"):
            self._read()
            names = ("endpoints", "canary", "model_monitoring_eps")
            return parse_state({name: self._task.get_configuration_object_as_dict(name) or {} for name in names})

    def code_url(self, endpoint: EndpointVersion) -> str:
        """Return where the preprocess code of a version lies, read anew; "" if the service has none."""
        with translated(f"serving service {self.id}", "could not be read"):
            self._task.reload()
        artifact = self._task.artifacts.get(f"py_code_{endpoint.triton_model}")
        return str(artifact.url or "") if artifact is not None else ""

    def register(
        self, endpoint: EndpointVersion, *, model_id: str, signature: ModelSignature, preprocess_code: Path
    ) -> None:
        """Add one endpoint version with its preprocess code, in an update of its own."""
        from clearml_serving.serving.endpoints import ModelEndpoint

        outputs = (signature.coverage, signature.bbox)
        entry = ModelEndpoint(
            engine_type="triton",
            serving_url=endpoint.name,
            version=str(endpoint.version),
            model_id=model_id,
            input_name=[signature.input.name],
            input_type=["uint8" if signature.takes_pixels else "float32"],
            input_size=[list(signature.input.shape)],
            output_name=[tensor.name for tensor in outputs],
            output_type=["float32"] * len(outputs),
            output_size=[list(tensor.shape) for tensor in outputs],
        )
        with translated(f"endpoint {endpoint.name}/{endpoint.version}", "could not be registered"), self.turn():
            self._read()
            self._processor.add_endpoint(entry, preprocess_code=str(preprocess_code))
            self._write()

    def unregister(self, endpoint: EndpointVersion) -> None:
        """Take one endpoint version away again, in an update of its own; not being there is no error."""
        with translated(f"endpoint {endpoint.name}/{endpoint.version}", "could not be removed"), self.turn():
            self._read()
            if self._processor.remove_endpoint(endpoint.name, str(endpoint.version)):
                self._write()

    def routes_to(self, endpoint: EndpointVersion) -> bool:
        """Whether an alias points at this version now."""
        with translated(f"serving service {self.id}", "could not be read"):
            self._read()
        url = f"{endpoint.name}/{endpoint.version}"
        return any(url in (route.load_endpoints or ()) for route in self._processor._canary_endpoints.values())

    def route(self, endpoint: str, weights: Mapping[int, float]) -> None:
        """Point the alias `endpoint` at versions by weight, in an update of its own.

        Raises InputError for weights that are not positive and for versions that are not registered:
        clearml-serving 1.3.5 freezes every endpoint when the registered weights of a route add up to zero.
        """
        from clearml_serving.serving.endpoints import CanaryEP

        with translated(f"alias {endpoint}", "could not be switched"), self.turn():
            self._read()
            missing = [version for version in weights if version not in self.versions(endpoint)]
            if not weights or missing or any(weight <= 0 for weight in weights.values()):
                raise InputError(
                    f"alias {endpoint}",
                    "needs weights above 0 for registered versions",
                    evidence=f"asked for {dict(weights)}, registered {list(self.versions(endpoint))}",
                )
            total = sum(weights.values())
            route = CanaryEP(
                endpoint=endpoint,
                weights=[weight / total for weight in weights.values()],
                load_endpoints=[f"{endpoint}/{version}" for version in weights],
            )
            self._processor.add_canary_endpoint(route)
            self._write()

    def _read(self) -> None:
        self._task.reload()
        self._processor.deserialize(skip_sync=True)

    def _write(self) -> None:
        self._processor.serialize()
        self._task.flush(wait_for_uploads=True)


def find_service(service_id: str = "") -> ServingService:
    """Return the named serving service, or the only one that runs.

    Raises UsageError when several run or the named one does not exist, ServiceError when none runs.
    """
    sdk = clearml()
    from clearml_serving.serving.model_request_processor import ModelRequestProcessor

    with translated("ClearML", "did not list the serving services"):
        running = ModelRequestProcessor.list_control_plane_tasks()
        known = bool(service_id) and bool(sdk.Task.query_tasks(task_filter={"id": [service_id]}))
    if service_id and not known:
        names = "; ".join(f"{task['name']} ({task['id']})" for task in running)
        raise UsageError(
            f"serving service {service_id}", "does not exist", evidence=f"running: {names or 'none'}",
            hint="give another: --service ID",
        )  # fmt: skip
    if service_id:
        return ServingService(service_id)
    if not running:
        raise ServiceError(
            "ClearML Serving",
            "has no serving service",
            hint="create one: clearml-serving create --name NAME, or use the sandbox: tao2serve sandbox up",
        )
    if len(running) > 1:
        names = "; ".join(f"{task['name']} ({task['id']})" for task in running)
        raise UsageError("serving service", "is not named, and several run", evidence=names, hint="add: --service ID")
    return ServingService(running[0]["id"])
