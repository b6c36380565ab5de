"""A Triton that ClearML Serving's own controller runs: it downloads what is registered, and Triton finds it there.

Nothing here loads or unloads: the controller looks at the serving service's endpoints once in a while, and its Triton
looks into the controller's folder as often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tao2serve.config import Settings
from tao2serve.errors import InputError, NotReadyError, ServiceError, UsageError
from tao2serve.registry.publish import PublishedModel
from tao2serve.serving.auxiliary import MODEL_PARAMETER, auxiliary_config
from tao2serve.serving.controllers import LOOKS, STOCK_FREQUENCY_S, Controller, find_controllers, raise_if_lost
from tao2serve.serving.service import EndpointVersion
from tao2serve.triton.control import TritonControl
from tao2serve.triton.models import ModelFolder

__all__ = ["auxiliary_for", "check_manageable", "wait_until_loaded"]

SETTLE_S: Final = 2.0


def check_manageable(settings: Settings) -> None:
    """Raise UsageError for what cannot be had of a Triton that ClearML Serving's controller runs."""
    if settings.managed and settings.placement == "ensemble":
        raise UsageError(
            "placement ensemble",
            "cannot be had of a Triton that ClearML Serving's own controller runs (--managed)",
            evidence="an ensemble is four Triton models, and the controller makes one of each endpoint version",
            hint="give --placement endpoint, or run Triton without the controller: --no-managed",
        )


def auxiliary_for(models: Sequence[ModelFolder], model: PublishedModel, settings: Settings) -> dict[str, Any] | None:
    """Return the auxiliary config to register the published model with, None if tao2serve writes the models itself.

    Raises InputError for a model that lies in a folder: the controller of clearml-serving 1.3.5 *moves* its file away.
    """
    if not settings.managed:
        return None
    _check_downloadable(model)
    (folder,) = models
    return auxiliary_config(folder.config, model_id=model.model_id)


def _check_downloadable(model: PublishedModel) -> None:
    if "://" not in model.uri or model.uri.startswith("file://"):
        raise InputError(
            f"ClearML model {model.model_id}",
            "must not be registered: the Triton controller would move its file away",
            evidence=f"its URI is {model.uri!r}, a path and no storage",
            hint="set api.files_server in clearml.conf, or CLEARML_DEFAULT_OUTPUT_URI, and deploy again",
        )


def wait_until_loaded(
    service_id: str,
    control: TritonControl,
    endpoint: EndpointVersion,
    model: PublishedModel,
    settings: Settings,
    *,
    on_news: Callable[[str], None],
) -> str:
    """Return, in a line, that Triton serves this very model of the endpoint version.

    It takes some looks of the controller, and then at most `ready_timeout_s`. Raises ServiceError with the reason as
    soon as one is known for which it never will, NotReadyError with what can be seen if it takes too long.
    """
    controllers = find_controllers(service_id)
    frequency_s = max((each.frequency_s for each in controllers), default=STOCK_FREQUENCY_S)
    limit_s = LOOKS * frequency_s + settings.ready_timeout_s
    rhythm = f"the controller looks every {frequency_s:.3g} s" if controllers else _unseen(frequency_s)
    name, start = endpoint.triton_model, time.monotonic()
    refused_at, refusal, next_look = 0.0, "", 0.0
    while not (seen := _look(control, name, model.model_id)).loaded:
        waited_s = time.monotonic() - start
        if seen.refusal:
            refused_at, refusal = refused_at or waited_s, seen.refusal
            # What was found half-copied is refused, and loads when Triton looks again.
            if waited_s - refused_at > LOOKS * frequency_s + SETTLE_S:
                raise ServiceError(
                    f"Triton model {name}", f"does not load on Triton at {control.address}", evidence=refusal[:600],
                    hint="the controller's log has Triton's own words",
                )  # fmt: skip
        if waited_s >= next_look:
            next_look = waited_s + max(2.0, frequency_s / 4)
            raise_if_lost(controllers, model)
        if waited_s > limit_s:
            raise NotReadyError(
                f"Triton model {name}",
                f"is not ready on Triton at {control.address} after {waited_s:.0f} s",
                evidence=refusal or seen.otherwise or _running(controllers, service_id),
                hint="is this the controller's Triton, and does its log name the model? docs/managed.md says what "
                "can keep it; if it only needs longer, raise TAO2SERVE_READY_TIMEOUT_S",
            )
        on_news(f"waiting {waited_s:.0f} s: {rhythm}" + (f"; Triton: {refusal[:120]}" if refusal else ""))
        time.sleep(0.25)
    return f"{name} on {control.address}, {rhythm}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    loaded: bool = False
    refusal: str = ""  # Triton's reason for not loading it
    otherwise: str = ""  # what else can keep it from doing so


def _look(control: TritonControl, name: str, model_id: str) -> _Sight:
    """See whether this very model is ready; one of its name may be there from a serving service that is no more."""
    try:
        if control.is_model_ready(name) and control.parameters(name).get(MODEL_PARAMETER) == model_id:
            return _Sight(loaded=True)
        states = control.states()
    except (ServiceError, NotReadyError) as error:  # the controller, and its Triton, may be restarted meanwhile
        return _Sight(otherwise=f"{error.fact}: {error.evidence}")
    loading = [each for each, model in states.items() if model.state == "LOADING"]
    # Triton 2.51 looks for no other model meanwhile, and one without its model.py it loads for ever.
    stuck = f"Triton is loading {', '.join(loading)}; if that never ends, restart the controller" if loading else ""
    return _Sight(refusal=states[name].reason if name in states else "", otherwise=stuck)


def _running(controllers: Sequence[Controller], service_id: str) -> str:
    if not controllers:
        return f"no running ClearML task says that it is a Triton controller of serving service {service_id}"
    return "Triton has not found it; running: " + ", ".join(map(str, controllers))


def _unseen(frequency_s: float) -> str:
    return f"no controller is seen to run in ClearML, the stock one looks every {frequency_s:.0f} s"
