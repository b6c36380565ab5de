"""Whether an endpoint is free to be changed, asked before anything is begun."""

from __future__ import annotations

from tao2serve.registry.operations import held_by_another, list_operations
from tao2serve.serving.instances import server_time

__all__ = ["require_alone"]


def require_alone(service_id: str, endpoint: str) -> None:
    """Raise ServiceError, naming who, if another operation runs on this endpoint; one that is gone is none.

    Only the claim of an Operation keeps others out. Whoever is refused here leaves no task behind.
    """
    running = list_operations(service_id, endpoint=endpoint, running=True)
    if not running:
        return
    now = server_time()
    for record in running:
        if record.goes_on(now):
            raise held_by_another(endpoint, str(record))
