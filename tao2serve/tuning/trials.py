"""Where candidates are measured: versions of the endpoint that no alias routes to, gone when the tuning is over.

The path is the whole one, through ClearML Serving, since where pictures are read is part of what is compared. A
placement is a version of its own, for it is part of the preprocess code; everything else is Triton's, so a candidate
costs no more than its models being put under the trial's name and loaded there. The deployed version is not touched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tao2serve.config import PlacementKind, Settings
from tao2serve.deployment.site import Site
from tao2serve.errors import NotReadyError, ServiceError, Tao2ServeError
from tao2serve.interrupts import deferred_interrupts
from tao2serve.registry.operation import Operation
from tao2serve.registry.operations import TRIED, VERSION, OperationRecord, mark
from tao2serve.runtime import Detections
from tao2serve.serving.client import ask, wait_for_answer
from tao2serve.serving.package import write_package
from tao2serve.serving.parity import check_boxes
from tao2serve.serving.service import EndpointVersion
from tao2serve.serving.undo import take_back
from tao2serve.steps import attempt
from tao2serve.triton.control import wait_until_unloaded
from tao2serve.triton.models import models_of
from tao2serve.triton.repository import remove_models
from tao2serve.tuning.candidate import Candidate
from tao2serve.tuning.deployed import Deployed
from tao2serve.values import TritonModel

__all__ = ["RefusedError", "Trials", "settings_of"]

log = logging.getLogger(__name__)

TUNE: Final = "tune"
_STAGE: Final = "stage"
_UNLOAD_LIMIT_S: Final = 30.0
_TAKEN_BACK: Final = "taken back"
News = Callable[[str], None]


class RefusedError(Exception):
    """Triton, which is well otherwise, does not load a candidate: too little memory, for one."""


@dataclass(slots=True, kw_only=True)
class _Trial:
    """One placement's version, and its models that are in the repository now."""

    endpoint: EndpointVersion
    written: tuple[TritonModel, ...] = ()
    serves: Candidate | None = None  # as what it is loaded, and has answered
    is_registered: bool = False


@dataclass(slots=True, kw_only=True)
class Trials:
    """One operation `tune` on the endpoint: no other changes the endpoint meanwhile. A context manager.

    What it adds is taken away at its end. Of one that was killed the next one does, and so does `undeploy`.
    """

    deployed: Deployed
    site: Site
    settings: Settings  # of now: times and addresses
    image: bytes
    folder: Path  # for preprocess code
    _trials: dict[PlacementKind, _Trial] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _operation: Operation | None = None
    _answered: Detections | None = None

    def __enter__(self) -> Self:
        site, name = self.site, self.site.name
        with ExitStack() as stack:
            operation = stack.enter_context(
                Operation(TUNE, endpoint=name, service_id=site.service.id, project=self.settings.artifact_project)
            )
            site.service.turn = operation.turn
            operation.note(model=self.deployed.model.model_id)
            stack.callback(self._take_back)
            self._operation = operation
            site.host.sweep(name)
            for record in site.records():
                if record.kind == TUNE and record.task_id != operation.id and _is_dead(record):
                    attempt(partial(self._tidy, record))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred_interrupts():
            self._stack.__exit__(kind, error, trace)

    def put(self, candidate: Candidate, *, on_news: News = lambda _: None) -> EndpointVersion:
        """Serve the candidate, alone among candidates, and return the version to ask; it answers the same boxes.

        One that serves already, as at the turn from one block of the finals to the next, is not loaded anew.
        Raises RefusedError if Triton is well and does not load it, ServiceError and NotReadyError if it does not
        answer, ParityError if its boxes are others than the deployed version's.
        """
        trial = self._trials.get(candidate.placement)
        if trial is None or trial.serves != candidate:
            for other in self._trials.values():
                self._unload(other)
            trial = trial or self._new(candidate.placement)
            self._load(trial, candidate, on_news)
        answer = wait_for_answer(
            trial.endpoint.url, self.image, timeout_s=self.settings.ready_timeout_s, on_news=on_news
        )
        check_boxes(self._expected(), answer, subject=trial.endpoint.url)
        trial.serves = candidate
        return trial.endpoint

    def _load(self, trial: _Trial, candidate: Candidate, on_news: News) -> None:
        settings, host = settings_of(candidate, self.deployed.settings), self.site.host
        on_news(f"loading {candidate}")
        folders = models_of(self.deployed.artifact, self.deployed.params, settings, name=trial.endpoint.triton_model)
        trial.written = host.write(folders, adopted=True)
        try:
            host.load(trial.endpoint, self.settings)
        except (ServiceError, NotReadyError) as error:
            if host.control.is_ready():
                raise RefusedError(str(error)) from error
            raise
        if not trial.is_registered:
            on_news(f"waiting for ClearML Serving to see {trial.endpoint.name}/{trial.endpoint.version}")
            self._register(trial, settings)

    def keep(self, document: Mapping[str, Any]) -> None:
        """Keep what came of the tuning with its operation in ClearML."""
        assert self._operation is not None
        self._operation.record("tuning", document)

    def _expected(self) -> Detections:
        """What the deployed version says of the picture, asked once: its requests are those of others."""
        if self._answered is None:
            self._answered = ask(self.deployed.endpoint.url, self.image).detections
        return self._answered

    def _new(self, placement: PlacementKind) -> _Trial:
        """Take a number that was never used, and note it before anything is there under it."""
        assert self._operation is not None
        used = [trial.endpoint.version for trial in self._trials.values()]
        version = max([self.site.next_version().version, *(number + 1 for number in used)])
        self._operation.note(**{VERSION: str(min([*used, version])), TRIED: ",".join(map(str, [*used, version]))})
        self._trials[placement] = _Trial(endpoint=self.site.version(version))
        return self._trials[placement]

    def _register(self, trial: _Trial, settings: Settings) -> None:
        deployed = self.deployed
        code = write_package(
            trial.endpoint, deployed.model, deployed.artifact, deployed.params, settings,
            directory=self.folder / f"preprocess_{trial.endpoint.version}",
        )  # fmt: skip
        self.site.service.register(
            trial.endpoint, model_id=deployed.model.model_id, signature=deployed.artifact.signature,
            preprocess_code=code,
        )  # fmt: skip
        trial.is_registered = True

    def _unload(self, trial: _Trial) -> None:
        """Take a trial's models off Triton and out of the repository: the name is free for the next candidate."""
        trial.serves = None
        for model in reversed(trial.written):  # an ensemble before what it passes on to
            self.site.host.control.unload(model.name)
        names = [model.name for model in trial.written]
        with suppress(NotReadyError):  # what holds them may end while the next ones load
            wait_until_unloaded(self.site.host.control, names, timeout_s=_UNLOAD_LIMIT_S)
        remove_models(trial.written, mark=self.site.host.mark)
        trial.written = ()

    def _take_back(self) -> None:
        """Take everything away; what cannot be is told, and noted for the next tuning to find."""
        assert self._operation is not None
        left = []
        for trial in self._trials.values():
            try:
                folders = self.site.host.folders(trial.endpoint)
                take_back(self.site.service, self.site.host.control, trial.endpoint, folders)
            except Tao2ServeError as error:
                log.warning("%s", error)
                left.append(str(error))
        self._trials.clear()
        if not left:
            attempt(partial(self._operation.note, **{_STAGE: _TAKEN_BACK}))

    def _tidy(self, record: OperationRecord) -> None:
        """Take away what a tuning that was killed left; what somebody else put under its numbers was never its own."""
        for version in record.versions:
            endpoint = self.site.version(version)
            strange = self.site.why_not_ours(version, record.properties.get("model", ""))
            folders: Sequence[TritonModel] = () if strange else self.site.host.folders(endpoint)
            log.info("taking away %s/%s, which %s left", endpoint.name, version, record)
            take_back(self.site.service, self.site.host.control, endpoint, folders)
        mark(record.task_id, **{_STAGE: _TAKEN_BACK})


def settings_of(candidate: Candidate, settings: Settings) -> Settings:
    """Return the settings with the candidate's; a preferred batch that is larger than its largest is left out."""
    sizes = [size for size in settings.preferred_batch_sizes.split(",") if size]
    fitting = ",".join(size for size in sizes if int(size) <= candidate.max_batch_size)
    return settings.model_copy(update={**candidate.settings(), "preferred_batch_sizes": fitting})


def _is_dead(record: OperationRecord) -> bool:
    return not record.is_running and record.properties.get(_STAGE) != _TAKEN_BACK
