"""Load a version anew on a Triton that is ours, so that its first requests can be measured."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tao2serve.config import Settings
from tao2serve.errors import InputError, Tao2ServeError, UsageError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.registry.operation import Operation
from tao2serve.serving.inventory import in_order_of_unloading
from tao2serve.serving.names import endpoint_and_version, triton_model_name
from tao2serve.serving.probe import triton_of
from tao2serve.serving.service import find_service
from tao2serve.serving.state import ServiceState
from tao2serve.steps import tell_aftermath
from tao2serve.triton.control import TritonControl, wait_until_unloaded
from tao2serve.triton.models import PARTS

__all__ = ["FreshLoad", "load_anew", "require_unrouted"]

_UNLOAD_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshLoad:
    """A version's models that were loaded again; the time is from the wish to load, once unloaded, until ready."""

    url: str
    models: tuple[str, ...]
    load_s: float


def load_anew(endpoint: str, settings: Settings, *, force: bool) -> FreshLoad:
    """Unload the models of NAME/VERSION from Triton and load them again, as one operation on the endpoint.

    Requests to the version fail meanwhile. So it raises UsageError for a version that an alias routes to, unless
    forced, for a name without a version, and where ClearML Serving's own controller owns Triton; InputError for a
    version that is not registered; ServiceError and NotReadyError as TritonControl.load does. Whatever ends it early,
    the models are loaded again; if they cannot be, the error says so and how to do it.
    """
    name, version = endpoint_and_version(endpoint)
    if version is None:
        raise UsageError("--cold-start", "takes one version of an endpoint", hint=f"for example: {name}/3")
    if settings.managed:
        raise UsageError("--cold-start", "needs a Triton of ours: ClearML Serving's own controller owns this one")
    with ExitStack() as stack:
        service = find_service(settings.service)
        require_unrouted(service.state(), name, version, force=force)
        control = stack.enter_context(triton_of(service, settings))
        if control is None:
            raise UsageError(
                "--cold-start",
                "needs a Triton that answers, at an address that is known",
                hint="export TAO2SERVE_TRITON_GRPC=HOST:PORT",
            )
        operation = Operation("cold-start", endpoint=name, service_id=service.id, project=settings.artifact_project)
        stack.enter_context(operation)
        require_unrouted(service.state(), name, version, force=force)  # before the claim it may have changed
        model = triton_model_name(name, version)
        return FreshLoad(
            url=service.url_of(endpoint, settings),
            models=(parts := _loaded(control, model)),
            load_s=_reload(control, model, parts),
        )


def require_unrouted(state: ServiceState, name: str, version: int, *, force: bool) -> None:
    """Raise unless the version is registered and no alias sends it requests, or it is forced."""
    if version not in state.versions(name):
        known = ", ".join(map(str, state.versions(name))) or "none"
        raise InputError(f"endpoint {name}/{version}", "is not registered", evidence=f"registered: {known}")
    aliases = state.routed_urls().get(f"{name}/{version}", ())
    if aliases and not force:
        raise UsageError(
            f"endpoint {name}/{version}",
            "gets requests, which would fail while it is loaded anew",
            evidence=f"alias {', '.join(aliases)} routes to it",
            hint="choose a version without traffic, or --force",
        )


def _loaded(control: TritonControl, model: str) -> tuple[str, ...]:
    """Return the model and the parts of it if it is an ensemble, as far as they are ready, in order of unloading."""
    of_version = {model, *(f"{model}{part}" for part in PARTS)}
    loaded = in_order_of_unloading(
        name for name, is_ready in control.models().items() if is_ready and name in of_version
    )
    if model not in loaded:
        raise InputError(f"Triton model {model}", "is not loaded", evidence=f"on Triton at {control.address}")
    return loaded


def _reload(control: TritonControl, model: str, parts: tuple[str, ...]) -> float:
    try:
        for part in parts:
            control.unload(part)
        wait_until_unloaded(control, parts, timeout_s=_UNLOAD_LIMIT_S)
        begun = time.monotonic()
        control.load(model)
        return time.monotonic() - begun
    except BaseException as error:
        # A second Ctrl-C must not leave a version without its models: it waits until they are back or cannot be.
        with deferred_interrupts():
            tell_aftermath(error, _brought_back(control, model))
        raise


def _brought_back(control: TritonControl, model: str) -> str:
    """Load a model that may be unloaded, and return in words whether it answers now."""
    try:
        control.load(model)
    except Tao2ServeError as error:
        return (
            f"{model} is UNLOADED on Triton at {control.address}: requests to it fail, and it could not be "
            f"loaded again ({error}). Deploying it again loads it, or: "
            f"curl -X POST http://TRITON_HTTP_HOST:PORT/v2/repository/models/{model}/load"
        )
    return f"{model} is loaded again on Triton at {control.address}"
