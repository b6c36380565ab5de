"""ClearML Serving's own Triton controllers, as their tasks in ClearML tell of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tao2serve.errors import ServiceError
from tao2serve.registry.publish import PublishedModel
from tao2serve.registry.session import clearml, translated

__all__ = [
    "LOOKS",
    "STOCK_FREQUENCY_S",
    "Controller",
    "find_controllers",
    "frequency_s",
    "raise_if_lost",
    "still_running",
]

STOCK_FREQUENCY_S: Final = 600.0
# One look of the controller, which may just have looked, and one of its Triton; the controller counts in whole looks.
LOOKS: Final = 3
SILENCE_S: Final = 60.0
FREQUENCY: Final = "update_frequency"  # of the stock controller's arguments, in minutes
# The controller's word for a model that it could not download; it does not try again.
LOST: Final = "Error retrieving model ID {}"
REPORTS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """A Triton controller that runs for a serving service, as its ClearML task tells."""

    task_id: str
    name: str
    frequency_s: float  # how often it looks for changes, and its Triton for models

    def __str__(self) -> str:
        return f"{self.name!r} ({self.task_id})"


def find_controllers(service_id: str) -> tuple[Controller, ...]:
    """Return the controllers that run for the serving service, the one that spoke last first.

    They write their arguments into their tasks.
    """
    clearml()
    with translated("ClearML", "did not list the Triton controllers"):
        from clearml.backend_api.session.client import APIClient

        tasks = APIClient().tasks.get_all(
            type=["inference"], status=["in_progress"], order_by=["-last_update"], page=0, page_size=500,
            only_fields=["id", "name", "hyperparams", "last_update"],
        )  # fmt: skip
        found = [(task, _arguments(task.data.hyperparams)) for task in tasks]
    ours = [
        (
            Controller(task_id=str(task.id), name=str(task.name), frequency_s=frequency_s(arguments[FREQUENCY])),
            task.last_update,
        )
        for task, arguments in found
        if arguments.get("serving_id") == service_id and FREQUENCY in arguments
    ]
    return still_running(ours)


def still_running(found: Sequence[tuple[Controller, datetime]]) -> tuple[Controller, ...]:
    """Return those that are not known to have ended; `found` has when each spoke, the last one first.

    A task whose controller was killed stays `in_progress`. It is left out once another one has spoken so much later
    that it must have missed some of its looks; with nobody to compare with it may be the one that runs.
    """
    return tuple(
        controller
        for controller, spoke in found
        if (found[0][1] - spoke).total_seconds() <= LOOKS * controller.frequency_s + SILENCE_S
    )


def frequency_s(minutes: str) -> float:
    """Return how often a controller looks, from its argument; the stock frequency for what cannot be read."""
    try:
        seconds = float(minutes) * 60
    except ValueError:
        return STOCK_FREQUENCY_S
    return seconds if 0 < seconds < float("inf") else STOCK_FREQUENCY_S


def raise_if_lost(controllers: Sequence[Controller], model: PublishedModel) -> None:
    """Raise ServiceError if a controller says in its task's log that it could not download the model."""
    lost = LOST.format(model.model_id)
    for controller in controllers:
        with translated(f"ClearML task {controller.task_id}", "did not give its log"):
            task: Any = clearml().Task.get_task(task_id=controller.task_id)
            reports = task.get_reported_console_output(number_of_reports=REPORTS)
        said = [line for report in reports for line in str(report).splitlines() if lost in line]
        if said:
            raise ServiceError(
                f"ClearML model {model.model_id}",
                "could not be downloaded by the Triton controller, which does not try again",
                evidence=f"{controller}: {said[-1].strip()}",
                hint="can it reach the storage, with the credentials and extras that it needs? Then deploy again",
            )


def _arguments(hyperparams: Any) -> dict[str, str]:
    """Return the command line that a task was started with, as ClearML keeps it."""
    section = hyperparams.get("Args") if isinstance(hyperparams, Mapping) else None
    items: Mapping[str, Any] = section if isinstance(section, Mapping) else {}
    return {
        name: str(entry.get("value") if isinstance(entry, Mapping) else getattr(entry, "value", ""))
        for name, entry in items.items()
    }
