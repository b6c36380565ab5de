"""Where an endpoint lives: its serving service, its Triton, what is registered, and what was done there before."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from tao2serve.config import Settings
from tao2serve.deployment.host import Host
from tao2serve.registry.operations import OperationRecord, list_operations
from tao2serve.registry.publish import require_storage
from tao2serve.serving.alone import require_alone
from tao2serve.serving.inventory import read_elsewhere
from tao2serve.serving.ownership import mark_of, why_not_ours
from tao2serve.serving.placement import place
from tao2serve.serving.rollout import with_canary
from tao2serve.serving.service import EndpointVersion, ServingService, find_service
from tao2serve.serving.state import ServiceState, require_ours
from tao2serve.triton.control import TritonControl

__all__ = ["Site", "open_site"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One endpoint of one serving service, and the Triton behind it."""

    name: str
    base_url: str
    service: ServingService
    host: Host

    def version(self, number: int) -> EndpointVersion:
        return EndpointVersion(name=self.name, version=number, base_url=self.base_url)

    def state(self) -> ServiceState:
        """Return what the service is configured to do, read anew."""
        return self.service.state()

    def records(self) -> list[OperationRecord]:
        """Return the operations on this endpoint, newest first."""
        return list_operations(self.service.id, endpoint=self.name)

    def require_alone(self) -> None:
        """Raise ServiceError, naming who, if another operation runs on this endpoint; one that is gone is none."""
        require_alone(self.service.id, self.name)

    def next_version(self) -> EndpointVersion:
        """Return a version that neither the service nor the repository ever had. Inside an operation it stays free."""
        return self.version(max(self.service.next_version(self.name), self.host.last_version(self.name) + 1))

    def why_not_ours(self, version: int, model_id: str) -> str:
        """Say why the folders under the number of a dead run, which published this model, are somebody else's.

        "" if they are that run's, or there are none.
        """
        repository = self.host.repository
        if repository is None or not self.host.folders(self.version(version)):
            return ""
        elsewhere = read_elsewhere(self.service.id)
        return why_not_ours(self.name, version, model_id, repository=repository, elsewhere=elsewhere)

    def route_with(self, version: int, canary: float | None, state: ServiceState) -> Mapping[int, float]:
        """Return the weights that the alias is to have: all for the version, or its share beside the others.

        The first version of an endpoint gets everything, canary or not: there is nothing else to send requests to.
        """
        return {version: 1.0} if canary is None else with_canary(state.weights(self.name), version, canary)


def open_site(name: str, settings: Settings, stack: ExitStack) -> Site:
    """Find the service, its Triton and its storage, and see that they answer; nothing is changed.

    Raises UsageError naming the setting that nothing answers, and for a name that somebody else uses; ServiceError
    for what cannot be reached, and if another operation runs on this endpoint.
    """
    service = find_service(settings.service)
    require_ours(service.state(), name)
    where = place(service, settings)
    control = stack.enter_context(TritonControl(where.triton))
    host = Host(control=control, repository=where.repository, mark=mark_of(service.id))
    host.require_ready()
    require_storage()
    site = Site(name=name, base_url=where.base_url, service=service, host=host)
    site.require_alone()
    return site
