"""How a version's models come to Triton, and how they leave it.

Either tao2serve controls Triton over its API, on a repository that it writes; or ClearML Serving's own controller does
(`--managed`), which fills a folder of its own with what is registered: then there is nothing here to write or to load.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tao2serve.config import Settings
from tao2serve.errors import ServiceError
from tao2serve.serving.inventory import read_folders, read_model_name
from tao2serve.serving.service import EndpointVersion
from tao2serve.steps import attempt
from tao2serve.triton.control import TritonControl
from tao2serve.triton.models import PARTS, VERSION, ModelFolder
from tao2serve.triton.repository import last_version, remove_folder, write_models
from tao2serve.values import TritonModel

__all__ = ["Host"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One Triton and its repository; None if ClearML Serving's own controller fills it."""

    control: TritonControl
    repository: Path | None
    mark: str = ""  # of the hidden folders that are ours, see serving/ownership.py

    def require_ready(self) -> None:
        """Raise ServiceError unless Triton answers and its repository can be written."""
        if self.repository is None:
            self.control.require_live()  # one model that does not load keeps it from being ready
            return
        self.control.require_ready()
        if not os.access(self.repository, os.W_OK):
            raise ServiceError(f"Triton repository {self.repository}", "cannot be written", evidence="no permission")

    def is_ready(self, endpoint: EndpointVersion) -> bool:
        """Whether Triton answers for this version now."""
        return self.control.is_model_ready(endpoint.triton_model)

    def folders(self, endpoint: EndpointVersion) -> tuple[TritonModel, ...]:
        """Return this version's models in the repository, the one to load last."""
        repository = self.repository
        if repository is None:
            return ()
        names = [*(endpoint.triton_model + part for part in PARTS), endpoint.triton_model]
        return tuple(
            TritonModel(name=name, version=VERSION, repository=repository, backend="", created=True)
            for name in names
            if (repository / name).is_dir()
        )

    def is_stored(self, endpoint: EndpointVersion, settings: Settings) -> bool:
        """Whether all models of this version lie in the repository, so that they can be loaded."""
        if self.repository is None:
            return True  # the controller fetches them
        expected = 1 if settings.placement == "endpoint" else 1 + len(PARTS)
        return len(self.folders(endpoint)) == expected

    def write(self, models: Sequence[ModelFolder], *, adopted: bool) -> tuple[TritonModel, ...]:
        """Put a version's models into the repository; with `adopted` those that are there count as written now."""
        if self.repository is None:
            return ()
        written = write_models(models, repository=self.repository, mark=self.mark)
        return tuple(replace(model, created=True) for model in written) if adopted else written

    def load(self, endpoint: EndpointVersion, settings: Settings) -> bool:
        """Have Triton load this version and wait until it is ready; False if it was, and nothing was done."""
        if self.repository is None or self.is_ready(endpoint):
            return False
        self.control.load(endpoint.triton_model, timeout_s=settings.ready_timeout_s)
        return True

    def last_version(self, name: str) -> int:
        """Return the highest version that the repository knows: it may be of a service that is no more."""
        return last_version(name, repository=self.repository) if self.repository is not None else 0

    def sweep(self, name: str) -> None:
        """Remove what runs of this service left half written; call it inside an operation on this endpoint.

        What another service has half written there, which may be at it now, carries another mark.
        """
        if self.repository is None:
            return
        for text in read_folders(self.repository) or ():
            found = read_model_name(text)
            if found is not None and found.is_hidden and (found.endpoint, found.mark) == (name, self.mark):
                log.info("removing %s, which a run that was killed left", text)
                attempt(partial(remove_folder, self.repository / text, mark=self.mark))
