"""The wire: paths, bodies and the envelope around every answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from .clock import new_id
from .errors import ApiError

_PATH = re.compile(r"^/(?:v(?P<version>\d+\.\d+)/)?(?P<name>[A-Za-z_]+\.[A-Za-z_]+)/?$")
_DEFAULT_VERSION = "2.34"
_BAD_BODY = "The browser (or proxy) sent a request that this server could not understand."


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a request asks for: an endpoint in a version."""

    name: str = ""
    version: str | float = _DEFAULT_VERSION

    @property
    def legacy(self) -> bool:
        """Versions below 2 are numbers in the envelope, later ones are texts."""
        return isinstance(self.version, float)


UNREADABLE = Target(version=1.0)


def parse_path(path: str) -> Target:
    """Read ``/v2.31/tasks.get_all``; any version is accepted, a path of another form is 400."""
    match = _PATH.match(path)
    if match is None:
        raise ApiError(400, 0, f"Invalid request path {path}")
    version = match["version"] or _DEFAULT_VERSION
    return Target(name=match["name"], version=float(version) if float(version) < 2 else version)


def parse_query(query: str) -> dict[str, Any]:
    """Read query parameters; ``name[]`` collects a list."""
    params: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name.endswith("[]"):
            params.setdefault(name.removesuffix("[]"), []).append(value)
        else:
            params[name] = value
    return params


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; an empty body and null are an empty object."""
    if not body.strip():
        return {}
    value = _loads(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ApiError(500, 0, "Data should be a dict")
    return value


def parse_lines(body: bytes) -> tuple[Any, ...]:
    """Read JSON lines; a line that is a list stands for its items."""
    items: list[Any] = []
    for line in body.splitlines():
        value = _loads(line) if line.strip() else None
        if isinstance(value, list):
            items += value
        elif value is not None:
            items.append(value)
    return tuple(items)


def _loads(text: bytes) -> Any:
    try:
        value = json.loads(text)
        if b"\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise ApiError(400, 0, _BAD_BODY) from error
    return value


def envelope(target: Target, *, actual: str | None, data: Mapping[str, Any], error: ApiError | None = None) -> bytes:
    """Return an answer's body; an error has no data."""
    identifier = new_id()
    answered = float(actual) if actual and target.legacy else actual
    meta = {
        "id": identifier,
        "trx": identifier,
        "endpoint": {
            "name": target.name,
            "requested_version": target.version,
            "actual_version": answered,
        },
        "result_code": error.code if error else 200,
        "result_subcode": error.subcode if error else 0,
        "result_msg": error.message if error else "OK",
        "error_stack": None,
        "error_data": {},
    }
    return json.dumps({"meta": meta, "data": {} if error else data}).encode()
