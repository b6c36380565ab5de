"""A failure there as the same failure here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tao2serve import errors
from tao2serve.errors import Tao2ServeError

__all__ = ["error_of"]

_KINDS = {kind.exit_code: kind for name in errors.__all__ if issubclass(kind := getattr(errors, name), Tao2ServeError)}
_OWN = ("outcome", "exit_code", "error", "step", "aftermath")


def error_of(document: Mapping[str, Any], *, ran_on: Mapping[str, str]) -> Tao2ServeError:
    """Return the error that `--json` there has printed as `document`: the same class, code and parts.

    Its log is left out: it lies on the other machine, and its console is in the log of here.
    """
    parts = document.get("error") or {}
    code = int(document.get("exit_code") or Tao2ServeError.exit_code)
    kind = _KINDS.get(code, Tao2ServeError)
    error: Tao2ServeError = kind(
        str(parts.get("subject") or "tao2serve"),
        str(parts.get("fact") or "failed"),
        evidence=str(parts.get("evidence") or ""),
        hint=str(parts.get("hint") or ""),
    )
    if code != error.exit_code:
        error.exit_code = code
    error.step, error.aftermath = str(document.get("step") or ""), str(document.get("aftermath") or "")
    error.details = {key: value for key, value in document.items() if key not in _OWN} | {"ran_on": dict(ran_on)}
    return error
