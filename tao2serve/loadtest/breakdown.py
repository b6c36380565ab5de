"""Where the mean request spends its time, from our own answers' timings and Triton's counters together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from tao2serve.loadtest.result import StageTiming
from tao2serve.loadtest.triton_counts import ModelCounts
from tao2serve.triton.models import DETECTOR

__all__ = ["PARTS", "waterfall"]

TO_TRITON: Final = "to Triton and back"
UNEXPLAINED: Final = "unexplained"
_STAGES: Final = ("preprocess", "infer", "postprocess")
_SPLIT: Final = ("queue", "input", "compute", "output")
PARTS: Final = ("outside", "preprocess", TO_TRITON, *_SPLIT, UNEXPLAINED, "postprocess", "rest")

# Triton's counters cover a little less than the run time and every request that is in them, so their mean
# may exceed that of our answers by so much; beyond it they are not of the same requests.
_ALLOWED_EXCESS: Final = 0.1


def waterfall(stages: Sequence[StageTiming], models: Sequence[ModelCounts]) -> tuple[tuple[str, float], ...]:
    """Return the parts of the mean request in milliseconds, in order; they add up to the mean latency, none is below 0.

    Of requests whose answers have a timing; () if none has. `models` are those that answered them (`of_endpoints`):
    `infer` of the answers is split by what Triton counted for them, what is left of it being the way `to Triton and
    back`. It stays whole, as `unexplained`, if nothing was counted or if that cannot be of the same requests. `rest` is
    the server's total less its stages.
    """
    means = {stage.stage: max(stage.mean, 0.0) for stage in stages}
    if "total" not in means:
        return ()
    timed_ms = math.fsum(means.get(stage, 0.0) for stage in _STAGES)
    # Stages that ran at the same time would be more than the total: their shares of it are all that is known.
    scale = min(1.0, means["total"] / timed_ms) if timed_ms else 0.0
    infer_ms = means.get("infer", 0.0) * scale
    parts = {
        "outside": means.get("outside", 0.0),
        "preprocess": means.get("preprocess", 0.0) * scale,
        **_inside_infer(infer_ms, models),
        "postprocess": means.get("postprocess", 0.0) * scale,
        "rest": max(means["total"] - timed_ms * scale, 0.0),
    }
    return tuple((name, parts[name]) for name in PARTS if name in parts)


def _inside_infer(infer_ms: float, models: Sequence[ModelCounts]) -> dict[str, float]:
    split = _split(models)
    counted_ms = math.fsum(split.values())
    if not counted_ms or counted_ms > infer_ms * (1 + _ALLOWED_EXCESS):
        return {UNEXPLAINED: infer_ms} if infer_ms else {}
    scale = min(1.0, infer_ms / counted_ms)
    scaled = {name: value * scale for name, value in split.items()}
    return {TO_TRITON: max(infer_ms - math.fsum(scaled.values()), 0.0), **scaled}


def _split(models: Sequence[ModelCounts]) -> dict[str, float]:
    """Return Triton's part of the mean request; of several deployments weighted by their requests."""
    names = {model.name for model in models}
    parts = [model for model in models if _ensemble_of(model, names)]
    roots = [model for model in models if model not in parts]
    requests = sum(root.requests for root in roots)
    if not requests:
        return {}
    weighted = dict.fromkeys(_SPLIT, 0.0)
    for root in roots:
        own = [part for part in parts if _ensemble_of(part, names) == root.name and part.requests] or [root]
        for name, value in _of_one(own).items():
            weighted[name] += value * root.requests / requests
    return weighted


def _ensemble_of(model: ModelCounts, names: set[str]) -> str:
    """Return the ensemble that passes requests to this model, "" if there is none."""
    return next((name for name in sorted(names) if model.name.startswith(f"{name}_")), "")


def _of_one(models: Sequence[ModelCounts]) -> dict[str, float]:
    """Add up what the models of one deployment did inside `infer`.

    The first and the last model of our ensemble compute in the stages `preprocess` and `postprocess`, which are
    in the answers; in `infer` there is only the network's own time, and the way of all of them through Triton.
    """
    detectors = [model for model in models if model.name.endswith(DETECTOR)] or models
    return {
        "queue": math.fsum(model.queue_ms for model in models),
        "input": math.fsum(model.input_ms for model in models),
        "compute": math.fsum(model.infer_ms for model in detectors),
        "output": math.fsum(model.output_ms for model in models),
    }
