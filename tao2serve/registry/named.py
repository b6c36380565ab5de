"""A trained model by what people call it: PROJECT/TASK, both of which may hold slashes themselves."""

from __future__ import annotations

import re
from typing import Final

from tao2serve.errors import InputError
from tao2serve.registry.calls import call, text
from tao2serve.registry.session import clearml, translated
from tao2serve.registry.trained import BestModel, Selectors, choose_best, find_trained_models

__all__ = ["find_by_name"]

# What TAO's hook puts behind the name of a task: the time of the run.
TIME: Final = r"(_\d\d/\d\d/\d\d_\d\d:\d\d:\d\d)?"


def find_by_name(name: str, *, metric: str = "") -> BestModel:
    """Return the best model of the task, or tasks, of this name, with or without the time that TAO puts behind it.

    Raises InputError if there is no such project, or no trained model of such a task in it.
    """
    parts = name.strip("/").split("/")
    pairs = [("/".join(parts[:count]), "/".join(parts[count:])) for count in range(len(parts) - 1, 0, -1)]
    clearml()
    with translated("ClearML", "did not list its projects"):
        projects = "|".join(re.escape(project) for project, _ in pairs)
        found = call("projects", "get_all", name=f"^({projects})$", only_fields=["name"], search_hidden=True)
        known = {text(row, "name") for row in found.get("projects") or ()}
    for project, task in pairs:
        if project in known:
            models = find_trained_models(Selectors(project=project, task=f"^{re.escape(task)}{TIME}$"))
            if models:
                best = choose_best(models, subject=name, metric=metric)
                return BestModel(model=best.model, reason=f"of {task} in {project}, {best.reason}")
    places = ", ".join(sorted(known)) or "none of its beginnings is a project"
    raise InputError(
        name,
        "is neither a file nor PROJECT/TASK with a trained TAO model",
        evidence=f"looked in: {places}",
        hint="list what there is: tao2serve models",
    )
