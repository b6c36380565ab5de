"""The table of endpoints, and the names of those that ClearML has and this server has not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .call import Route
from .known import KNOWN
from .services.auth import routes as auth
from .services.auth.tokens import Gate
from .services.events import routes as events
from .services.models import routes as models
from .services.organization import routes as organization
from .services.pipelines import routes as pipelines
from .services.projects import routes as projects
from .services.queues import routes as queues
from .services.server import routes as server
from .services.serving import routes as serving
from .services.tasks import routes as tasks
from .services.workers import routes as workers


def route_table(gate: Gate) -> Mapping[str, Route]:
    """Return all routes by name."""
    routes = (
        *auth.routes(gate),
        *auth.USER_ROUTES,
        *events.ROUTES,
        *models.ROUTES,
        *organization.ROUTES,
        *pipelines.ROUTES,
        *projects.ROUTES,
        *queues.ROUTES,
        *server.ROUTES,
        *serving.ROUTES,
        *tasks.ROUTES,
        *workers.ROUTES,
    )
    return MappingProxyType({route.name: route for route in routes})


def is_known(name: str) -> bool:
    """Say whether ClearML has an endpoint of this name."""
    return name in KNOWN
