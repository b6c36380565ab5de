"""An operation on an endpoint, as ClearML remembers it: a task, its claims while it runs, and how it ended."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from tao2serve.errors import NotReadyError, ServiceError
from tao2serve.identity import holder
from tao2serve.interrupts import deferred_interrupts
from tao2serve.registry.claims import NOTHING, Board, Claim, ClaimState, acquire
from tao2serve.registry.operations import (
    CLAIM,
    ENDPOINT,
    HOLDER,
    KIND,
    SERVICE,
    SILENCE_S,
    TAG,
    TURN,
    OperationRecord,
    held_by_another,
    list_operations,
    write_properties,
)
from tao2serve.registry.session import clearml, translated
from tao2serve.steps import note_of

__all__ = ["Operation"]

log = logging.getLogger(__name__)

Scope: TypeAlias = str  # CLAIM: the endpoint; TURN: the serving service's configuration
BEAT_S: Final = 5.0  # who waits for something else learns by it that the server is away
CLAIM_PATIENCE_S: Final = 15.0
TURN_PATIENCE_S: Final = 120.0


class Operation:
    """One running operation: a ClearML task below its serving service. A context manager.

    Inside, no other operation runs on this endpoint of this service; a second one that tries gets ServiceError.
    The task is not the process's main task, so nothing of the process is captured. It ends as completed, or as failed
    with the error's words; one whose process was killed is marked as failed by the next operation that meets it.
    """

    def __init__(self, kind: str, *, endpoint: str, service_id: str, project: str) -> None:
        self.kind, self.endpoint, self.service_id = kind, endpoint, service_id
        sdk = clearml()
        with translated("ClearML", f"did not make the task of this {kind}"):
            from clearml.backend_api.session.client import APIClient
            from clearml.backend_interface.util import get_or_create_project

            self._api: Any = APIClient()
            properties = {
                KIND: kind, ENDPOINT: endpoint, SERVICE: service_id, HOLDER: json.dumps(asdict(holder())),
                CLAIM: NOTHING, TURN: NOTHING,
            }  # fmt: skip
            # In one call, which Task.create is not: there is never a task that does not say whose it is.
            project_id = str(get_or_create_project(sdk.Task._get_default_session(), project))
            made = self._api.tasks.create(
                name=f"{kind} {endpoint}", type="custom", project=project_id,
                parent=service_id, tags=[TAG, kind],
                hyperparams={"properties": {name: _property(name, value) for name, value in properties.items()}},
            )  # fmt: skip
            self.task: Any = sdk.Task.get_task(task_id=made.id)
            if not self.task.output_uri:
                self.task.output_uri = True  # the files server that clearml.conf names
            self.task.mark_started()
            # The server's clock, as all dates that are compared here.
            created: datetime = self._api.tasks.get_by_id(task=self.id).created
        self._order = (created.isoformat(), self.id)
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._go_on_beating, name="tao2serve operation", daemon=True)

    @property
    def id(self) -> str:
        return str(self.task.id)

    def __enter__(self) -> Self:
        self._beat.start()
        try:
            self._claim()
        except BaseException as error:
            self._close(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An interrupt waits: events that are left unsent would keep the process from ending once the server is gone.
        with deferred_interrupts():
            self._close(error)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only operation that changes the serving service meanwhile; others wait.

        clearml-serving reads its configuration, changes it and writes it back whole, so two at once, be it on
        different endpoints, would lose one change. Raises NotReadyError if the others take too long.
        """
        with translated(f"serving service {self.service_id}", "did not say whose turn it is"):
            rival = acquire(self._board(TURN), patience_s=TURN_PATIENCE_S)
        if rival is not None:
            raise NotReadyError(
                f"serving service {self.service_id}",
                f"is being changed by another operation for more than {TURN_PATIENCE_S:g} s",
                evidence=f"ClearML task {rival.owner}",
                hint="wait for it to end, then run this again",
            )
        try:
            yield
        finally:
            with translated(f"ClearML task {self.id}", "could not give back its turn"):
                self._write({TURN: NOTHING})

    def require_running(self) -> None:
        """Raise ServiceError if ClearML holds this operation as ended; a turn that is given says that it does not."""
        with translated(f"ClearML task {self.id}", "could not be read"):
            self._others()

    def note(self, **properties: str) -> None:
        """Write properties of the task, which later operations read (OperationRecord.properties)."""
        with translated(f"ClearML task {self.id}", "did not take its properties"):
            self._write(properties)

    def record(self, name: str, document: Mapping[str, Any]) -> None:
        """Keep a JSON document with the task."""
        with translated(f"ClearML task {self.id}", f"did not take {name}"):
            self.task.set_configuration_object(name=name, config_text=json.dumps(document, indent=2))

    def _claim(self) -> None:
        with translated(f"endpoint {self.endpoint}", "could not be claimed in ClearML"):
            rival = acquire(self._board(CLAIM), patience_s=CLAIM_PATIENCE_S, give_up_if_held=True)
            if rival is None:
                return
            running = {record.task_id: record for record in self._others()}
        by = running.get(rival.owner)
        raise held_by_another(self.endpoint, str(by) if by else f"ClearML task {rival.owner}")

    def _board(self, scope: Scope) -> Board:
        def others() -> list[Claim]:
            found = self._others()
            if scope == CLAIM:
                found = [record for record in found if record.endpoint == self.endpoint]
            return [record.claim(scope) for record in found]

        def write(state: ClaimState) -> None:
            self._write({scope: state})

        return Board(order=self._order, write=write, others=others)

    def _others(self) -> list[OperationRecord]:
        """Return the other operations on this service that run, marking those as failed that do not go on.

        Raises ServiceError if this one is among those that somebody marked so: nothing is ours to change any more.
        """
        self._api.tasks.ping(task=self.id)
        records = list_operations(self.service_id, running=True, api=self._api)
        now = next((record.last_update for record in records if record.task_id == self.id), None)
        if now is None:
            raise ServiceError(
                f"{self.kind} {self.endpoint}",
                "was ended in ClearML while it ran, so it changes nothing more",
                evidence=f"ClearML task {self.id}: somebody stopped it, or it gave no sign for {SILENCE_S:g} s and "
                "another operation took its place",
                hint="run it again",
            )
        alive = []
        for record in records:
            if record.task_id == self.id:
                continue
            if record.goes_on(now):
                alive.append(record)
            else:
                self._bury(record)
        return alive

    def _bury(self, record: OperationRecord) -> None:
        log.warning("%s ended without a word; its task is marked as failed", record)
        try:
            self._api.tasks.failed(task=record.task_id, status_reason="gone", status_message="its process ended",
                                   force=True)  # fmt: skip
        except Exception:  # another operation may have buried it at this moment
            log.info("ClearML task %s could not be marked as failed", record.task_id, exc_info=True)

    def _write(self, properties: Mapping[str, str]) -> None:
        write_properties(self._api, self.id, properties)

    def _go_on_beating(self) -> None:
        ping = partial(self._api.tasks.ping, task=self.id)
        while not self._ended.wait(BEAT_S):
            try:
                ping()
            except Exception:  # the server may be away for a moment; the next beat may reach it
                log.info("ClearML task %s could not be touched", self.id, exc_info=True)

    def _close(self, error: BaseException | None) -> None:
        try:
            self._end(error)
        finally:  # not before: what is left to upload may take longer than others wait for a sign
            self._ended.set()

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            with translated(f"ClearML task {self.id}", "could not be closed"):
                self.task.flush(wait_for_uploads=True)
                # Also if another operation, that heard nothing of this one for long, marked it as failed meanwhile.
                self.task.mark_completed(ignore_errors=False, force=True)
            return
        try:
            self.task.flush(wait_for_uploads=True)
            self.task.mark_failed(status_reason=type(error).__name__, status_message=_message(error), force=True)
        except Exception:  # the error that ended the operation says more than this one
            log.warning("ClearML task %s could not be marked as failed", self.id, exc_info=True)


def _message(error: BaseException) -> str:
    """Return why it ended, as the list of last operations shows it."""
    if isinstance(error, KeyboardInterrupt):
        step = note_of(error, "step")
        return f"interrupted in the step {step!r}" if step else "interrupted"
    return str(error)[:1000] or type(error).__name__


def _property(name: str, value: str) -> dict[str, str]:
    return {"section": "properties", "name": name, "value": value}
