"""How far one tensor is from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tao2serve.errors import ParityError

__all__ = ["TensorDifference", "compare_tensors"]

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDifference:
    """How far one tensor is from its reference; infinite where a value is not a number."""

    name: str
    shape: tuple[int, ...]
    max_abs: float
    mean_abs: float
    cosine: float  # 1 where both point the same way, also where both are all zero


def compare_tensors(reference: Array, candidate: Array, *, name: str) -> TensorDifference:
    """Compare two tensors of one shape. Raises ParityError where the shapes differ."""
    if reference.shape != candidate.shape:
        raise ParityError(
            name,
            "has another shape than its reference",
            evidence=f"reference {reference.shape}, candidate {candidate.shape}",
        )
    a, b = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    if not np.isfinite(b).all() or not np.isfinite(a).all():
        infinite = float("inf")
        return TensorDifference(name=name, shape=reference.shape, max_abs=infinite, mean_abs=infinite, cosine=0.0)
    distance = np.abs(a - b)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return TensorDifference(
        name=name,
        shape=reference.shape,
        max_abs=float(distance.max(initial=0.0)),
        mean_abs=float(distance.mean()) if distance.size else 0.0,
        cosine=float(a @ b) / length if length else float(not a.any() and not b.any()),
    )
