"""Pruned or not, and from what: read from TAO's experiment spec, ClearML's links, tags and names."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tao2serve.errors import InputError
from tao2serve.registry.evidence import Schedule
from tao2serve.tao.spec import read_spec
from tao2serve.tao.spec_values import ExperimentSpec

__all__ = ["SPEC_NAMES", "parse_spec", "pruned", "schedule", "spec_text"]

SPEC_NAMES: Final = ("experiment_spec", "experiment_spec.txt", "spec")
# What every training spec of DetectNet_v2 has; TAO's own hook keeps no spec, users name theirs as they like.
SPEC_MARKS: Final = ("model_config", "cost_function_config")
SPEC_BYTES: Final = 8 << 20


def spec_text(configuration: Any) -> str:
    """Return the experiment spec among a task's configuration objects; empty if there is none.

    Known names come first, then any object that reads like a training spec.
    """
    objects = configuration if isinstance(configuration, Mapping) else {}
    texts = {name: entry.get("value") for name, entry in objects.items() if isinstance(entry, Mapping)}
    named = [texts.get(name) for name in SPEC_NAMES]
    others = [
        value for _, value in sorted(texts.items()) if isinstance(value, str) and all(m in value for m in SPEC_MARKS)
    ]
    for value in [*named, *others]:
        if isinstance(value, str) and value.strip() and len(value) <= SPEC_BYTES:
            return value
    return ""


def parse_spec(text: str) -> ExperimentSpec | None:
    """Return the spec that a text is; None if it cannot be read as one."""
    if not text:
        return None
    with tempfile.TemporaryDirectory(prefix="tao2serve-spec-") as folder:
        path = Path(folder) / "experiment_spec.txt"
        path.write_text(text, encoding="utf-8")
        try:
            return read_spec(path)
        except InputError:
            return None


def pruned(
    spec: ExperimentSpec | None, *, tags: Sequence[str], names: Sequence[str]
) -> tuple[bool | None, tuple[str, ...]]:
    """Say whether a model is pruned, and what says so, the strongest first; None if nothing does.

    TAO retrains a pruned model only with `load_graph: true`, and without it builds the whole template; a tag is what
    somebody wrote, and a name what somebody typed.
    """
    verdicts: list[tuple[bool, str]] = []
    if spec is not None and spec.model is not None:
        file = f", pretrained_model_file {spec.model.pretrained_model_file}" if spec.model.pretrained_model_file else ""
        verdicts.append((spec.model.load_graph, f"spec: load_graph {str(spec.model.load_graph).lower()}{file}"))
    for tag in ("unpruned", "pruned"):
        if tag in tags:
            verdicts.append((tag == "pruned", f"tag {tag}"))
    for name in names:
        if "unpruned" in name.lower():
            verdicts.append((False, f"name {name}"))
        elif "pruned" in name.lower():
            verdicts.append((True, f"name {name}"))
    if not verdicts:
        return None, ()
    verdict = verdicts[0][0]
    words = [said if value is verdict else f"against it: {said}" for value, said in verdicts]
    return verdict, tuple(words)


def schedule(text: str, *, completed: bool) -> Schedule:
    """Return when a run evaluates, by the three numbers of its experiment spec; 0 for what it does not name."""
    return Schedule(
        epochs=_number(text, "num_epochs"),
        period=_number(text, "validation_period_during_training"),
        first=_number(text, "first_validation_epoch"),
        completed=completed,
    )


def _number(text: str, field: str) -> int:
    match = re.search(rf"^[^#\n]*\b{field}\s*:\s*(\d{{1,7}})\b", text, re.MULTILINE)
    return int(match.group(1)) if match else 0
