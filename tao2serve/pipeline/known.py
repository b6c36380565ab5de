"""What a watch knows of models, kept with its ClearML task: the next watch of the same goes on with it."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

from tao2serve.registry.calls import get_all, get_by_ids, text
from tao2serve.registry.session import translated

__all__ = ["TAG", "Known", "KnownModel", "State", "read_known"]

State: TypeAlias = Literal["there before", "waiting", "running", "done", "failed", "passed over"]
RECORD: Final = "watched models"
TAG: Final = "tao2serve-watch"
UNENDED: Final = ("waiting", "running")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model and what became of its pipeline; `detail` is one line."""

    model_id: str
    name: str
    state: State
    detail: str = ""
    exit_code: int = 0  # of its pipeline


class Known:
    """The models that a watch has seen; every change is in ClearML before anything else happens."""

    def __init__(self, task: Any, models: dict[str, KnownModel]) -> None:
        self._task, self._models, self._lock = task, models, threading.Lock()

    def __contains__(self, model_id: str) -> bool:
        return model_id in self._models

    @property
    def all(self) -> tuple[KnownModel, ...]:
        return tuple(self._models.values())

    @property
    def unended(self) -> tuple[KnownModel, ...]:
        """Those whose pipeline was not over when an earlier watch ended."""
        return tuple(model for model in self._models.values() if model.state in UNENDED)

    def note(self, *models: KnownModel) -> None:
        """Keep what became of models; what ClearML did not take goes with the next note."""
        with self._lock:
            self._models |= {model.model_id: model for model in models}
            self._write(self._models)

    def add(self, model: KnownModel) -> bool:
        """Keep a model that is not known yet; say whether it was new. What ClearML did not take stays unknown."""
        with self._lock:
            if model.model_id in self._models:
                return False
            self._write({**self._models, model.model_id: model})
            self._models[model.model_id] = model
            return True

    def _write(self, models: dict[str, KnownModel]) -> None:
        document = [asdict(model) for model in models.values()]
        with translated(f"ClearML task {self._task.id}", "did not take what the watch knows"):
            self._task.set_configuration_object(name=RECORD, config_text=json.dumps(document, indent=2))


def read_known(name: str, *, other_than: str) -> dict[str, KnownModel] | None:
    """Return what the last watch of this name knew; None if there was none."""
    with translated("ClearML", "did not list earlier watches"):
        rows = get_all(
            "tasks", fields=["id"], limit=100, name=f"^{re.escape(name)}$", tags=[TAG], order_by=["-created"],
            system_tags=["-archived"], search_hidden=True,
        )  # fmt: skip
        for identifier in (text(row, "id") for row in rows):
            if identifier == other_than:
                continue
            found = get_by_ids("tasks", [identifier], fields=["configuration"], search_hidden=True)
            if value := text(found.get(identifier), "configuration", RECORD, "value"):
                return {one["model_id"]: KnownModel(**one) for one in json.loads(value)}
    return None
