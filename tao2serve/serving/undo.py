"""Taking back what a deployment added that did not get as far as its alias."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

from tao2serve.errors import ServiceError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.serving.ownership import mark_of
from tao2serve.serving.service import EndpointVersion, ServingService
from tao2serve.triton.control import TritonControl
from tao2serve.triton.repository import remove_models
from tao2serve.values import TritonModel

__all__ = ["take_back"]

log = logging.getLogger(__name__)


def take_back(
    service: ServingService, control: TritonControl, endpoint: EndpointVersion, written: Sequence[TritonModel]
) -> None:
    """Undo what a deployment added, and return once all of it is gone; what is gone already is no error.

    Raises ServiceError, saying what stays, if anything does. All stays if the alias points at the version by now: a
    route to one that is gone would freeze every endpoint of clearml-serving 1.3.5. The folder of a model that Triton
    did not unload stays too, for the next try to find it by.
    """
    subject = f"endpoint {endpoint.name}/{endpoint.version}"
    with deferred_interrupts():
        if service.routes_to(endpoint):
            raise ServiceError(subject, "stays: an alias points at it by now")
        service.unregister(endpoint)
        left: list[str] = []
        ours = [model for model in written if model.created]
        for model in reversed(ours):  # an ensemble before what it passes on to
            if _done(partial(control.unload, model.name), left):
                _done(partial(remove_models, [model], mark=mark_of(service.id)), left)
        if left:
            raise ServiceError(subject, "was not taken back whole", evidence="; ".join(left))


def _done(undo: Callable[[], object], left: list[str]) -> bool:
    """Whether it could be undone; if not, `left` is told why."""
    try:
        undo()
    except Exception as error:  # whatever it is, the others are undone
        log.info("not undone", exc_info=True)
        left.append(str(error))
        return False
    return True
