"""Hyperparameters and configuration, one entry at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...call import Call
from ...store import Doc
from ..reading import texts
from .entity import KIND
from .status import load, require_created

_ALWAYS_EDITABLE = "properties"


def _tasks(call: Call) -> list[Doc]:
    return list(call.tx.scan(KIND, ids=texts(call.params.get("tasks"))))


def get_hyper_params(call: Call) -> Mapping[str, Any]:
    """List hyperparameters by section and name."""
    return {"params": [{"task": doc["id"], "hyperparams": _flat(doc)} for doc in _tasks(call)]}


def _flat(doc: Doc) -> list[Any]:
    sections = doc.get("hyperparams", {})
    return [sections[section][name] for section in sorted(sections) for name in sorted(sections[section])]


def _check_editable(call: Call, doc: Doc, sections: set[str]) -> None:
    if sections != {_ALWAYS_EDITABLE}:
        require_created(doc, also_running=call.flag("force"))


def edit_hyper_params(call: Call) -> Mapping[str, Any]:
    """Set hyperparameters; `replace_hyperparams` first drops all, or the sections named."""
    doc = load(call.tx, call.text("task"))
    items = call.params.get("hyperparams") or []
    _check_editable(call, doc, {item["section"] for item in items})
    replace = call.text("replace_hyperparams", "none")
    named = {item["section"] for item in items}
    sections = {
        section: dict(values)
        for section, values in doc.get("hyperparams", {}).items()
        if replace == "none" or (replace == "section" and section not in named)
    }
    for item in items:
        entry = {key: value for key, value in item.items() if value is not None}
        sections.setdefault(item["section"], {})[item["name"]] = entry
    call.tx.put(KIND, {**doc, "hyperparams": sections, **call.stamp()})
    return {"updated": 1}


def delete_hyper_params(call: Call) -> Mapping[str, Any]:
    """Remove hyperparameters, or whole sections when no name is given."""
    doc = load(call.tx, call.text("task"))
    items = call.params.get("hyperparams") or []
    _check_editable(call, doc, {item["section"] for item in items})
    sections = {section: dict(values) for section, values in doc.get("hyperparams", {}).items()}
    for item in items:
        if item.get("name"):
            sections.get(item["section"], {}).pop(item["name"], None)
        else:
            sections.pop(item["section"], None)
    call.tx.put(KIND, {**doc, "hyperparams": sections, **call.stamp()})
    return {"deleted": 1}


def get_configurations(call: Call) -> Mapping[str, Any]:
    """List configuration objects, all or those named."""
    names = call.params.get("names")
    return {
        "configurations": [
            {
                "task": doc["id"],
                "configuration": [
                    item for name, item in sorted(doc.get("configuration", {}).items()) if not names or name in names
                ],
            }
            for doc in _tasks(call)
        ]
    }


def get_configuration_names(call: Call) -> Mapping[str, Any]:
    """List the names of configuration objects."""
    docs = _tasks(call)
    listed = [{"task": doc["id"], "names": sorted(doc.get("configuration", {}))} for doc in docs]
    return {"configurations": listed}


def edit_configuration(call: Call) -> Mapping[str, Any]:
    """Set configuration objects; `replace_configuration` drops the others."""
    doc = load(call.tx, call.text("task"))
    require_created(doc, also_running=call.flag("force"))
    kept = {} if call.flag("replace_configuration") else doc.get("configuration", {})
    new = {
        item["name"]: {key: value for key, value in item.items() if value is not None}
        for item in call.params.get("configuration") or ()
    }
    call.tx.put(KIND, {**doc, "configuration": {**kept, **new}, **call.stamp()})
    return {"updated": 1}


def delete_configuration(call: Call) -> Mapping[str, Any]:
    """Remove configuration objects by name."""
    doc = load(call.tx, call.text("task"))
    require_created(doc, also_running=call.flag("force"))
    gone = texts(call.params.get("configuration"))
    kept = {name: item for name, item in doc.get("configuration", {}).items() if name not in gone}
    call.tx.put(KIND, {**doc, "configuration": kept, **call.stamp()})
    return {"deleted": 1}
