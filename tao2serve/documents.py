"""JSON documents that others read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["json_text"]


def json_text(document: Mapping[str, Any]) -> str:
    """Return a document as indented JSON that any parser reads; what is no JSON value becomes its text.

    A number that is not finite becomes null: Python would write NaN and Infinity, which JSON has not.
    """
    return json.dumps(_finite(document), indent=2, allow_nan=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(member) for name, member in value.items()}
    return [_finite(member) for member in value] if isinstance(value, list | tuple) else value
