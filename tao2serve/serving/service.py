"""The serving service: ClearML Serving's control-plane task, read and changed through clearml-serving's own library."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tao2serve.config import Settings
from tao2serve.errors import InputError, ServiceError, UsageError
from tao2serve.registry.publish import is_whole
from tao2serve.registry.session import clearml, translated
from tao2serve.serving.instances import read_state
from tao2serve.serving.inventory import SERVICES
from tao2serve.serving.names import triton_model_name
from tao2serve.serving.state import ServiceState, parse_state, require_ours, same_weights
from tao2serve.values import ModelSignature

__all__ = ["EndpointVersion", "ServingService", "find_service", "service_task"]

RUNNING: Final = ("created", "in_progress")  # states of a serving service's task that clearml-serving works with
WRITES: Final = 3  # how often a change is made before another writer is given way to


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

    def url_of(self, endpoint: str, settings: Settings) -> str:
        """Return the URL of `NAME` or `NAME/VERSION`; raises InputError naming what is registered if it is not."""
        held = _state(self._processor)
        known = sorted({*held.endpoints, *held.routes})
        if endpoint not in known:
            raise InputError(
                f"endpoint {endpoint}",
                f"is not registered in serving service {self.id}",
                evidence=f"registered: {', '.join(known) or 'none'}",
            )
        return f"{self.base_url(settings)}/{endpoint}"

    def state(self) -> ServiceState:
        """Return what the service is configured to do, read anew."""
        return read_state(self.id)

    def code_url(self, endpoint: EndpointVersion) -> str:
        """Return where the preprocess code of a version lies, read anew; "" if the service has none."""
        with translated(f"serving service {self.id}", "could not be read"):
            self._task.reload()
        artifact = self._task.artifacts.get(f"py_code_{endpoint.triton_model}")
        return str(artifact.url or "") if artifact is not None else ""

    def register(
        self,
        endpoint: EndpointVersion,
        *,
        model_id: str,
        signature: ModelSignature,
        preprocess_code: Path,
        auxiliary: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one endpoint version with its preprocess code, in an update of its own; once if all of it is there.

        `auxiliary` is what ClearML Serving's own Triton controller writes into config.pbtxt besides the tensors.
        """
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
            auxiliary_cfg=dict(auxiliary) if auxiliary else None,
        )
        url = f"{endpoint.name}/{endpoint.version}"

        def add() -> None:
            self._processor.add_endpoint(entry, preprocess_code=str(preprocess_code))

        def is_there(state: ServiceState) -> bool:
            found = state.endpoints.get(url)
            # Without its code no instance that starts anew can serve it.
            return found is not None and found.model_id == model_id and is_whole(self.code_url(endpoint))

        with translated(f"endpoint {url}", "could not be registered"), self.turn():
            self._change(add, is_there, subject=f"endpoint {url}")

    def unregister(self, endpoint: EndpointVersion) -> None:
        """Take one endpoint version away again, in an update of its own; not being there is no error."""
        self.unregister_all(endpoint.name, (endpoint.version,))

    def unregister_all(self, endpoint: str, versions: Sequence[int]) -> None:
        """Take versions away in one update of their own; those that are not there are no error.

        Raises ServiceError if an alias routes to one of them: clearml-serving 1.3.5 may stop every endpoint then.
        """
        urls = {f"{endpoint}/{version}" for version in versions}
        subject = f"endpoint {', '.join(sorted(urls))}"

        def remove() -> None:
            routed = _state(self._processor).routed_urls()
            if used := sorted(urls & set(routed)):
                names = sorted({name for url in used for name in routed[url]})
                raise ServiceError(
                    subject,
                    f"stays registered: alias {', '.join(names)} routes to {', '.join(used)}",
                    hint="route to another version first: tao2serve promote ENDPOINT VERSION",
                )
            for version in versions:
                self._processor.remove_endpoint(endpoint, str(version))

        with translated(subject, "could not be removed"), self.turn():
            self._change(remove, lambda state: not urls & set(state.endpoints), subject=subject)

    def routes_to(self, endpoint: EndpointVersion) -> bool:
        """Whether an alias points at this version now."""
        with translated(f"serving service {self.id}", "could not be read"):
            self._read()
        url = f"{endpoint.name}/{endpoint.version}"
        return any(url in (route.load_endpoints or ()) for route in self._processor._canary_endpoints.values())

    def route(self, endpoint: str, weights: Mapping[int, float]) -> None:
        """Point the alias `endpoint` at versions by weight, in an update of its own; no change is no update.

        Raises UsageError if somebody else's has this name, InputError for versions that are not registered and for
        weights that are not positive: clearml-serving 1.3.5 freezes every endpoint when those of a route add up to 0.
        """
        from clearml_serving.serving.endpoints import CanaryEP

        total = sum(weights.values())

        def point() -> None:
            held = _state(self._processor)
            require_ours(held, endpoint)
            registered = held.versions(endpoint)
            missing = [version for version in weights if version not in registered]
            if not weights or missing or any(not 0 < weight < math.inf for weight in weights.values()):
                raise InputError(
                    f"alias {endpoint}",
                    "needs weights above 0 for registered versions",
                    evidence=f"asked for {dict(weights)}, registered {list(registered)}",
                )
            self._processor.add_canary_endpoint(CanaryEP(
                endpoint=endpoint,
                weights=[weight / total for weight in weights.values()],
                load_endpoints=[f"{endpoint}/{version}" for version in weights],
            ))  # fmt: skip

        def points(state: ServiceState) -> bool:
            wanted = {version: weight / total for version, weight in weights.items()} if total > 0 else {}
            return bool(wanted) and same_weights(state.weights(endpoint), wanted) and not state.missing().get(endpoint)

        with translated(f"alias {endpoint}", "could not be switched"), self.turn():
            self._change(point, points, subject=f"alias {endpoint}")

    def drop_route(self, endpoint: str) -> None:
        """Take the alias away, in an update of its own; not being there is no error."""

        def drop() -> None:
            self._processor.remove_canary_endpoint(endpoint)

        with translated(f"alias {endpoint}", "could not be removed"), self.turn():
            self._change(drop, lambda state: endpoint not in state.routes, subject=f"alias {endpoint}")

    def _change(self, change: Callable[[], None], is_done: Callable[[ServiceState], bool], *, subject: str) -> None:
        """Change the configuration and see it there; what is done already is not written again.

        A program that does not take turns, as the `clearml-serving` command, may write an older copy over ours
        at any time: then the change is made again, on what that one wrote.
        """
        for _ in range(WRITES):
            self._read()
            before = _state(self._processor)
            if is_done(before):
                return
            change()
            if frozen := set(_state(self._processor).frozen_by()) - set(before.frozen_by()):
                raise ServiceError(
                    subject,
                    "is not changed: clearml-serving would stop every endpoint",
                    evidence=f"the weights of alias {', '.join(sorted(frozen))} would add up to 0",
                    hint="mend that alias first: tao2serve status",
                )
            self._write()
            if is_done(self.state()):
                return
        raise ServiceError(
            subject,
            f"was written {WRITES} times, and is not there",
            evidence=f"serving service {self.id}",
            hint="another program changes this serving service; end it, then run this again",
        )

    def _read(self) -> None:
        self._task.reload()
        self._processor.deserialize(skip_sync=True)

    def _write(self) -> None:
        self._processor.serialize()
        self._task.flush(wait_for_uploads=True)


def _state(processor: Any) -> ServiceState:
    """Return what a processor holds, as yet unwritten; what clearml-serving monitors is known on the server alone."""
    held = {"endpoints": processor._endpoints, "canary": processor._canary_endpoints}
    return parse_state({
        name: {url: entry.as_dict(remove_null_entries=True) for url, entry in entries.items()}
        for name, entries in held.items()
    })  # fmt: skip


def find_service(service_id: str = "") -> ServingService:
    """Return the named serving service, or the only one; it runs. Raises as `service_task`, ServiceError if it ended.

    clearml-serving itself would take a task of any kind, and start one that has ended again.
    """
    task = service_task(service_id, fields=("id", "name", "status"))
    if str(task.status) not in RUNNING:
        raise ServiceError(
            f"serving service {task.id}",
            f"does not run: ClearML says that it is {task.status}",
            evidence=str(task.name),
            hint=f"start it again: clearml-serving --id {task.id} model list, or restart its inference service",
        )
    return ServingService(task.id)


def service_task(service_id: str = "", *, fields: Sequence[str] = ()) -> Any:
    """Return the task of the named serving service, be it stopped, or of the only one that runs; nothing is changed.

    Raises UsageError when several run or the named one is none, ServiceError when none runs.
    """
    clearml()
    with translated("ClearML", "did not list the serving services"):
        from clearml.backend_api.session.client import APIClient

        api: Any = APIClient()
        kind: dict[str, Any] = {**SERVICES, "page": 0, "page_size": 100}
        named = {"id": [service_id], **kind} if service_id else {"status": list(RUNNING), **kind}
        found = [task.data for task in api.tasks.get_all(**named, **({"only_fields": list(fields)} if fields else {}))]
        if len(found) == 1:
            return found[0]
        running = api.tasks.get_all(status=list(RUNNING), only_fields=["id", "name"], **kind)
    names = "; ".join(f"{task.name} ({task.id})" for task in running)
    if service_id:
        raise UsageError(
            f"serving service {service_id}", "does not exist", evidence=f"running: {names or 'none'}",
            hint="give another: --service ID",
        )  # fmt: skip
    if not running:
        raise ServiceError(
            "ClearML Serving",
            "has no serving service",
            hint="create one: clearml-serving create --name NAME, or use the sandbox: tao2serve sandbox up",
        )
    raise UsageError("serving service", "is not named, and several run", evidence=names, hint="add: --service ID")
