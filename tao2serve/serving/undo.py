"""Taking back what a deployment added that did not get as far as its alias."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from tao2serve.errors import Tao2ServeError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.serving.service import EndpointVersion, ServingService
from tao2serve.steps import attempt
from tao2serve.triton.control import TritonControl
from tao2serve.triton.repository import remove_models
from tao2serve.values import TritonModel

__all__ = ["take_back"]

log = logging.getLogger(__name__)


def take_back(
    service: ServingService, control: TritonControl, endpoint: EndpointVersion, written: Sequence[TritonModel]
) -> None:
    """Undo what a failed deployment added, unless the alias points at it by now.

    A route to a version that is gone would freeze every endpoint of clearml-serving 1.3.5.
    """
    with deferred_interrupts():
        try:
            if service.routes_to(endpoint):
                return
            service.unregister(endpoint)
        except Tao2ServeError as error:
            log.warning("%s/%s stays where it is: %s", endpoint.name, endpoint.version, error)
            return
        ours = [model for model in written if model.created]
        for model in reversed(ours):  # an ensemble before what it passes on to
            attempt(partial(control.unload, model.name))
        attempt(lambda: remove_models(ours))
