"""What one examination finds out and others need: the credentials to hide, and what the serving service says."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

__all__ = ["Known", "ServiceSays"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSays:
    """The serving service's own settings; "" where it says nothing."""

    triton_grpc: str = ""
    serving_base_url: str = ""


@dataclass(slots=True)
class Known:
    """Filled by the examination of ClearML, read by those of Triton and of the inference service."""

    secrets: list[str] = field(default_factory=list)
    _service: ServiceSays = field(default_factory=ServiceSays)
    _said: threading.Event = field(default_factory=threading.Event)

    def say(self, service: ServiceSays) -> None:
        self._service = service
        self._said.set()

    def service(self, *, limit_s: float) -> ServiceSays:
        """Return what the service says; nothing if ClearML could not be asked in time."""
        self._said.wait(limit_s)
        return self._service
