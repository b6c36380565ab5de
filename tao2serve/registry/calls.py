"""ClearML's API as it is, for questions that the SDK answers only one object a call."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tao2serve.errors import ServiceError
from tao2serve.registry.session import clearml

__all__ = ["IDS", "call", "get_all", "get_by_ids", "tags_of", "text"]

PAGE: Final = 500
IDS: Final = 200  # a filter of more ids makes a long request


def call(service: str, action: str, **params: Any) -> dict[str, Any]:
    """Make one call and return its data; raises ServiceError with ClearML's own sentence if it refuses."""
    # The SDK's session, so that credentials and tokens are its business; it has no public accessor.
    session = clearml().Task._get_default_session()
    answer = session.send_request(service=service, action=action, json=params)
    try:
        document = answer.json()
        message = str(document["meta"]["result_msg"])
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError(
            f"ClearML server, {service}.{action}",
            "answered something that is not ClearML's",
            evidence=f"HTTP {answer.status_code}",
            hint="check CLEARML_API_HOST: is it the API server?",
        ) from error
    if answer.status_code != 200:
        raise ServiceError(f"ClearML server, {service}.{action}", "refused", evidence=message[:500])
    data = document.get("data")
    return data if isinstance(data, dict) else {}


def get_all(service: str, *, fields: Sequence[str], limit: int, **filters: Any) -> Iterator[dict[str, Any]]:
    """Yield what `get_all` of a service finds, at most `limit`, in pages of its own order."""
    page = 0
    while page * PAGE < limit:
        data = call(service, "get_all", only_fields=list(fields), page=page, page_size=PAGE, **filters)
        found = data.get(service)
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        yield from rows[: limit - page * PAGE]
        if len(rows) < PAGE:
            return
        page += 1


def get_by_ids(service: str, ids: Sequence[str], *, fields: Sequence[str], **filters: Any) -> dict[str, dict[str, Any]]:
    """Return objects by their ids, few calls for many; ids that do not exist are left out."""
    wanted = sorted({identifier for identifier in ids if re.fullmatch(r"[0-9a-zA-Z_]+", identifier)})
    found = {}
    for start in range(0, len(wanted), IDS):
        chunk = wanted[start : start + IDS]
        for row in get_all(service, fields=["id", *fields], limit=len(chunk), id=chunk, **filters):
            found[str(row.get("id"))] = row
    return found


def tags_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the tags of an object; none where there are none."""
    found = row.get("tags")
    return tuple(str(tag) for tag in found) if isinstance(found, list) else ()


def text(row: Any, *path: str) -> str:
    """Return the text at a path in an answer; empty where there is none."""
    for key in path:
        row = row.get(key) if isinstance(row, dict) else None
    return row if isinstance(row, str) else ""
