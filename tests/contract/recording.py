"""Replaying recorded exchanges: ids are translated, times and tokens are masked, the rest must be equal."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?")
_EPOCH_MS = 1_700_000_000_000
# The recorded deployment had two accounts; this server has one, with a name of its own.
_ACCOUNTS = {
    "__tests__": "sandbox",
    "tests": "sandbox",
    "Stopped by tests": "Stopped by sandbox",
    "Default User": "Sandbox User",
}
_SECOND_ACCOUNT = "__tests2__"
_UNORDERED = ("types",)


def golden_folder(start: Path) -> Path | None:
    """Return the folder of reference data: `$GOLDEN`, or `shared/golden` in a folder above."""
    named = os.environ.get("GOLDEN")
    candidates = [Path(named)] if named else [parent / "shared" / "golden" for parent in start.parents]
    return next((folder for folder in candidates if (folder / "clearml" / "api.jsonl").is_file()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One recorded request and answer."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    request: Any
    status: int
    response: Any

    @property
    def endpoint(self) -> str:
        """The name of the endpoint, without version and query."""
        return self.path.rsplit("/", 1)[-1].partition("?")[0]


def load(path: Path) -> list[Exchange]:
    """Read a recording."""
    with path.open() as lines:
        return [_exchange(number, json.loads(line)) for number, line in enumerate(lines)]


def _exchange(number: int, row: Mapping[str, Any]) -> Exchange:
    return Exchange(
        number=number,
        method=row["method"],
        path=row["path"],
        headers=row["req_headers"],
        request=row["request"],
        status=row["status"],
        response=row["response"],
    )


@dataclass(slots=True)
class Translation:
    """Recorded ids and the ids that this server gave instead."""

    ours: dict[str, str] = field(default_factory=dict)

    def to_ours(self, value: Any) -> Any:
        """Return a recorded value with our ids in it."""
        return json.loads(self.text_to_ours(json.dumps(value)))

    def text_to_ours(self, text: str) -> str:
        """Return a recorded text with our ids in it."""
        text = _ID.sub(lambda match: self.ours.get(match[0], match[0]), text)
        return text.replace("__tests__", _ACCOUNTS["__tests__"])

    def learn(self, recorded: Any, answered: Any) -> None:
        """Pair the ids that stand in the same place of both answers; the first meeting counts."""
        if isinstance(recorded, dict) and isinstance(answered, dict):
            for key in recorded.keys() & answered.keys():
                self.learn(recorded[key], answered[key])
        elif isinstance(recorded, list) and isinstance(answered, list):
            for left, right in zip(recorded, answered, strict=False):
                self.learn(left, right)
        elif isinstance(recorded, str) and isinstance(answered, str):
            for left, right in zip(_ID.findall(recorded), _ID.findall(answered), strict=False):
                self.ours.setdefault(left, right)


def masked(value: Any, key: str = "") -> Any:
    """Return a value with times, tokens and durations replaced by their kind."""
    if isinstance(value, dict):
        fresh = ("id", "trx") if key == "meta" else ()
        return {name: masked(item, name) for name, item in value.items() if name not in fresh}
    if isinstance(value, list):
        kept = [masked(item, key) for item in value if not _is_second_account(item)]
        return sorted(kept) if key in _UNORDERED else kept
    if isinstance(value, str):
        if key in ("token", "scroll_id", "access_key"):
            return f"<{key}>"
        return _ACCOUNTS.get(value, _TIME.sub("<time>", value))
    if isinstance(value, int) and (value > _EPOCH_MS or key == "active_duration"):
        return "<number>"
    return value


def _is_second_account(item: Any) -> bool:
    return isinstance(item, dict) and item.get("id") == _SECOND_ACCOUNT


def differences(recorded: Any, answered: Any, path: str = "") -> Iterator[str]:
    """Yield what differs between two masked answers, by path."""
    if isinstance(recorded, dict) and isinstance(answered, dict):
        for key in sorted(recorded.keys() | answered.keys()):
            if key not in answered:
                yield f"{path}.{key}: missing, recorded {_short(recorded[key])}"
            elif key not in recorded:
                yield f"{path}.{key}: {_short(answered[key])}, not recorded"
            else:
                yield from differences(recorded[key], answered[key], f"{path}.{key}")
    elif isinstance(recorded, list) and isinstance(answered, list) and len(recorded) == len(answered):
        for index, (left, right) in enumerate(zip(recorded, answered, strict=True)):
            yield from differences(left, right, f"{path}[{index}]")
    elif recorded != answered or isinstance(recorded, bool) != isinstance(answered, bool):
        yield f"{path}: {_short(answered)}, recorded {_short(recorded)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else text[:157] + "..."
